"""Masks on a whole block at once; a round adds them run by run."""

from __future__ import annotations

from collections.abc import Mapping

from secure_fl.crypto.key_streams import Slots, add_streams
from secure_fl.secure_sum.masks import Streams, UsedSeeds, mask_terms


def mask(
    slots: Slots,
    *,
    own: int,
    self_seed: bytes,
    pairs: Mapping[int, bytes],
    modulus: int,
    used: UsedSeeds,
    streams: Streams = add_streams,
) -> None:
    """Turn a packed block x_i into y_i, in place; tests put formal variables where streams
    are added.
    """
    streams(slots, mask_terms(own=own, self_seed=self_seed, pairs=pairs, used=used), modulus)
