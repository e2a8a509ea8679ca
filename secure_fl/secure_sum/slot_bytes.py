"""Slots as bytes: what `plain` and `masked` send, and what the server hands to whoever opens."""

from __future__ import annotations

import numpy as np

from secure_fl.crypto.key_streams import Slots
from secure_fl.errors import SecureSumError


def to_bytes(slots: Slots) -> bytes:
    """Slots on the wire: little-endian, 8 bytes each; also the body of `masked` alone."""
    return bytes(view_of(slots))


def view_of(slots: Slots) -> memoryview:
    """`to_bytes` without a copy; it shows the slots as they are when it is read."""
    return slots.astype("<u8", copy=False).view(np.uint8).data


def from_bytes(body: bytes | memoryview, slots: int) -> Slots:
    """The inverse, read-only and without a copy.

    Raises:
        SecureSumError: a body of another length.
    """
    if len(body) != 8 * slots:
        raise SecureSumError("body of another length", "upload", len(body), f"{8 * slots} bytes")
    return np.frombuffer(body, "<u8").astype(np.uint64, copy=False)
