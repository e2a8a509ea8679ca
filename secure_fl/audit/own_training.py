"""The private training of a run, made of the run's own parts: what a client would train with in one
round, what it would be charged for it, and where its noise would come from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor

from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig
from secure_fl.errors import AuditError
from secure_fl.federation.asks import TrainEncoder, Training, TrainPool
from secure_fl.federation.factory.private_paths import TrainingPath, Views
from secure_fl.federation.local.local import Local
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.protections.example_level import ExampleLevel
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.releasing import Releasing
from secure_fl.pools.pool_set import PoolSet
from secure_fl.privacy.engine import PrivateTraining
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.mechanisms.group import GroupNTXent
from secure_fl.privacy.mechanisms.per_example import PerExample
from secure_fl.privacy.mechanisms.released_statistics import ReleasedStatistics
from secure_fl.privacy.noise import NoiseSource, NoiseStream

Phase = Literal["pretrain", "cluster"]
Own = ReleasedStatistics | PerExample | GroupNTXent
"""The mechanisms that runs train with."""


def private_phases(config: FederationConfig) -> tuple[Phase, ...]:
    """Phases that train with noise at example level."""
    if config.privacy.unit != "example":
        return ()
    found: list[Phase] = ["pretrain"] if config.pretrain.trains else []
    return (*found, "cluster") if config.pools.enabled else tuple(found)


def seconds_of_rounds(config: FederationConfig, each: float, most: float) -> float:
    """What a check takes that trains no more steps than the run has: so many seconds an epoch of a
    small encoder, at most so many a phase.
    """
    tables = [
        config.pools if phase == "cluster" else config.pretrain for phase in private_phases(config)
    ]
    return sum(min(most, 1 + each * table.rounds * table.local_epochs) for table in tables)


def nothing_private(subject: Subject) -> str:
    """Why a check of training at example level does not apply; empty where it does."""
    if subject.config.privacy.unit != "example":
        return "the run does not protect single examples (privacy.unit)"
    return "" if private_phases(subject.config) else "nothing is trained on clients' examples"


@dataclass(frozen=True)
class OwnTraining:
    """One round's private training of one client.

    Attributes:
        path: how the client reads its examples.
        training: what it trains with: mechanism, steps, learning rate.
        charged: what a ledger holds for it: the folder's, or what the client says that it releases.
        rounds: as many as are charged.
        delta: of the claim.
    """

    path: TrainingPath
    training: PrivateTraining[Views]
    charged: GaussianEvent
    rounds: int
    delta: float
    releasing: Releasing
    ask: Training

    @classmethod
    def of(
        cls, subject: Subject, phase: Phase, noise: NoiseSource, client: int = 0, number: int = 0
    ) -> OwnTraining:
        """Of round `number` of a phase, as `client` would train in it.

        Args:
            noise: of the run's own kind; no two trainings take the same place in it.

        Raises:
            AuditError: the client has nothing to train on in this phase.
        """
        factory, config = subject.factory, subject.config
        settings = config.pretrain if phase == "pretrain" else config.pools
        ask: Training = TrainEncoder(number, torch.zeros(1))
        if phase == "cluster":
            ask = TrainPool(number, PoolSet(torch.zeros(0), torch.zeros(1, 1)))
        data = subject.clients[client]
        releasing = Releasing(data.id, noise, ReleaseBox(None))
        protection = ExampleLevel(Local(data, Workbench(factory)), releasing)
        made = [each for each in protection.releases(ask, 0) if each.purpose == "training"]
        if not made:
            remedy = "audit a client with examples of this phase"
            raise AuditError("trains nothing", "client", client, remedy)
        training = protection._training(ask, 0)
        charged, rounds = cast("GaussianEvent", made[0].event), settings.rounds
        if subject.ledger is not None:
            written = _written(PrivacyLedger.load(subject.ledger), phase, data.id)
            charged, rounds = (written[0], len(written)) if written else (charged, rounds)
            training = _as_charged(training, charged)
        path = TrainingPath(factory, phase, data.id, 0, number)
        return cls(path, training, charged, rounds, config.privacy.delta, releasing, ask)

    @property
    def mechanism(self) -> Own:
        """Of all its steps."""
        return cast("Own", self.training.mechanism)

    @property
    def phase(self) -> Phase:
        """Its name."""
        return self.path.phase

    def stream(self) -> NoiseStream:
        """All noise and coins of this round; once."""
        return self.releasing.stream(self.ask, self.phase, self.ask.round)


def _written(ledger: PrivacyLedger, phase: Phase, client: int) -> list[GaussianEvent]:
    """What a ledger holds of a client's own training in a phase, round by round."""
    return [
        each.event
        for each in ledger.releases
        if (each.phase, each.purpose, each.history) == (phase, "training", None)
        and client in each.subjects
        and isinstance(each.event, GaussianEvent)
    ]


def _as_charged(training: PrivateTraining[Views], charged: GaussianEvent) -> PrivateTraining[Views]:
    """With the noise and rate that the ledger says: a run that was made longer kept those that it
    began with.
    """
    mechanism, event = cast("Own", training.mechanism), training.event
    if (event.noise_multiplier, event.sampling_rate) == (
        charged.noise_multiplier,
        charged.sampling_rate,
    ):
        return training
    noise, rate = charged.noise_multiplier, charged.sampling_rate
    made = replace(mechanism, noise_multiplier=noise, sampling_rate=rate)
    return PrivateTraining(cast("object", made), training.spec)  # type: ignore[arg-type]


def examples_of(subject: Subject, own: OwnTraining, most: int) -> tuple[Tensor, Tensor]:
    """Up to so many of the client's own examples and labels that this phase trains on."""
    data = subject.clients[own.releasing.client].train
    data = data.with_labels() if own.path.supervised else data
    return data.x[:most], data.y[:most]


def stated_noise(mechanism: Own) -> tuple[float, ...]:
    """Deviation of the noise in each released sum, gradients first, over what an example adds."""
    if isinstance(mechanism, GroupNTXent):
        return (mechanism.noise_multiplier,)
    if isinstance(mechanism, ReleasedStatistics):
        return (mechanism.gradient_noise, mechanism.statistic_noise)
    counted = () if mechanism.count_noise is None else (mechanism.count_noise / mechanism._bit,)
    return (mechanism.gradient_noise, *counted)
