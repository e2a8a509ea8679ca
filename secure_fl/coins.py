"""Coins at given places: what chance decides about one example stays as it is when another example
comes or goes.

A generator hands out its numbers in order, so one row more shifts the numbers of all rows after it.
Here a number belongs to a place, (step, example, view, use, position), and is the encryption of
that place: AES-256 of one block, four numbers a block.

**Guarantee**: a place has one number, whatever else is drawn and in whatever order. Without the
key, numbers are as unpredictable as AES-256: no test that reads 2^36 of them tells them from fair
coins with advantage above 2^-60 plus AES' own.

**Assumes**: one key a client and call of training. Where coins must be secret the key is; the
proofs of private training need no more of them than that they do not depend on the data.

**Not covered**: numbers become floats of 24 bits, as torch's own do.

Suffixes: N rows of a batch.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from numpy.typing import NDArray
from torch import Tensor

from secure_fl.errors import TrainingError

KEY_BYTES, _BLOCK_BYTES = 32, 16
_LARGEST = 1 << 32
_HELD = 1 << 20
"""Numbers of a mask made at a time: 20 MiB with the places they belong to."""
_NOBODY = _LARGEST - 1
"""The example of coins that a whole batch shares."""
_STATE_WORDS, _STATE_START = 624, 24
"""MT19937's words, and where they begin in torch's record of its generator on the processor."""


class Use(IntEnum):
    """What numbers of one row and step are for; others below 2^16 are free for callers."""

    DECISIONS = 0
    """Which change an augmentation makes, and how far it goes."""
    NOISE = 1
    """Deviates that an augmentation adds."""
    SHARED = 2
    """What a whole batch of views has in common."""
    GENERATOR = 3
    """The state of torch's generator while a caller's augmentation runs."""
    HIDING = 4
    """Which parts masked reconstruction hides."""
    TURN = 5
    """How far an image is turned."""
    DROPOUT = 1 << 12
    """Dropout's masks: the first call's, and one more for each further call."""


class Coins:
    """The key of one call of training."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            problem = "not an AES-256 key"
            remedy = f"pass {KEY_BYTES} bytes"
            raise TrainingError(problem, field="key", value=f"{len(key)} bytes", remedy=remedy)
        self._key = key

    @classmethod
    def public(cls, seed: int) -> Coins:
        """Coins that whoever knows the seed draws again: of training without privacy, measuring."""
        return cls(hashlib.sha256(b"secure_fl public coins %d" % seed).digest())

    def at(self, step: int, examples: Tensor) -> Draws:
        """The coins of one step for rows of `examples`, int64 `[N]`, the first view of each.

        Raises:
            TrainingError: a step or an example has no place: they are whole numbers from 0, below
                2³² - 1.
        """
        seats = np.asarray(examples.detach().cpu().numpy(), dtype=np.int64).reshape(-1)
        if not 0 <= step < _LARGEST or (
            len(seats) and not (seats.min() >= 0 and seats.max() < _NOBODY)
        ):
            problem = "steps and examples are numbered from 0, below 2^32"
            raise TrainingError(problem, field="step", value=step, remedy="number them from 0")
        return Draws(self._key, step, seats.astype(np.uint32), np.zeros(seats.shape, np.uint32))

    def __repr__(self) -> str:
        return "<Coins>"


class Draws:
    """One step's coins: row i is that of the i-th example; `use` keeps purposes apart."""

    __slots__ = ("_key", "_seats", "_step", "_views")

    def __init__(
        self, key: bytes, step: int, seats: NDArray[np.uint32], views: NDArray[np.uint32]
    ) -> None:
        self._key, self._step, self._seats, self._views = key, step, seats, views

    def __len__(self) -> int:
        return len(self._seats)

    def __getitem__(self, rows: Tensor | slice) -> Draws:
        """Those of some rows only."""
        chosen = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        return Draws(self._key, self._step, self._seats[chosen], self._views[chosen])

    def of_view(self, view: int | Tensor) -> Draws:
        """The same examples' coins for another view of each: one for all, or int64 `[N]`."""
        numbers = np.asarray(
            view.cpu().numpy() if isinstance(view, Tensor) else view, dtype=np.uint32
        )
        return Draws(
            self._key, self._step, self._seats, np.broadcast_to(numbers, self._seats.shape)
        )

    def shared(self) -> Draws:
        """One row of coins that all rows of the step have in common."""
        view = self._views[:1] if len(self) else np.zeros(1, np.uint32)
        return Draws(self._key, self._step, np.full(1, _NOBODY, np.uint32), view)

    def words(self, count: int, use: int) -> NDArray[np.uint32]:
        """`[N, count]` uniform 32-bit words."""
        blocks = -(-count // 4)
        places = np.empty((len(self), blocks, 4), "<u4")
        places[..., 0], places[..., 1] = self._step, self._seats[:, None]
        places[..., 2], places[..., 3] = (
            (self._views << np.uint32(16) | np.uint32(use))[:, None],
            np.arange(blocks, dtype=np.uint32),
        )
        # Every block is another place, so that no two are encrypted alike: this is the counter's
        # keystream, read at chosen points.
        made = bytearray(places.nbytes + _BLOCK_BYTES)
        Cipher(AES(self._key), ECB()).encryptor().update_into(places.data.cast("B"), made)  # noqa: S305
        return np.frombuffer(made, "<u4", places.size).reshape(len(self), 4 * blocks)[:, :count]

    def uniform(self, count: int, use: int) -> Tensor:
        """Float32 `[N, count]` within [0, 1), multiples of 2^-24."""
        return (
            torch.from_numpy((self.words(count, use) >> np.uint32(8)).view(np.int32)).float()
            * 2.0**-24
        )

    def normal(self, count: int, use: int) -> Tensor:
        """Float32 `[N, count]` normal deviates by Box and Muller; none beyond 6.8."""
        half = -(-count // 2)
        # Words as numbers from -1/2 to 1/2: signed integers become floats several times as fast as
        # unsigned ones.
        words = torch.from_numpy(self.words(2 * half, use).view(np.int32)).float().mul_(2.0**-32)
        radius = words[:, :half].add(0.5 + 2.0**-33).log_().mul_(-2).clamp_min_(0).sqrt_()
        angle = words[:, half:].mul(2 * torch.pi)
        return torch.cat([radius * angle.cos(), radius.mul_(angle.sin_())], 1)[:, :count]

    def kept(self, count: int, chance: float, use: int) -> Tensor:
        """Bool `[N, count]`, each true with `chance` to within 2^-32."""
        below, rows = int(chance * _LARGEST), max(1, _HELD // max(1, count))
        if below >= _LARGEST:
            return torch.ones(len(self), count, dtype=torch.bool)
        parts = [
            torch.from_numpy(self[slice(top, top + rows)].words(count, use) < np.uint32(below))
            for top in range(0, len(self), rows)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, count, dtype=torch.bool)

    @contextmanager
    def torch_generators(self, device: torch.device, use: int) -> Iterator[Callable[[int], None]]:
        """Gives a function of a row: torch's own generators then begin where that row's coins say.
        They are put back in the end.

        On the processor all 624 words of MT19937's state are coins; `manual_seed` would keep 32
        bits of a seed. A GPU's generator has a seed of 64 bits.
        """
        words = self.words(_STATE_WORDS + 2, use)

        def begin(row: int) -> None:
            if device.type == "cuda":
                torch.cuda.manual_seed(int(words[row, -2:].copy().view("<u8")[0] >> 1))
            torch.set_rng_state(_state_of(words[row, :_STATE_WORDS]))

        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield begin

    def __repr__(self) -> str:
        return f"<Draws of {len(self)} rows>"


def global_generators() -> tuple[object, ...]:
    """Where torch's, Python's and numpy's global generators are, to see whether somebody drew."""
    numpy_s = np.random.get_state(legacy=False)
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    states = [state.numpy().tobytes() for state in (torch.get_rng_state(), *gpus)]
    place = numpy_s["state"]["pos"], numpy_s["has_gauss"]
    return (*states, random.getstate(), numpy_s["state"]["key"].tobytes(), place)


def _state_of(words: NDArray[np.uint32]) -> Tensor:
    """Torch's record of a generator on the processor that draws from these 624 words."""
    state = torch.Generator().manual_seed(5489).get_state()
    record = state.numpy()
    inside = record[_STATE_START : _STATE_START + 8 * _STATE_WORDS].view(np.uint64)
    # the first words of MT19937 seeded with 5489, as published
    if inside[0] != 5489 or inside[1] != 1301868182:
        problem = "torch records its generator in another way"
        remedy = "report this version"
        raise TrainingError(problem, field="torch", value=torch.__version__, remedy=remedy)
    inside[:] = words
    return state
