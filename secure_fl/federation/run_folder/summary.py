"""A finished run, as its `summary.json` holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secure_fl.federation.run_folder.metrics import Metrics
from secure_fl.federation.run_folder.secrecy import Secrecy
from secure_fl.pools.monitor import PoolHealth
from secure_fl.privacy.chain import Mark
from secure_fl.privacy.claims import PrivacyClaim
from secure_fl.records import Record


@dataclass(frozen=True)
class Alerted(Record):
    """Something that was raised, and the round in which it came up first."""

    phase: str
    round: int
    alert: str


@dataclass(frozen=True)
class Cost(Record):
    """What one phase took; None of times that the record leaves out."""

    rounds: int
    bytes_down: int
    bytes_up: int
    seconds: float | None = None
    sum_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class FinalPools(PoolHealth):
    """The last test of the pools, and the course of the rounds before it.

    Attributes:
        accuracy, accuracy_std, accuracy_min, balanced_accuracy, test_loss, majority, choices,
            accuracies: as `Metrics` has them.
        accuracy_per_round, occupancy_per_round: one a round of clustering, and the last test's;
            rounds whose record leaves them out are gaps.
        alerts: of the pools, one a round that had one.
        accuracy_by_group: mean over the clients of each known group.
    """

    accuracy: float | None
    accuracy_std: float | None
    accuracy_min: float | None
    balanced_accuracy: float | None
    test_loss: float | None
    majority: float | None
    choices: Mapping[str, int]
    accuracies: Mapping[str, float | None]
    accuracy_per_round: tuple[float | None, ...]
    occupancy_per_round: tuple[tuple[int, ...], ...]
    alerts: tuple[str, ...]
    accuracy_by_group: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Charged(Record):
    """What was charged to a budget; an ε without a known bound is None, never a large number."""

    unit: str
    adjacency: str
    epsilon: float | None
    delta: float
    releases: int
    ledger: Mark
    claims: tuple[PrivacyClaim, ...]


@dataclass(frozen=True, kw_only=True)
class Privacy(Charged):
    """Of a run with differential privacy.

    Attributes:
        budget: ε that was not to be passed.
        clients: ε of each, by its number.
        pools: of each, the largest ε of the clients that trained it; None where nobody computed it.
        outside: what the run writes beside its releases, file by file.
    """

    budget: float
    clients: Mapping[str, float | None]
    pools: Mapping[str, float | None] | None = None
    outside: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SketchPrivacy(Charged):
    """Of a run that noises its sketches and nothing else, which `covers` says."""

    covers: str


@dataclass(frozen=True, kw_only=True)
class Summary(Record):
    """A finished run. Fields are None where the run has no such thing, or the record leaves out
    what only the experimenter knows.

    Attributes:
        unprotected: what the run does not protect.
        secrecy: who can read what of its sums; () in records of an earlier version.
        label_skew: of the partition; 0 is IID.
        costs: of each phase.
        representation: before and after pre-training.
        privacy, sketches: what was charged, of the whole run or of its sketches alone.
    """

    name: str
    status: str
    seed: int
    unprotected: tuple[str, ...]
    secrecy: tuple[Secrecy, ...] = ()
    clients: int
    examples: int | None = None
    label_skew: float | None = None
    encoder_parameters: int | None = None
    pool_parameters: int | None = None
    costs: Mapping[str, Cost]
    versions: Mapping[str, str]
    alerts: tuple[Alerted, ...] | None = None
    privacy: Privacy | None = None
    representation: Metrics | None = None
    pools: FinalPools | None = None
    sketches: SketchPrivacy | None = None

    @property
    def charged(self) -> Privacy | SketchPrivacy | None:
        """What was charged to a budget, if anything was."""
        return self.privacy or self.sketches
