"""A whole run in one process. What comes before the program, its rounds, and what the experimenter
measures in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from secure_fl.data.dataset import Dataset
from secure_fl.engines.book import Book
from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.engines.rounds import Rounds
from secure_fl.engines.workers import Workers
from secure_fl.federation.observe import Seen, of_representation
from secure_fl.federation.releases.budget import BudgetGate
from secure_fl.federation.run_folder.metrics import Metrics, RoundRecord
from secure_fl.federation.state import Place, State
from secure_fl.federation.steps.evaluate import Evaluate
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.whole_run.extension import needs_sketches
from secure_fl.federation.whole_run.prologue import Prologue

Heard = Callable[[int, int, int], None]
"""Told after each answer whose it is, how many there are, and how many will be."""


@dataclass(frozen=True)
class Simulation:
    """Runs a program to its end, from wherever a state and the records before it say that it was.

    Attributes:
        program, prologue: what is run.
        engine, rounds: who runs it.
        gate: holds the ledger.
        book: takes in the records.
        pooled: all clients' training and test examples, for measures that only a simulation can
            take.
        groups: the known group of every client.
        heard: told of each answer.
        resumed: whether an earlier process began the run.
        known: whether the pools that clients used are known, where the run goes on for longer.
    """

    program: StepProgram
    prologue: Prologue
    engine: EmbeddedEngine | Workers
    rounds: Rounds
    gate: BudgetGate
    book: Book
    pooled: Callable[[], tuple[Dataset, Dataset]] = field(repr=False)
    groups: Sequence[int | None]
    heard: Heard
    resumed: bool
    known: bool

    def to_the_end(self, state: State) -> State:
        """The state after the last round. Raises SecureFLError: as `Federation.run`."""
        state = self.program.entered(self._before(state))
        self._measure(state)
        recalled, begun = not self.resumed, -1
        while not self.program.done(state.place):
            step, place = self.program.step(state.place), state.place
            if place.step != begun:
                self.book.begin(step.name, step.rounds, place.round)
                begun = place.step
            self.book.check()
            if not recalled:
                self._recall(state)
                recalled = True
            state, record = self.rounds.run(state)
            every = self.program.facts.config.runtime.checkpoint_every
            self.book.write(record, state, save=state.place.round % every == 0)
            self._measure(state)
        if self._evaluates:
            if not recalled:
                self._recall(state)
            self._evaluate(state)
        return state

    def _before(self, state: State) -> State:
        """Pre-training at a server, where there is some left."""
        finished, rounds = self.prologue.finished(state), self.prologue.rounds
        if finished < rounds:
            self.book.begin("pretrain", rounds, finished)
        every = self.program.facts.config.runtime.checkpoint_every
        for number in range(finished + 1, rounds + 1):
            self.book.check()
            started = time.perf_counter()
            state, metrics = self.prologue.advanced(state)
            record = self._record("pretrain", number, 0, started, metrics)
            self.book.write(record, state, save=number % every == 0 or number == rounds)
        return state

    def _measure(self, state: State) -> None:
        """The representation, as soon as there is one."""
        factory = self.program.factory
        config = factory.facts.config
        measured = any(each.phase == "measure" for each in self.book.records)
        wanted = config.evaluate.enabled and config.pretrain.mode != "none"
        if measured or not wanted or "encoder" not in state.tensors:
            return
        self.book.begin("measure", 1, 0)
        started = time.perf_counter()
        metrics = of_representation(factory, state, *self.pooled())
        self.book.write(self._record("measure", 1, 0, started, metrics), state, save=True)

    @property
    def _evaluates(self) -> bool:
        """Whether pools are still to be tested, in a run that sums no test scores."""
        records, config = self.book.records, self.program.facts.config
        tested = bool(records) and records[-1].phase == "evaluate"
        return config.pools.enabled and "evaluate" not in self.program.names and not tested

    def _evaluate(self, state: State) -> None:
        """Test the final pools: nothing of it leaves a client."""
        self.book.begin("evaluate", 1, 0)
        started, step = time.perf_counter(), Evaluate(self.program.factory)
        seen: dict[int, Seen] = {}
        for client, score in self.engine.scored(step, state):
            seen[client] = score
            self.heard(client, len(seen), len(self.groups))
        metrics = step.read_off(seen, self.groups)
        record = self._record("evaluate", 1, len(self.groups), started, metrics)
        self.book.write(record, state, save=True)

    def _record(
        self, name: str, number: int, clients: int, started: float, metrics: Metrics
    ) -> RoundRecord:
        seconds, metrics = time.perf_counter() - started, metrics | self.gate.spent()
        return RoundRecord(name, number, clients, 0, 0, seconds, metrics, 0.0)

    def _recall(self, state: State) -> None:
        """After a resume, this process' clients need again the private sketch that they released.

        A sketch that is gone is released anew, and charged again. A run that goes on for longer
        leaves alone what nobody will ask for.
        """
        names, facts = self.program.names, self.program.facts
        given = "sketch" in names and state.place > Place(names.index("sketch"), 0)
        if not given or not facts.config.noises_sketches:
            return
        longer = facts.begun_as is not None
        if longer and not needs_sketches(facts.config, state, names, self.known):
            return
        self.gate.admit(self.engine.recalled(state), self.engine.results.answers)
        self.engine.recall(state)
