"""The canary game: coins decide which canaries are in; what is released is scored; only then are
the coins opened. Any trainer plays it by one method.

    assignment = SealedAssignment.draw(1000)     # fair coins, from the operating system
    commitment = assignment.seal()               # publish it: the coins cannot change any more
    ... train with the canaries numbered assignment.included ...
    coins = assignment.open(scores)              # scores are fixed before the coins are seen

`audit_trainer` does this with Dirac canaries: canary j contributes C·e_j at the interface where
contributions are clipped, and its score is the j-th coordinate of what was released. They do not
overlap, so noise of independent coordinates gives independent scores, and the bounds are as tight
as they get.

**Not covered**: what one example does to the contributions of others (batch coupling): a Dirac
canary measures its own contribution only. `check_sensitivity` looks for that.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from secure_fl.audit.bounds import (
    Bound,
    gaussian_shift_bound,
    guessed,
    noise_shift_bound,
    one_run_bound,
    one_run_f_bound,
    one_shot_estimate,
)
from secure_fl.audit.bounds.result import Vector, probability
from secure_fl.errors import AuditError
from secure_fl.records import Record

LEAST_CANARIES = 1000
_NONCE = 32
_DOMAIN = b"secure_fl canary coins 1\n"

Coins = NDArray[np.bool_]
Data = TypeVar("Data", contravariant=True)


class SealedAssignment:
    """Fair coins that are committed to before they are used and opened after the scores are fixed.

    **Guarantee**: `seal` gives a hash that only these coins open (`opens`), and that says nothing
    of them; the coins are used after it only, and `open` gives them for scores that are given
    first. **Assumes**: SHA-256 without collisions; coins from the operating system.
    **Not covered**: whoever reads this process' memory, or trains and scores with what `included`
    said: the trainer has to know which canaries to put in, and the scorer must not ask it.
    """

    def __init__(self, coins: Coins, nonce: bytes) -> None:
        """For `draw`; coins of one's own are no game."""
        self._coins, self._nonce = coins, nonce
        self._sealed, self._scores = "", ""

    @classmethod
    def draw(cls, canaries: int, entropy: Callable[[int], bytes] = os.urandom) -> SealedAssignment:
        """As many coins as canaries.

        Args:
            canaries: at least 2.
            entropy: number of bytes -> so many; something else than the default in tests only.

        Raises:
            AuditError: fewer than two canaries.
        """
        if canaries < 2:
            raise AuditError("too few", "canaries", canaries, "hundreds, better thousands")
        bits = np.unpackbits(np.frombuffer(entropy((canaries + 7) // 8), dtype=np.uint8))
        return cls(bits[:canaries].astype(np.bool_), entropy(_NONCE))

    @classmethod
    def sealed(cls, canaries: int) -> SealedAssignment:
        """Drawn and sealed, where nobody waits for the commitment. Raises as `draw`."""
        made = cls.draw(canaries)
        made.seal()
        return made

    def __len__(self) -> int:
        return len(self._coins)

    def seal(self) -> str:
        """The commitment, in hex: publish it before anything is trained. Again, the same."""
        self._sealed = self._sealed or commitment(self._coins, self._nonce)
        return self._sealed

    @property
    def included(self) -> NDArray[np.int64]:
        """Numbers of the canaries that are in: for the trainer alone. Raises as `there`."""
        return np.flatnonzero(self.there)

    @property
    def there(self) -> Coins:
        """Of each canary, whether it is in: for the trainer alone.

        Raises:
            AuditError: not sealed yet, or opened already.
        """
        if not self._sealed:
            raise AuditError("not sealed yet", "assignment", "open", "seal it before training")
        if self._scores:
            remedy = "draw a new assignment for another release"
            raise AuditError("the coins are known already", "assignment", "opened", remedy)
        return self._coins.copy()

    def open(self, scores: ArrayLike) -> Coins:
        """The coins, for scores that are final.

        Raises:
            AuditError: not sealed yet, not a finite score a canary, or other scores than those that
                it was opened for.
        """
        if not self._sealed:
            remedy = "seal the coins, train, score, open"
            raise AuditError("scored before sealing", "assignment", "open", remedy)
        values = np.ascontiguousarray(scores, dtype="<f8")
        if values.shape != self._coins.shape or not np.isfinite(values).all():
            remedy = f"{len(self)} finite numbers, one a canary"
            raise AuditError.unshown("not a score a canary", "scores", remedy)
        given = hashlib.sha256(values.tobytes()).hexdigest()
        if self._scores not in ("", given):
            remedy = "scores are fixed before coins are seen; draw a new assignment"
            raise AuditError("opened for other scores", "scores", "changed", remedy)
        self._scores = given
        return self._coins.copy()

    @property
    def nonce(self) -> bytes:
        """What the commitment is checked with.

        Raises:
            AuditError: not opened yet.
        """
        if not self._scores:
            raise AuditError("not opened yet", "assignment", "sealed", "open it with scores")
        return self._nonce


def commitment(coins: Coins, nonce: bytes) -> str:
    """SHA-256, in hex, over the nonce and the coins."""
    packed = np.packbits(coins).tobytes()
    return hashlib.sha256(_DOMAIN + len(coins).to_bytes(8, "big") + nonce + packed).hexdigest()


def opens(sealed: str, coins: Coins, nonce: bytes) -> bool:
    """Whether a published commitment is to these coins: for whoever checks an audit."""
    return len(nonce) == _NONCE and commitment(coins, nonce) == sealed


@dataclass(frozen=True)
class DiracCanaries:
    """Vectors length·e_j of one coordinate each, for the coordinates that are in.

    Attributes:
        coordinates: those of the canaries that are in, ascending.
        dimension: of the space that they, and the release, live in.
        length: of each: the bound that contributions are clipped to.
    """

    coordinates: NDArray[np.int64]
    dimension: int
    length: float

    def __len__(self) -> int:
        return len(self.coordinates)

    def rows(self) -> Vector:
        """All vectors, `[canaries, dimension]`: 8 bytes a number."""
        made = np.zeros((len(self), self.dimension))
        made[np.arange(len(self)), self.coordinates] = self.length
        return made

    def sum(self) -> Vector:
        """Their sum: what they add to a release without noise and sampling."""
        made = np.zeros(self.dimension)
        made[self.coordinates] = self.length
        return made


class Trainer(Protocol[Data]):
    """What is audited: whatever trains on data and canaries and releases a vector."""

    def release(self, data: Data, canaries: DiracCanaries) -> ArrayLike:
        """Treat each canary as one more unit, whose clipped contribution is its vector, through
        everything that a unit goes through: sampling, clipping, summing, noise.

        Returns the vector that an attacker sees, its coordinates in the canaries' order: the noisy
        sum, or the sum of all noisy sums of the run. Canary j must move coordinate j upwards.
        """


@dataclass(frozen=True)
class Claim(Record):
    """What the trainer claims.

    Raises:
        AuditError: an ε that is not above 0 and finite, which nothing could refute or hold; a δ
            that is not within (0, 1); a shift or a deviation that is not above 0 and finite.

    Args:
        epsilon: the ε at `delta`, of the adjacency in which a unit is there or not.
        delta: within (0, 1).
        noise: by how much a canary that is in moves its score, and the deviation of the noise in
            it: C·T·q and σ·C·√T for T sums at rate q. It is not tested if left out.
    """

    epsilon: float
    delta: float
    noise: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _positive(self.epsilon, "claim.epsilon")
        probability(self.delta, "claim.delta")
        for name, value in zip(("shift", "deviation"), self.noise or (), strict=False):
            _positive(value, f"claim.noise: {name}")


def _positive(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise AuditError("not above 0 and finite", name, value, "a finite number above 0")


@dataclass(frozen=True)
class TrainerAudit(Record):
    """What an audit saw.

    Attributes:
        claim: as made.
        commitment: to the coins, made before training.
        canaries: how many coins there were.
        bounds: by all methods; each holds by itself, at its own confidence.
    """

    claim: Claim
    commitment: str
    canaries: int
    bounds: tuple[Bound, ...]

    @property
    def alarm(self) -> bool:
        """Whether the noise is narrower, or the shift larger, than claimed: a test of its own."""
        return any(bound.details.get("alarm") for bound in self.bounds)

    @property
    def refuting(self) -> tuple[Bound, ...]:
        """Bounds that are above the claimed ε."""
        return tuple(bound for bound in self.bounds if bound.refutes(self.claim.epsilon))

    @property
    def idle(self) -> bool:
        """Whether canaries moved their scores by less than half of what `Claim.noise` says: they
        were not trained on as the units that they stand for, and no bound says anything then. An
        honest trainer is called so once in two thousand times at most.
        """
        seen = [bound.details for bound in self.bounds if "mu_claimed" in bound.details]
        return any(each["mu"] + 3.3 * each["mu_error"] < each["mu_claimed"] / 2 for each in seen)

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the claim, and the game was played. A pass proves little;
        a false fail has at most the probability of a false alarm and of one false bound each, added
        up.
        """
        return not self.alarm and not self.refuting and not self.idle


def audit_trainer(
    trainer: Trainer[Data],
    data: Data,
    claim: Claim,
    *,
    dimension: int,
    clip: float = 1.0,
    canaries: int | None = None,
    confidence: float = 0.999,
    false_alarm: float = 1e-3,
    entropy: Callable[[int], bytes] = os.urandom,
) -> TrainerAudit:
    """Play the game once and say what it shows.

    **Guarantee**: coins are drawn here, sealed before `trainer` is called, and opened after the
    scores are taken from the released vector. **Assumes**: as each bound says; the first `canaries`
    coordinates hold no data that depend on the coins. **Not covered**: batch coupling, and who
    knows that he is being audited.

    Args:
        trainer: what is audited.
        data, claim: passed on to it; what is tried to be refuted.
        dimension: of the released vector, at least as large as `canaries`.
        clip: length of a canary, the bound C.
        canaries: coins to toss, at least 1,000; the dimension by default, up to 5,000.
        confidence, false_alarm: of each bound, and of the test of the noise.
        entropy: as `SealedAssignment.draw`.

    Raises:
        AuditError: too few canaries or dimensions, or an argument out of its range, before anything
            is trained; or a release that is no finite vector, or the same number everywhere.
    """
    _check(clip, confidence, false_alarm)
    count = _count(min(dimension, 5000) if canaries is None else canaries, dimension)
    assignment = SealedAssignment.draw(count, entropy)
    sealed = assignment.seal()
    into = DiracCanaries(assignment.included, dimension, clip)
    scores = _vector(trainer.release(data, into), dimension)[:count]
    bounds = all_bounds(scores, assignment.open(scores), claim, confidence, false_alarm)
    return TrainerAudit(claim, sealed, count, bounds)


def _check(clip: float, confidence: float, false_alarm: float) -> None:
    _positive(clip, "clip")
    probability(confidence, "confidence")
    probability(false_alarm, "false_alarm")


def _count(canaries: int, dimension: int) -> int:
    whole = isinstance(canaries, int) and isinstance(dimension, int)
    if not whole or not LEAST_CANARIES <= canaries <= dimension:
        remedy = f"at least {LEAST_CANARIES}, and no more than the release has coordinates"
        raise AuditError("not as many canaries as it takes", "canaries", canaries, remedy)
    return canaries


def _vector(released: ArrayLike, dimension: int) -> Vector:
    """A release, wherever it lies. Raises AuditError: it is no vector of so many finite numbers."""
    remedy = f"a vector of {dimension} finite numbers"
    if isinstance(released, Tensor):
        released = released.detach().cpu().double().numpy()
    try:
        given = np.asarray(released)
        made = given.astype(np.float64) if given.dtype.kind in "biuf" else None
    except (TypeError, ValueError, RuntimeError):
        made = None
    if made is None:
        raise AuditError.of_kind("not real numbers", "release", released, remedy)
    if made.shape != (dimension,):
        raise AuditError("not the vector that was asked for", "release", made.shape, remedy)
    if not np.isfinite(made).all():
        raise AuditError.unshown("not finite", "release", remedy)
    if (made == made[0]).all():
        problem = "the same number everywhere: neither canaries nor noise are in it"
        raise AuditError.unshown(problem, "release", "add the canaries' vectors to what is summed")
    return made


def all_bounds(
    scores: ArrayLike,
    coins: Coins,
    claim: Claim,
    confidence: float = 0.95,
    false_alarm: float = 1e-3,
    guesses: Sequence[int] | None = None,
) -> tuple[Bound, ...]:
    """Every method on one set of scores; arguments as of `audit_trainer` and of the methods.

    Raises:
        AuditError: scores and coins do not match, or a method refuses them.
    """
    outcomes, delta = guessed(scores, coins, guesses), claim.delta
    return (
        one_run_bound(outcomes, delta, confidence),
        one_run_f_bound(outcomes, delta, confidence, "approximate"),
        one_run_f_bound(outcomes, delta, confidence),
        gaussian_shift_bound(scores, coins, delta, confidence),
        noise_shift_bound(
            scores, coins, delta, confidence, claimed=claim.noise, false_alarm=false_alarm
        ),
        one_shot_estimate(scores, coins, delta),
    )
