"""One round, as a line of `metrics.jsonl` holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Self

from secure_fl.config import ObjectiveConfig
from secure_fl.objectives.adaptive import adapted, gamma_of
from secure_fl.pools.monitor import PoolHealth
from secure_fl.privacy.chain import Mark
from secure_fl.records import Record


@dataclass(frozen=True)
class Cut(Record):
    """Clients whose updates the clamp cut, and the largest share of one client's values."""

    clients: int
    share: float


@dataclass(frozen=True)
class SummedTest(Record):
    """What a pool's opened sum of test scores says; None of a pool that stayed closed.

    Attributes:
        clients: that were tested.
        mean_accuracy, accuracy_deviation, mean_loss: over these clients.
    """

    clients: int
    mean_accuracy: float | None
    accuracy_deviation: float | None
    mean_loss: float | None


@dataclass(frozen=True)
class Spent(Record):
    """The largest ε of any subject so far; None where no bound is known."""

    epsilon: float | None
    delta: float
    unit: str


@dataclass(frozen=True)
class Separated(Record):
    """The weights by which a round of pre-training separated clients.

    Attributes:
        difference: how far clients differ, from 0 to 1, which they followed; None where it was not
            known yet.
        gamma, delta: the weights.
    """

    difference: float | None
    gamma: float
    delta: float

    @classmethod
    def of(cls, config: ObjectiveConfig, difference: float | None) -> Self:
        """The weights that follow from a difference."""
        objective = adapted(config, difference)
        return cls(difference, gamma_of(objective), objective.delta)


@dataclass(frozen=True)
class Metrics(Record):
    """What a round says of itself; None of what it has not, or does not tell.

    Attributes:
        initial, pretrained, measured_on: the representation before and after pre-training, by the
            name of the measure, and what each was measured on.
        loss, terms: of training, as means over clients.
        pools: how clients spread over pools.
        tested: of each pool, from a sum of test scores.
        differences: how far the clients of each pool differ, from 0, alike, to 1.
        separation: of pre-training, the weights that followed from how far clients differed.
        groups_opened, groups_left_out: how many groups opened each pool, why others did not.
        accuracy, accuracy_std, accuracy_min, balanced_accuracy, test_loss: over clients' tests.
        majority: accuracy of always giving a client's most frequent label.
        choices, accuracies: of each client, by its number.
        spread, unexplained, counts: of sketches, how far apart they are, the share of it that lies
            within groups, and members of each group.
        difference: how far clients differ by their sketches, from 0, alike, to 1, without what
            noise adds; None where that is not public.
        accepted, centre: whether a draw of pools was kept; whose candidate the next pool is.
        exploded, cut, alerts: what went wrong.
        refused: what was turned away.
        privacy, ledger: what was spent, and how far the ledger had come.
    """

    initial: Mapping[str, float] | None = None
    pretrained: Mapping[str, float] | None = None
    measured_on: Mapping[str, str] | None = None
    loss: float | None = None
    terms: Mapping[str, float] | None = None
    pools: PoolHealth | None = None
    tested: tuple[SummedTest, ...] | None = None
    differences: tuple[float | None, ...] | None = None
    separation: Separated | None = None
    groups_opened: tuple[int, ...] | None = None
    groups_left_out: tuple[str, ...] | None = None
    accuracy: float | None = None
    accuracy_std: float | None = None
    accuracy_min: float | None = None
    balanced_accuracy: float | None = None
    majority: float | None = None
    test_loss: float | None = None
    choices: Mapping[str, int] | None = None
    accuracies: Mapping[str, float | None] | None = None
    spread: float | None = None
    difference: float | None = None
    unexplained: float | None = None
    counts: tuple[int, ...] | None = None
    accepted: bool | None = None
    centre: int | None = None
    exploded: Mapping[str, int] | None = None
    cut: Cut | None = None
    alerts: tuple[str, ...] | None = None
    refused: tuple[str, ...] | None = None
    privacy: Spent | None = None
    ledger: Mark | None = None

    def __or__(self, more: Metrics) -> Metrics:
        """Both; where both say something, what `more` says."""
        said = ((each.name, getattr(more, each.name)) for each in fields(more))
        return replace(self, **{name: value for name, value in said if value is not None})


@dataclass(frozen=True)
class RoundRecord(Record):
    """One round, as a line of `metrics.jsonl` holds it. `seconds`, `sum_seconds` are None, and
    `metrics` has gaps, where a line was read back that was written without the experimenter's
    fields.

    Attributes:
        phase: name of the step.
        round: counted from 1 within the step.
        clients: asked.
        bytes_down, bytes_up: bodies of messages, over all clients.
        seconds, sum_seconds: wall time, and the secure sum's part of it.
    """

    phase: str
    round: int
    clients: int
    bytes_down: int
    bytes_up: int
    seconds: float | None = None
    metrics: Metrics = Metrics()
    sum_seconds: float | None = None
