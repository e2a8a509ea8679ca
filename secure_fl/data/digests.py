"""Data known by content: whether two sets share an example, whatever their files are called and
however they are stored.

A digest of an example lets whoever holds a candidate ask whether it was there, so digests of
clients' examples are compared in memory and never written. Those of a set that a server trained on
in the clear may be: its model shows it anyhow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from secure_fl.data.dataset import Dataset

if TYPE_CHECKING:
    from secure_fl.data.partitions import ClientData

_BYTES = 8
"""Bytes of an example's digest: two sets of a million examples meet by chance with 2^-24."""
_LEAST = 32
"""Values that a channel has at least where its mean and deviation leave enough to know it by."""
_STEPS = 2
"""Steps a deviation that standardised values are rounded to: coarse, so rounding moves few."""
_BLOCK = 1024
"""Examples that are standardised at a time, so that memory does not follow the set."""


def content_digests(data: Dataset, salt: bytes) -> set[str]:
    """Digests of every example's content, two an example where it is large enough; equal for equal
    examples under one salt.

    One is over the float32 values as they were loaded, in order, without the shape: paths, limits,
    order, file formats and bytes against floats make no difference to it. The other is over the
    values of each channel, standardised and rounded: neither do scale and offset, as `data.scale`
    and bytes that were not divided by 255 change them.

    **Not covered**: examples that were changed otherwise (resized, rotated, cropped, noised) before
    they were loaded.

    Args:
        data: any number of examples.
        salt: up to 64 bytes; with another salt nothing compares.
    """
    found: set[str] = set()
    for block in data.x.split(_BLOCK):
        rows = block.numpy() + np.float32(0)  # -0 and 0 are equal and have different bytes
        found |= {_digest(row, salt) for row in rows}
        channels = rows.reshape(len(rows), rows.shape[1] if rows.ndim > 2 else 1, -1).astype(
            np.float64
        )
        if channels.shape[-1] >= _LEAST:
            offset, scale = channels.mean(-1, keepdims=True), channels.std(-1, keepdims=True)
            standard = (channels - offset) / np.where(scale > 0, scale, 1)
            varied = (scale > 0).any((1, 2))  # of a blank example nothing is left to know it by
            found |= {
                _digest(row, salt, b"standardised")
                for row in np.rint(standard[varied] * _STEPS).astype(np.int32)
            }
    return found


def whole_digest(parts: Iterable[Dataset]) -> str:
    """Of all examples and labels in order, and as private: whether two runs have the same data."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.x.numpy().tobytes())
        digest.update(part.y.numpy().tobytes())
    return digest.hexdigest()


def examples_digest(clients: Iterable[ClientData]) -> str:
    """`whole_digest` of all that clients hold, as `partition.json` has it."""
    return whole_digest(
        part for client in clients for part in (client.train, client.validation, client.test)
    )


def _digest(row: np.ndarray, salt: bytes, form: bytes = b"as loaded") -> str:
    return hashlib.blake2b(row.tobytes(), digest_size=_BYTES, key=salt, person=form).hexdigest()
