"""Questions and answers as the content of Flower's messages: small parts in one record, large ones
as raw arrays, which Flower moves in pieces and one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic_core import to_json

from secure_fl.engines.flower.door import Answer, Question
from secure_fl.errors import EngineError
from secure_fl.files import parse_json

_HEAD, _SMALL, _LARGE = "secure-fl", "small", "large"
_LEAST = 1 << 16
"""Bytes from which a part is an array of its own."""
_REMEDY = "use one version of the software at server and sites"
Head = TypeVar("Head", Question, Answer)


def pack(head: Question | Answer, frames: Sequence[bytes | memoryview] = ()) -> Any:
    """A `RecordDict`; each frame's place is its place here."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

    small, large = dict[str, Any](), dict[str, Any]()
    for place, frame in enumerate(frames):
        data, size = bytes(frame), len(frame)
        if size < _LEAST:
            small[str(place)] = data
        else:
            large[str(place)] = Array("uint8", (size,), "raw.bytes", data)
    facts = to_json(asdict(head) | {"sizes": [len(frame) for frame in frames]})
    records = {_HEAD: ConfigRecord({"head": facts}), _SMALL: ConfigRecord(small)}
    return RecordDict({**records, _LARGE: ArrayRecord(large)} if large else records)


def unpack(content: Any, kind: type[Head]) -> tuple[Head, list[bytes]]:
    """What `pack` was given. Raises EngineError: it is something else."""
    try:
        data = content[_HEAD]["head"]
        head = parse_json(
            data, kind, field=_HEAD, value="a message", remedy=_REMEDY, error=EngineError
        )
        small, large = content[_SMALL], content.get(_LARGE, {})
        frames = [
            small[name] if (name := str(place)) in small else large[name].data
            for place in range(len(head.sizes))
        ]
        if tuple(map(len, frames)) != head.sizes:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise EngineError("is no message of ours", _HEAD, "a message", _REMEDY) from None
    return head, frames
