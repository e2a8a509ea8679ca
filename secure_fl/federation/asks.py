"""What a client is asked to compute.

An ask follows from the replicated state, so clients that hold the same state are asked the same.

Vectors are flat float32. The digest of an ask (`budget.digest_of`) names what is released by
answering it, so types and fields are not renamed lightly: another name is another release.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from secure_fl.pools.pool_set import PoolSet


@dataclass(frozen=True)
class TrainEncoder:
    """Pre-train from this encoder and projector `[P]`.

    Attributes:
        bound: client-level privacy's norm bound of the round, where it adapts.
        difference: how far clients differ, where the objective's weights follow it.
    """

    round: int
    vector: Tensor = field(repr=False)
    bound: float | None = None
    difference: float | None = None


@dataclass(frozen=True)
class SumFeatures:
    """View moments: sum the examples' features, whose mean is the centre."""


@dataclass(frozen=True)
class SumMoments:
    """View moments: sum how the views of each example differ, of features centred by `centre`
    `[F]`, float64.
    """

    centre: Tensor = field(repr=False)


@dataclass(frozen=True)
class GiveCentre:
    """Released sketches only: the client's noised mean example, to be averaged into the centre."""


@dataclass(frozen=True)
class GiveSketch:
    """The sketch, to be summed with the others; released ones are centred by `centre` `[F]`."""

    centre: Tensor | None = field(default=None, repr=False)


@dataclass(frozen=True)
class VoteCentre:
    """Centre the sketch by `mean` `[S]` and join the nearest of `centres` `[starts, K, S]`."""

    mean: Tensor = field(repr=False)
    centres: Tensor = field(repr=False)


@dataclass(frozen=True)
class Guide:
    """The found groups: the global mean sketch `[S]` and one centre a pool `[K, S]`."""

    mean: Tensor = field(repr=False)
    centres: Tensor = field(repr=False)


@dataclass(frozen=True)
class ScorePools:
    """Choose among these pools; no training."""

    pools: PoolSet
    guide: Guide | None = None


@dataclass(frozen=True)
class TrainPool:
    """Choose a pool and train it. With `forced`, the pool is the guide's nearest centre. The ask
    holds nobody's choice.
    """

    round: int
    pools: PoolSet
    guide: Guide | None = None
    forced: bool = False
    bound: float | None = None


@dataclass(frozen=True)
class TrainCandidate:
    """Train a candidate from row 0 of `pools`: HypCluster's start, which shows a client's model."""

    pools: PoolSet


Training = TrainEncoder | TrainPool
"""Asks for an update."""
Ask = (
    TrainEncoder
    | SumFeatures
    | SumMoments
    | GiveCentre
    | GiveSketch
    | VoteCentre
    | ScorePools
    | TrainPool
    | TrainCandidate
)


@dataclass(frozen=True)
class PoolScore:
    """A client's choice, and how it fares with it. It stays with the client but for what a sum
    takes of it.

    Attributes:
        choice: the pool.
        losses: of every pool on the client's own examples; none where the choice is private.
        test_loss, test_accuracy: of the chosen pool on the client's test examples.
        test_balanced: accuracy with every class of the test set counted alike.
    """

    choice: int
    losses: tuple[float, ...]
    test_loss: float
    test_accuracy: float | None
    test_balanced: float | None = None


def step_of(ask: Training) -> Literal["pretrain", "cluster"]:
    """The name of the step that asks for an update."""
    return "pretrain" if isinstance(ask, TrainEncoder) else "cluster"
