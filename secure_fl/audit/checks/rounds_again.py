"""A run's rounds, played again with updates that are given instead of trained.

All else is the run's own: its factory and plan, its clients and their protections, what the ledger
charges, noise, codec, masks, encryption, the server, the opening, and what models make of a sum.
So a fault in any of them shows in what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secure_fl.audit.subject import Subject
from secure_fl.audit.which_rounds import spread
from secure_fl.config import PoolsConfig, PretrainConfig
from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.engines.parties import HereCrew, LocalParties
from secure_fl.engines.recorder import Recorder
from secure_fl.federation.asks import PoolScore
from secure_fl.federation.client import Client
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.factory.updates import Moved
from secure_fl.federation.protections.protection import Trained
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.state import Place, State
from secure_fl.federation.steps.order import steps_of
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.steps.step import Answer, UpdateStep
from secure_fl.federation.summing import Summed
from secure_fl.models.state import to_vector
from secure_fl.privacy.client_level import ClientLevel
from secure_fl.privacy.ledger import Release
from secure_fl.privacy.noise import NoiseSource
from secure_fl.secure_sum.grid import Blocks

Phase = Literal["pretrain", "cluster"]
_ROUNDS = 1 << 16
BEYOND = 4.0
"""How many times too long updates are before they are clipped."""


def phases(subject: Subject) -> tuple[Phase, ...]:
    """Steps of a run whose updates are summed."""
    config = subject.config
    found: list[Phase] = ["pretrain"] if config.pretrain.trains else []
    return (*found, "cluster") if config.pools.enabled else tuple(found)


def rounds_of(subject: Subject, phase: Phase, most: int, seed: int) -> list[int]:
    """Numbers of so many rounds: over the whole run, first and last among them; of a run that has
    fewer, those that would follow.
    """
    rounds = settings_of(subject, phase).rounds
    return spread(rounds, most, seed) if rounds > most else list(range(most))


def settings_of(subject: Subject, phase: Phase) -> PretrainConfig | PoolsConfig:
    """The phase's table of the settings."""
    return subject.config.pretrain if phase == "pretrain" else subject.config.pools


@dataclass(frozen=True)
class Given:
    """What training is said to have given in one round.

    Attributes:
        changes: of every client of the roster, `[clients, S + P]`, in the update's units.
        choices: the pool of each.
    """

    changes: Tensor = field(repr=False)
    choices: Sequence[int]


@dataclass(frozen=True)
class Played:
    """One round as it went.

    Attributes:
        given: to its clients.
        sent: by client: the integers that it handed to the secure sum.
        bound: the round's norm bound, where it adapts.
        opened: the sum, as parties opened it.
        moved: what it makes of the models.
        charged: what clients said, before, that answering releases.
    """

    given: Given = field(repr=False)
    sent: dict[int, Blocks] = field(repr=False)
    bound: float | None
    opened: Summed = field(repr=False)
    moved: Moved = field(repr=False)
    charged: tuple[Release, ...] = field(repr=False)

    @property
    def total(self) -> Blocks:
        """The sum of what clients handed over, without the secure sum."""
        first, *rest = self.sent.values()
        for each in rest:
            first = first + each
        return first


class _Told(Client):
    """A client of the run that is told what training gave."""

    def __init__(self, client: Client, program: StepProgram, again: RoundsAgain) -> None:
        super().__init__(program, client.local, client.protection)
        self._again = again

    def answered(self, state: State, position: int) -> Answer:
        again, number = self._again, self.local.data.id
        if again.step.updates.level is not None:
            again.charged += self.protection.releases(again.step.ask(state), position)
        answer = again.answer_of(self, state)
        again.sent[number] = answer.blocks
        return answer


class RoundsAgain:
    """Plays rounds of one step of a run.

    Args:
        subject: of which run.
        phase: the step.
        width: fields of a block at most; None for all. A narrower block has the same mechanism:
            as many grid steps, the same noise on each field, the same count.
        box: where releases are kept; nowhere by default.

    Attributes:
        given: to clients in the round under way.
        sent: by them, as yet.
        charged: as they said.
    """

    given: Given

    def __init__(
        self,
        subject: Subject,
        phase: Phase,
        *,
        width: int | None = None,
        box: ReleaseBox | None = None,
    ) -> None:
        self.config, self.phase, self._width = subject.config, phase, width
        self.factory = _longer(subject.factory, phase)
        if width is not None and self.factory.client_plan is not None:
            narrow(self.factory, width)
        wanted = [step for step in steps_of(self.factory) if step.name == phase]
        self.step = cast("UpdateStep", wanted[0])
        self.program = StepProgram(self.factory, wanted)
        self._engine = EmbeddedEngine(subject.clients, self.program, box or ReleaseBox(None))
        self.sent = dict[int, Blocks]()
        self.charged: tuple[Release, ...] = ()
        self.state = self.program.entered(State(Place(0, 0), self._tensors()))

    @property
    def level(self) -> ClientLevel:
        """The mechanism of client-level privacy. There must be one."""
        level = self.step.updates.level
        assert level is not None
        return level

    @property
    def clients(self) -> list[Client]:
        """The run's own."""
        return self._engine.clients

    @property
    def cohort(self) -> tuple[int, ...]:
        """Clients of the round to come."""
        return self.program.form(self.state.place).cohort

    @cached_property
    def lengths(self) -> tuple[int, int]:
        """Of the shared and of the pooled part of an update."""
        level = self.step.updates.level
        if level is not None:
            return level.shared, level.pooled
        if self.phase == "pretrain":
            return 0, len(self.state.tensors["model"])
        return len(self.state.tensors["pools.shared"]), self.state.tensors["pools.pooled"].shape[1]

    @property
    def bound(self) -> float | None:
        """The norm bound of the round to come, where it adapts."""
        return self.step.bound(self.state)

    def answer_of(self, client: Client, state: State) -> Answer:
        """What a client answers, by its own protection."""
        step, number, given = self.step, client.local.data.id, self.given
        shared, pooled = given.changes[number].split(list(self.lengths))
        score = PoolScore(given.choices[number], (), 0.0, None)
        trained = Trained(pooled, shared)
        return client.protection.sent(step.ask(state), step.updates, trained, score)

    def clean(self, number: int, given: Given, bound: float | None) -> Blocks:
        """What a client's vector is without its noise. Where rounding draws coins, a change must
        be one that `sure` gives.
        """
        level, change = self.level, given.changes[number]
        limit = level.bound if bound is None else bound
        inside = None if level.bit_noise is None else bool(change.double().norm() <= limit)
        # Coins decide nothing about a change that is whole in grid steps.
        coins = NoiseSource.fresh().stream(client=number, round=0, purpose="rounding")
        made = level.encode(change, bound, stream=coins)
        return level.blocks(made, given.choices[number], inside=inside)

    def sure(self, rng: np.random.Generator) -> Tensor:
        """A change of every client, `[clients, S + P]`, longer than the bound: random, or along
        one coordinate each where the rounding of others is drawn.
        """
        level, shape = self.level, (len(self.clients), sum(self.lengths))
        limit = level.bound if self.bound is None else self.bound
        made = rng.normal(size=shape)
        if level.rounding != "toward_zero":
            made[:] = 0.0
            made[np.arange(shape[0]), rng.integers(shape[1], size=shape[0])] = 1.0
        made *= BEYOND * limit / np.linalg.norm(made, axis=1, keepdims=True)
        return torch.from_numpy(made).float()

    def play(self, given: Given) -> Played:
        """One round. Raises SecureFLError: it failed."""
        self.given, self.sent, self.charged = given, {}, ()
        bound, before = self.bound, self.state
        self.state, opened = self._parties.run(before, len(self.cohort))
        moved = self.step.updates.moved(opened, bound)
        return Played(given, self.sent, bound, opened, moved, self.charged)

    def go_to(self, number: int) -> None:
        """To a round of the run; models, and a bound that adapts, stay what they are."""
        place = Place(0, number)
        if self.state.place != place:
            self.state = self.state.at(place)
            self.__dict__.pop("_parties", None)  # others begin there

    @cached_property
    def _parties(self) -> LocalParties:
        told = [_Told(client, self.program, self) for client in self.clients]
        recorder = Recorder(None, self.config, len(told))
        recorder.number = self.state.place.round
        return LocalParties(self.program, self.state, HereCrew(told), _nobody, recorder)

    def _tensors(self) -> dict[str, Tensor]:
        """The run's first models, or zeros as long as narrower updates are."""
        level = self.step.updates.level
        if level is None or self._width is None:
            return {"encoder": to_vector(self.factory.encoder())}
        if self.phase == "pretrain":
            return {"model": torch.zeros(level.pooled)}
        pooled = torch.zeros(level.pools, level.pooled)
        return {"pools.shared": torch.zeros(level.shared), "pools.pooled": pooled}


def certain(again: RoundsAgain) -> int:
    """Clients whose noise is in whatever is opened: n_min as parties open, less colluders."""
    opening = again.program.form(again.state.place).opening
    return opening.fewest - again.config.privacy.colluders


def flat(blocks: Blocks) -> NDArray[np.int64]:
    """All fields in a row."""
    parts = (blocks.head, blocks.shared, blocks.pools.flatten())
    return np.asarray(torch.cat(parts).numpy(), dtype=np.int64)


def narrow(factory: Factory, width: int) -> None:
    """Let a factory's client-level mechanisms have blocks of so many fields at most."""
    plan = factory.client_plan
    assert plan is not None

    def cut(level: ClientLevel | None) -> ClientLevel | None:
        if level is None:
            return None
        return replace(level, pooled=min(level.pooled, width), shared=min(level.shared, width))

    made = replace(plan, pretrain=cut(plan.pretrain), pools=cut(plan.pools))
    factory.__dict__["client_plan"] = made  # where the cached property keeps it


def _longer(factory: Factory, phase: Phase) -> Factory:
    """The same run with more rounds: as when it goes on, its noise stays what it was."""
    facts, table = factory.facts, {"pretrain": "pretrain", "cluster": "pools"}[phase]
    settings: Any = getattr(facts.config, table)
    longer = settings.model_copy(update={"rounds": _ROUNDS})
    config = facts.config.model_copy(update={table: longer})
    return replace(factory, facts=replace(facts, config=config, begun_as=facts.calibrated_for))


def _nobody(client: int, done: int, total: int) -> None:
    """Hears that a client has answered."""
