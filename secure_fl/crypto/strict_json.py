"""JSON for signed documents: one spelling when written, strict about keys and types when read."""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from typing import Any

from secure_fl.crypto.refusals import Reason, RefusedError


def canonical(value: Any) -> bytes:
    """The one spelling: sorted keys, no spaces, ASCII."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def parse_object(data: bytes, name: str) -> dict[str, Any]:
    """A JSON object, each key once, in its one spelling. Raises RefusedError: `malformed`."""
    try:
        value = json.loads(data)
        same = isinstance(value, dict) and canonical(value) == data
    except (ValueError, RecursionError):
        same = False
    if not same:
        raise malformed(name, "not a canonical JSON object")
    return dict(value)


def fields(value: Any, name: str, types: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """An object with exactly these keys and types, else `malformed`; a bool is no int."""
    if not isinstance(value, dict) or set(value) != set(types):
        raise malformed(name, f"must have exactly the keys {sorted(types)}")
    for key, kind in types.items():
        if not isinstance(value[key], kind) or isinstance(value[key], bool):
            raise malformed(name, f"{key} has the wrong type")
    return value


def from_hex(text: Any, name: str, size: int | None = None) -> bytes:
    """Lower-case hex -> bytes, of `size` bytes where given. Raises RefusedError: `malformed`."""
    try:
        raw = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        raise malformed(name, "not hexadecimal") from None
    if not isinstance(text, str) or raw.hex() != text or (size is not None and len(raw) != size):
        raise malformed(name, "not lower-case hexadecimal of the right length")
    return raw


def to_base64(data: bytes) -> str:
    """Base64 without line breaks."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def from_base64(text: Any, name: str) -> bytes:
    """Base64 -> bytes, strictly. Raises RefusedError: `malformed`."""
    if not isinstance(text, str):
        raise malformed(name, "not base64")
    try:
        raw = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise malformed(name, "not base64") from None
    if to_base64(raw) != text:
        raise malformed(name, "not base64 in its one spelling")
    return raw


def malformed(name: str, problem: str) -> RefusedError:
    """The refusal for a document that does not parse."""
    remedy = "send the file as this library wrote it"
    return RefusedError(Reason.MALFORMED, problem, name, "not shown", remedy)
