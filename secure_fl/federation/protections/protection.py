"""What a client's protection says: what training, choosing and sending mean for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import ClassVar

import torch
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.federation.asks import (
    Ask,
    PoolScore,
    ScorePools,
    SumFeatures,
    SumMoments,
    TrainCandidate,
    TrainEncoder,
    Training,
    TrainPool,
)
from secure_fl.federation.factory.updates import Updates
from secure_fl.federation.observe import Seen
from secure_fl.federation.steps.step import Answer
from secure_fl.privacy.ledger import Release


@dataclass(frozen=True)
class Trained:
    """What a client's training changed.

    Attributes:
        pooled: change of the chosen pool `[P]`, or of the one model.
        shared: change of the part that all pools share `[S]`.
        weight: what it counts in an average, within [0, 1]; 0 of a client without anything to train
            on, whose changes are zero.
        terms: mean of each loss term over the steps.
        exploded: step at which the loss had left its scale, if it did; 0 where nothing was left to
            send.
    """

    pooled: Tensor = field(repr=False)
    shared: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    weight: float = 1.0
    terms: Mapping[str, float] = field(default_factory=dict)
    exploded: int | None = None

    @property
    def change(self) -> Tensor:
        """The whole change `[S + P]`."""
        return torch.cat([self.shared, self.pooled])


class Protection(ABC):
    """How one client answers. Steps say what is asked and where it goes; a protection says what may
    leave the client.

    Attributes:
        answered: kinds of asks that it answers; any where nothing is hidden.
        refusal: what is said of all others, and the remedy.
    """

    answered: ClassVar[UnionType | type] = object
    refusal: ClassVar[tuple[str, str]] = ("", "")

    def check(self, ask: Ask) -> None:
        """Refuse what must not be answered under this protection. Raises PrivacyError."""
        if not isinstance(ask, self.answered):
            problem, remedy = self.refusal
            raise PrivacyError(problem, "ask", type(ask).__name__, remedy)

    @abstractmethod
    def releases(self, ask: Ask, position: int) -> tuple[Release, ...]:
        """What answering would release with noise, the sketch aside."""

    @abstractmethod
    def train_encoder(self, ask: TrainEncoder, position: int) -> Trained:
        """Train the model that is pre-trained."""

    @abstractmethod
    def choose(self, ask: ScorePools | TrainPool, position: int) -> PoolScore:
        """Choose a pool. The score beside the choice is for sums without privacy, and for the
        experimenter.
        """

    @abstractmethod
    def train_pool(self, ask: TrainPool, choice: int, position: int) -> Trained:
        """Train the chosen pool."""

    @abstractmethod
    def sum_examples(self, ask: SumFeatures | SumMoments) -> Tensor:
        """The client's part of a sum over examples as it may leave the client, int64 `[fields]`."""

    def train_candidate(self, ask: TrainCandidate, position: int) -> Trained:
        """Train the first pool, as a candidate for another: in the open alone."""
        self.check(ask)
        raise NotImplementedError

    def sent(
        self, ask: Training, updates: Updates, trained: Trained, score: PoolScore | None = None
    ) -> Answer:
        """The summand that a change becomes, in the block of the chosen pool or the only one: in
        fixed point, without noise of its own.
        """
        choice = 0 if score is None else score.choice
        change = updates.summand(trained.change)
        blocks = updates.grid.blocks(change, choice, trained.weight)
        cut = updates.grid.cut(trained.weight * change)
        return Answer(blocks, Seen(trained.terms, trained.exploded, cut, score))
