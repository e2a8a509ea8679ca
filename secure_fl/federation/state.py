"""The replicated state of a federation: what everybody who holds the models knows.

It follows from the plan and the opened sums, and from nothing else.

A state is a value. A round makes a new one; two that are equal have one digest, whoever computed
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from secure_fl.crypto.strict_json import canonical, fields, malformed, parse_object
from secure_fl.errors import RunFolderError
from secure_fl.federation.place import Place as Place
from secure_fl.federation.tensors import pack, unpack

_MAGIC = b"secure-fl state 1\n"
_LENGTH = 4
MOST = 1 << 32
"""Bytes of the largest state that `decode` looks at."""
_MOST_HEAD = 1 << 24
_NAME = "state"


@dataclass(frozen=True, eq=False)
class State:
    """The models, and what else a program carries from round to round.

    **Guarantee.** Equal digests stand for equal places, facts and tensors, bit for bit.

    **Assumes.** SHA-256 has no collisions, and nobody changes a tensor that a state holds.

    Attributes:
        place: where the program is.
        tensors: by name; on the processor.
        facts: what else rounds hand on, such as a bound that adapts: JSON values by name.
    """

    place: Place
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))

    def __repr__(self) -> str:
        """Names only: what is stored under them may follow clients' examples."""
        return f"State({self.place}, tensors={sorted(self.tensors)}, facts={sorted(self.facts)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def with_values(
        self,
        tensors: Mapping[str, Tensor] | None = None,
        facts: Mapping[str, Any] | None = None,
        without: Iterable[str] = (),
    ) -> State:
        """The same with some values set, and the tensors named in `without` left out."""
        kept = {name: tensor for name, tensor in self.tensors.items() if name not in set(without)}
        return State(self.place, kept | dict(tensors or {}), dict(self.facts) | dict(facts or {}))

    def at(self, place: Place) -> State:
        """The same tensors and facts at another place."""
        return State(place, self.tensors, self.facts)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over place, facts, and the tensors' names, types, shapes and bytes; 32 bytes."""
        digest = hashlib.sha256(_MAGIC)
        for part in (self._head, *_flat(self.tensors)):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.digest()

    @property
    def _head(self) -> bytes:
        place = [self.place.step, self.place.round]
        return canonical({"facts": dict(self.facts), "place": place})

    def encode(self) -> bytes:
        """The state as bytes. A versioned line, the length of the head, the head in canonical JSON,
        safetensors.
        """
        head = self._head
        return b"".join((_MAGIC, len(head).to_bytes(_LENGTH, "big"), head, pack(self.tensors)))

    @classmethod
    def decode(cls, data: bytes, most: int = MOST) -> State:
        """What `encode` wrote. Raises RefusedError: `malformed`: these bytes are something else, or
        too many.

        Args:
            most: bytes that are looked at; longer ones are refused unread.
        """
        begin = len(_MAGIC) + _LENGTH
        if len(data) > most or len(data) < begin or not data.startswith(_MAGIC):
            raise malformed(_NAME, f"not a state of this version, within {most} bytes")
        end = begin + int.from_bytes(data[len(_MAGIC) : begin], "big")
        if end > min(len(data), begin + _MOST_HEAD):
            raise malformed(_NAME, "the head is too long")
        head = fields(parse_object(data[begin:end], _NAME), _NAME, {"facts": dict, "place": list})
        if len(head["place"]) != 2 or not all(type(value) is int for value in head["place"]):
            raise malformed(_NAME, "place has the wrong type")
        try:
            tensors = unpack(data[end:], field=_NAME, value="not shown", remedy="")
        except RunFolderError as error:
            raise malformed(_NAME, error.problem) from None
        if pack(tensors) != data[end:]:  # one state has one spelling
            raise malformed(_NAME, "the tensors are written in another way")
        return cls(Place(*head["place"]), tensors, head["facts"])


def _flat(tensors: Mapping[str, Tensor]) -> Iterable[bytes]:
    for name in sorted(tensors):
        tensor = tensors[name]
        yield canonical([name, str(tensor.dtype), list(tensor.shape)])
        yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
