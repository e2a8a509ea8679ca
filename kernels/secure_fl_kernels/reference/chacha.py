"""ChaCha20's keystream (RFC 8439) in 64-bit integers, and normal deviates made of it in float64.

Words are 32-bit patterns held in int32, as torch has no arithmetic on unsigned words; the state of
a stream is 16 of them: four constants, eight of the key, the block counter, three of the nonce.
Nothing here checks its arguments: `per_sample` does.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
"""`expand 32-byte k`, four letters a word, the first in the lowest byte."""

BLOCKS = 1 << 32
"""Values of the counter: a key and nonce have this many blocks of 64 bytes."""

WORDS = 16
"""Words of a block."""

_MASK = 0xFFFFFFFF


def state(key: Tensor, nonce: Tensor, counter: int) -> Tensor:
    """The 16 words that a stream starts from, int32 on the key's device."""
    signed = (counter + (1 << 31)) % BLOCKS - (1 << 31)
    constants = torch.tensor(CONSTANTS, dtype=torch.int32, device=key.device)
    return torch.cat(
        [constants, key, torch.full((1,), signed, dtype=torch.int32, device=key.device), nonce]
    )


def words(start: Tensor, blocks: int) -> Tensor:
    """`blocks` blocks of 16 words, one after the other, int32 `[16 · blocks]`, from the
    state `start`.
    """
    first = (start.long() & _MASK)[:, None].repeat(1, blocks)
    first[12] = (first[12] + torch.arange(blocks, device=start.device)) & _MASK
    rows = list(first.view(4, 4, blocks))
    for _ in range(10):
        rows = _quarter_rounds(rows)
        rows = [row.roll(-k, 0) for k, row in enumerate(rows)]
        rows = _quarter_rounds(rows)
        rows = [row.roll(k, 0) for k, row in enumerate(rows)]
    result = (torch.cat(rows) + first) & _MASK
    return (result - ((result >> 31) << 32)).to(torch.int32).T.reshape(-1)


def _quarter_rounds(rows: list[Tensor]) -> list[Tensor]:
    """One quarter round down each of the four columns of the state, `[4, blocks]` a row."""
    a, b, c, d = rows
    for left, right in ((16, 12), (8, 7)):
        a = (a + b) & _MASK
        d = _rotated(d ^ a, left)
        c = (c + d) & _MASK
        b = _rotated(b ^ c, right)
    return [a, b, c, d]


def _rotated(x: Tensor, by: int) -> Tensor:
    return ((x << by) | (x >> (32 - by))) & _MASK


def normal(keystream: Tensor, std: float) -> Tensor:
    """std · (√(−2 ln u) cos v, √(−2 ln u) sin v) of every two words, float64: u = (w + ½)/2³²,
    v = 2πw'/2³².
    """
    unsigned = (keystream.long() & _MASK).double().view(-1, 2)
    radius = (-2 * ((unsigned[:, 0] + 0.5) / BLOCKS).log()).sqrt()
    angle = unsigned[:, 1] * (2 * pi / BLOCKS)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1).flatten() * std
