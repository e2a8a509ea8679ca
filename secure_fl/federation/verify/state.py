"""Which state a round led to: what appliers signed, and what a checkpoint holds. No torch.

Guarantee: where nothing is found, every state was signed for the sums that were opened before it,
by whoever opened them, and no other of them signed another; a checkpoint of a place that was signed
holds that very state.
Assumes: SHA-256 without collisions.
Not covered: whether the state follows from the sums. Whoever holds the sums computes that again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secure_fl.crypto.envelope import Expected, Phase, open_envelope, read_header
from secure_fl.crypto.strict_json import canonical
from secure_fl.errors import ConfigError, SecureSumError
from secure_fl.federation.transcript.entries import RoundEntry, StateEntry
from secure_fl.federation.verify.plan import Agreed, Problems, said_of
from secure_fl.secure_sum.digests import Applied

Claim = tuple[bytes, tuple[int, int]]
"""Digest and place of a state."""
_MAGIC = b"secure-fl state 1\n"
_WHOLE = {"U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"}
_REAL = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_TYPES = {"BOOL": "bool", **_WHOLE, **_REAL}
"""Types as safetensors spell them, and as a state does."""


def expected_of(agreed: Agreed, begun: RoundEntry, data: bytes, role: str | None) -> Expected:
    """What a signed message of a sum must be, at the phase and the plan that it names."""
    claimed, entry = read_header(data), agreed.entry
    context = (entry.protection, claimed.parameters, entry.federation, begun.round)
    place = (claimed.phase, claimed.pools, bytes.fromhex(begun.key))
    return Expected(*context, *place, chunks=claimed.chunks, role=role)


@dataclass(frozen=True)
class SignedState:
    """A state that a round led to.

    Attributes:
        rounds: its sums that were opened.
        claims: what appliers of its only sum signed with what they opened, by name.
    """

    agreed: Agreed
    entry: StateEntry
    rounds: Sequence[RoundEntry]
    claims: Mapping[str, Claim]

    @property
    def needed(self) -> int:
        """Signatures without which no client goes on from it: t of all that were summed."""
        plan = self.agreed.plan
        everybody = {name for begun in self.rounds for name in begun.cohort}
        try:
            rules = None if plan.by_authority else plan.rules(len(everybody))
        except ConfigError:
            rules = None
        return 1 if rules is None else rules.threshold

    def problems(self, evidence: Sequence[bytes]) -> Problems:
        """What does not fit, by field."""
        if not self.rounds:
            yield "place", "no sum was opened that leads there"
            return
        signers = dict[str, Claim]()
        for number, data in enumerate(evidence):
            try:
                name, claim = self._claim(data)
            except (ValueError, SecureSumError) as problem:
                yield f"evidence[{number}]", said_of(problem)
                continue
            if name in signers or not self._may(name):
                yield f"evidence[{number}]", f"{name} signed twice, or applies no sums"
            signers[name] = claim
        mine = (bytes.fromhex(self.entry.digest), tuple(self.entry.place))
        others = {**self.claims, **signers}
        forked = sorted(name for name, claim in others.items() if claim != mine)
        if not signers:
            yield "evidence", "nobody signed it"
        if forked:
            yield "digest", f"{', '.join(forked)} signed another state"
        if tuple(self.entry.place) <= self.rounds[0].place:
            yield "place", "does not go on"

    def _claim(self, data: bytes) -> tuple[str, Claim]:
        begun, agreed = self.rounds[0], self.agreed
        if read_header(data).phase == Phase.RESULT:
            role = "authority" if agreed.plan.by_authority else "client"
            post = agreed.post(data, Phase.RESULT, role)
            if post.header.round != begun.round:
                raise ValueError(begun.round)
            place = (post.place.step, post.place.round)
            return post.sender, (bytes.fromhex(post.facts["state"]), place)
        expected = expected_of(agreed, begun, data, None)
        header, body = open_envelope(data, agreed.roster, expected)
        if header.parameters.rpartition("/")[2] != (begun.plan or "")[:32]:
            raise ValueError(begun.plan)
        found = Applied.decode(body)
        return header.sender, (found.state, found.place)

    def _may(self, name: str) -> bool:
        if self.agreed.plan.by_authority:
            return name == self.agreed.plan.authority
        return any(name in begun.cohort and name not in begun.left_out for begun in self.rounds)


def state_digest(place: Sequence[int], facts: Mapping[str, Any], tensors: bytes) -> bytes:
    """`State.digest` of a state that lies in a checkpoint, 32 bytes.

    Args:
        tensors: of its safetensors file.

    Raises:
        ValueError, KeyError, TypeError, SecureSumError: it is no such file.
    """
    start = 8 + int.from_bytes(tensors[:8], "little")
    heads = json.loads(tensors[8:start])
    digest = hashlib.sha256(_MAGIC)
    parts = [canonical({"facts": dict(facts), "place": list(place)})]
    for name in sorted(heads.keys() - {"__metadata__"}):
        head = heads[name]
        first, last = head["data_offsets"]
        parts.append(canonical([name, f"torch.{_TYPES[head['dtype']]}", head["shape"]]))
        parts.append(tensors[start + first : start + last])
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
