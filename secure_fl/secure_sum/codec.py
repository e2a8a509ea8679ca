"""Fixed point: a float update becomes integers on a grid that clients, clip and noise together cannot overflow.

With n clients, every coordinate of a client at most B and the summed noise of deviation σ, a field of b bits is safe when
n·B + x ≤ 2^(b−1) − 1, where F·P(|N| ≥ x) ≤ 2^-40 over all F = K(P+1) fields of a round (x = κσ, κ ≈ 9.3 at four million fields).
The finest grid that holds this is taken: s = B/R, with R the largest magnitude of a coordinate, cut to 24 bits.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, exp, floor, inf, isfinite, isqrt, log2, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.layout import FieldLayout, Integers, magnitude
from secure_fl.secure_sum.prg import RUN, WORDS, Slots, expand, runs
from secure_fl.secure_sum.tails import noise_bound, noise_tail_log2

Floats = NDArray[np.float64]
Rounding = Literal["zero", "conditional"]

FAILURE_LOG2 = -40.0
"""A round's fields wrap around with at most this probability."""
FEWEST_STEPS = 16
"""A grid with fewer steps from 0 to the largest coordinate is refused: it would carry almost no signal."""
TRIES = 20
"""Random roundings tried before `conditional` falls back to rounding toward zero; at least 39 % of them succeed, so 1 in 2·10^4 falls back."""

_BETA = exp(-0.5)
_OVER_CLIP = 1.001
_SCALE_BITS = 24


@dataclass(frozen=True)
class Codec:
    """The grid of one federation; make it with `Codec.derive`, whose words it uses.

    Guarantee: with `rounding="zero"`, ‖q‖₂ ≤ ⌊s·C⌋ for every quantised update: a float32 coordinate times the 24-bit s is exact in
    float64, so truncation never enlarges, and the integers are checked again. A sum of at most `clients` updates and their noise leaves
    a field's edge with probability at most 2^-40 a round. Assumes: noise independent over clients, Skellam or subgaussian with the
    deviation stated, and clients that follow the codec (under masks nobody can check a coordinate). Not covered: a wrap-around damages
    the fields of its slot, and is seen only if it leaves the range of `check_sum`; it reveals nothing.
    """

    clients: int
    fields: int
    width: int
    limit: float
    clip: float | None
    scale: float
    bound: int
    noise_deviation: float
    noise_margin: float
    rounding: Rounding = "zero"
    layout: FieldLayout = field(default_factory=FieldLayout)

    @classmethod
    def derive(
        cls,
        *,
        clients: int,
        width: int,
        pools: int = 1,
        clip: float | None = None,
        limit: float | None = None,
        noise_multiplier: float = 0.0,
        noise_deviation: float = 0.0,
        rounding: Rounding = "zero",
        layout: FieldLayout | None = None,
    ) -> Codec:
        """The finest safe grid.

        Args:
            clients: n, all who may upload in a round.
            width: P, coordinates of an update.
            pools: K; F = K(P+1) fields may wrap around in a round.
            clip: C, the L2 norm that updates are clipped to before; None when they are not.
            limit: R, coordinates are clamped to ±R; at most the clip, which is the default.
            noise_multiplier: σ/(s·C) of the noise summed over all n clients; needs a clip.
            noise_deviation: the same in grid steps, where it is fixed; not both.
            rounding: `zero`, or `conditional` (unbiased but for the conditioning, larger `norm_bound`); the latter needs a clip.
            layout: fields in a slot; BFV's by default.

        Raises:
            SecureSumError: a setting out of range, or no grid of at least 16 steps is safe.
        """
        layout = layout or FieldLayout()
        _check(clients, width, pools, clip, limit, noise_multiplier, noise_deviation, rounding)
        reach = min(value for value in (clip, limit) if value is not None)
        fields = pools * (width + 1)

        def margin(bound: int) -> tuple[float, float]:
            deviation = noise_deviation or noise_multiplier * (bound / reach) * (clip or 0.0)
            return deviation, noise_bound(deviation, fields, FAILURE_LOG2)

        bound = _largest(lambda steps: clients * steps + ceil(margin(steps)[1]) <= layout.edge, layout.edge // clients)
        if bound < FEWEST_STEPS:
            raise SecureSumError(
                f"no safe grid: clients, noise and {layout.bits}-bit fields leave fewer than {FEWEST_STEPS} steps a coordinate",
                field="secure_sum.codec",
                value={"clients": clients, "noise_multiplier": noise_multiplier, "noise_deviation": noise_deviation, "steps": bound},
                remedy="fewer clients a round, less noise, or a layout with wider fields",
            )
        deviation, noise_margin = margin(bound)
        scale = _cut(bound / reach)
        return cls(clients, fields, width, reach, clip, scale, bound, deviation, noise_margin, rounding, layout)

    @property
    def norm_bound(self) -> int | None:
        """Largest L2 norm of one quantised update in grid steps, which an accountant is to be given; None without a clip.

        `conditional`: ⌈√min((sC + √d)², (sC)² + d/4 + √(2·ln 1/β)·(sC + √d/2))⌉ with β = e^(−1/2) and d = P, the chosen block alone
        (Kairouz, Liu and Steinke 2021, Definition 1).
        """
        if self.clip is None:
            return None
        return self._plain_norm() if self.rounding == "zero" else isqrt(self._norm_square() - 1) + 1

    @property
    def wrap_log2(self) -> float:
        """log2 of a bound on the probability that any field of a round wraps around; −∞ without noise."""
        if self.noise_deviation == 0:
            return -inf
        return min(0.0, log2(self.fields) + noise_tail_log2(self.layout.edge - self.clients * self.bound, self.noise_deviation))

    def describe(self) -> dict[str, object]:
        """The grid in words and numbers, for the user and the record."""
        return {
            "clients at most": self.clients,
            "fields a round": self.fields,
            "clip (L2)": self.clip,
            "coordinates clamped to ±": self.limit,
            "grid step": 1 / self.scale,
            "steps from 0 to the clamp": self.bound,
            "L2 bound in steps": self.norm_bound,
            "rounding": self.rounding,
            "noise of the sum, deviation in steps": self.noise_deviation,
            "margin for noise, in deviations": self.noise_margin / self.noise_deviation if self.noise_deviation else 0.0,
            "largest sum a field holds": self.layout.edge,
            "wrap-around probability a round, at most": 0.0 if self.noise_deviation == 0 else f"2^{self.wrap_log2:.1f}",
            "bits a field, fields a slot": [self.layout.bits, self.layout.fields_per_slot],
            "modulus": "2^64" if self.layout.modulus == WORDS else self.layout.modulus,
            "bytes a field, masked": self.layout.bytes_per_field,
        }

    def quantise(self, vector: NDArray[np.float32], *, key: bytes | None = None) -> NDArray[np.int64]:
        """An update, float32 `[P]`, on the grid: int64 `[P]`, clamped to ±B, L2 norm at most `norm_bound`.

        A norm above C by float error (up to 0.1 %) is scaled down; above that, the caller has not clipped, which is refused.

        Args:
            vector: the update after its norm clip.
            key: 32 bytes for `conditional`'s choices, fresh ones when left out; it bears no secrecy.

        Raises:
            SecureSumError: another length or type, a value that is not finite, or a norm above the clip.
        """
        factor, out = self._factor(vector), np.empty(self.width, np.int64)
        if self.rounding == "conditional":
            for attempt in range(TRIES):
                self._round_randomly(vector, factor, _choices(key, attempt, self.width), out)
                if sum(_square(out[start:stop]) for start, stop in runs(self.width)) <= self._norm_square():
                    return out
        for start, stop, run in self._truncated(vector, factor, 1):
            out[start:stop] = run[0]
        return out

    def encode(self, vector: NDArray[np.float32], *, key: bytes | None = None) -> Slots:
        """`pack(quantise(vector))` without the integers in between (rounding toward zero): uint64 `[⌈P/fields_per_slot⌉]`."""
        if self.rounding != "zero":
            return self.pack(self.quantise(vector, key=key))
        factor = self._factor(vector)
        packed: Slots = np.empty(self.layout.slots(self.width), np.uint64)
        work = np.empty(min(RUN, len(packed)), np.int64)
        for start, stop, run in self._truncated(vector, factor, self.layout.fields_per_slot):
            self.layout.pack_floats(packed[start:stop], run, work)
        return packed

    def pack(self, values: Integers) -> Slots:
        """`layout.pack`."""
        return self.layout.pack(values)

    def unpack(self, slots: Slots, fields: int) -> NDArray[np.int64]:
        """`layout.unpack`."""
        return self.layout.unpack(slots, fields)

    def dequantise(self, values: Integers) -> NDArray[np.float64]:
        """Integers (a sum, or one update) back in the update's units, float64."""
        return values.astype(np.float64) / self.scale

    def check_sum(self, values: Integers, survivors: int) -> None:
        """Refuse an opened sum that `survivors` honest updates and their noise cannot have made (but with probability 2^-40).

        Raises:
            SecureSumError: a field beyond its range, or more survivors than the grid was derived for.
        """
        if not 1 <= survivors <= self.clients:
            raise SecureSumError("the grid was not derived for so many", field="survivors", value=survivors, remedy=f"1 to {self.clients}")
        most = min(survivors * self.bound + ceil(self.noise_margin), self.layout.edge)
        if magnitude(values) > most:
            raise SecureSumError(
                "an opened sum lies beyond what its clients can have sent",
                field="sum",
                value=f"|field| > {most}",
                remedy="discard the round: an upload was damaged, or a client did not follow the codec",
            )

    def share_kept(self, vector: NDArray[np.float32], values: Integers) -> float:
        """⟨q/s, x⟩/⟨x, x⟩: the share of an update that the grid kept; below 0.95 `conditional` rounding is the better choice. It is private."""
        x = vector.astype(np.float64)
        energy = float(x @ x)
        return 1.0 if energy == 0 else float(x @ self.dequantise(values)) / energy

    def _norm_square(self) -> int:
        assert self.clip is not None
        if self.rounding == "zero":
            return self._plain_norm() ** 2
        radius, root = self.scale * self.clip, sqrt(self.width)
        likely = radius**2 + self.width / 4 + sqrt(-2 * np.log(_BETA)) * (radius + root / 2)
        return floor(min((radius + root) ** 2, likely))

    def _plain_norm(self) -> int:
        assert self.clip is not None
        return floor(Fraction(self.scale) * Fraction(self.clip))

    def _factor(self, vector: NDArray[np.float32]) -> float:
        """What the update is multiplied with before it is rounded: s, or less where its norm exceeds the clip by float error."""
        if vector.dtype != np.float32 or vector.shape != (self.width,):
            raise SecureSumError("not the update's vector", field="update", value=(vector.dtype, vector.shape), remedy=f"float32 [{self.width}]")
        work, square = np.empty(min(RUN, self.width)), 0.0
        for start, stop in runs(self.width):
            part = _copied(vector[start:stop], work)
            square += float(part @ part)
        norm = sqrt(square)
        if not isfinite(norm):
            raise SecureSumError("a coordinate is not finite", field="update", value="(hidden)", remedy="lower the learning rate, or skip the round")
        if self.clip is None or norm <= self.clip:
            return self.scale
        if norm > self.clip * _OVER_CLIP:
            raise SecureSumError("update was not clipped", field="norm", value="above the clip", remedy=f"clip to an L2 norm of {self.clip} first")
        return self.scale * (self.clip / norm) * (1 - 2.0**-30)

    def _truncated(self, vector: NDArray[np.float32], factor: float, planes: int) -> Iterator[tuple[int, int, list[Floats]]]:
        """Steps of one run of every plane after the other; they are overwritten by the next. At the end the L2 norm is checked."""
        rows, square = -(-self.width // planes), 0
        work = [np.empty(min(RUN, rows)) for _ in range(planes)]
        for start, stop in runs(rows):
            run = [_copied(vector[plane * rows + start : plane * rows + stop], work[plane]) for plane in range(planes)]
            for part in run:
                self._scale_and_clamp(part, factor)
                np.trunc(part, out=part)
                square += self._square_of_steps(part)
            yield start, stop, run
        if self.clip is not None and square > self._plain_norm() ** 2:
            raise SecureSumError("quantised update is longer than its clip", field="norm", value="> ⌊s·C⌋", remedy="report this: it breaks the proof")

    def _scale_and_clamp(self, part: Floats, factor: float) -> None:
        part *= factor
        if self.clip is None or self.limit < self.clip:
            np.clip(part, -self.bound, self.bound, out=part)

    def _square_of_steps(self, steps: Floats) -> int:
        """Exact: float64 adds 2^15 squares of at most 2^38 without error, int64 those of wider fields."""
        return int(steps @ steps) if self.bound**2 * RUN <= 2**53 else _square(steps.astype(np.int64))

    def _round_randomly(self, vector: NDArray[np.float32], factor: float, choices: Slots, out: NDArray[np.int64]) -> None:
        for start, stop in runs(self.width):
            steps = vector[start:stop].astype(np.float64)
            self._scale_and_clamp(steps, factor)
            low = np.floor(steps)
            up = (choices[start:stop] >> np.uint64(11)).astype(np.float64) * 2.0**-53 < steps - low
            out[start:stop] = low.astype(np.int64) + up


def _copied(part: NDArray[np.float32], work: Floats) -> Floats:
    out = work[: len(part)]
    np.copyto(out, part)
    return out


def _choices(key: bytes | None, attempt: int, width: int) -> Slots:
    """Words that decide each coordinate's rounding, others for every attempt."""
    seed = os.urandom(32) if key is None else key
    return expand(hashlib.sha256(b"secure_fl/codec/rounding" + attempt.to_bytes(1, "big") + seed).digest(), width)


def _square(part: NDArray[np.int64]) -> int:
    return int(np.dot(part, part))


def _largest(safe: Callable[[int], bool], most: int) -> int:
    """The largest integer in 0..most that is safe, where every one below a safe one is safe too; 0 when none is."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if safe(middle) else (low, middle - 1)
    return low


def _cut(scale: float) -> float:
    """The next lower number of 24 significant bits: its product with a float32 is exact in float64."""
    mantissa, exponent = np.frexp(scale)
    return float(np.ldexp(floor(float(mantissa) * 2**_SCALE_BITS), int(exponent) - _SCALE_BITS))


def _check(
    clients: int,
    width: int,
    pools: int,
    clip: float | None,
    limit: float | None,
    noise_multiplier: float,
    noise_deviation: float,
    rounding: Rounding,
) -> None:
    def refuse(problem: str, name: str, value: object, remedy: str) -> None:
        raise SecureSumError(problem, field=f"secure_sum.{name}", value=value, remedy=remedy)

    for name, count in (("clients", clients), ("width", width), ("pools", pools)):
        if count < 1:
            refuse("must be at least 1", name, count, "give a positive number")
    if clip is None and limit is None:
        refuse("coordinates have no bound", "clip", None, "give a clip, or a limit for each coordinate")
    for name, size in (("clip", clip), ("limit", limit)):
        if size is not None and not (isfinite(size) and 1e-30 < size < 1e30):
            refuse("must be a positive number", name, size, "between 1e-30 and 1e30")
    for name, noise in (("noise_multiplier", noise_multiplier), ("noise_deviation", noise_deviation)):
        if not (isfinite(noise) and noise >= 0):
            refuse("must be zero or positive", name, noise, "give the deviation of the noise summed over all clients")
    if noise_multiplier and (noise_deviation or clip is None):
        refuse("needs a clip, and no noise_deviation beside it", "noise_multiplier", noise_multiplier, "give one of the two")
    if rounding not in ("zero", "conditional") or (rounding == "conditional" and clip is None):
        refuse("is `zero`, or with a clip `conditional`", "rounding", rounding, "set rounding to zero")
