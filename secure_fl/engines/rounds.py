"""One round of a simulation: parties run it, an experimenter reads off what no party is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.engines.parties import LocalParties
from secure_fl.engines.recorder import Recorder
from secure_fl.engines.workers import Workers
from secure_fl.federation.releases.budget import BudgetGate
from secure_fl.federation.run_folder.metrics import Metrics, RoundRecord
from secure_fl.federation.state import State
from secure_fl.federation.steps.program import StepProgram


class Rounds:
    """Runs rounds. Before anybody is called, what the answers will release is in the run's ledger.

    **Guarantee.** A round is tried again only as `FederationServer` does, and each client that is
    asked again gives the answer that it gave: nothing is released twice, and no two sums of the
    same updates are opened, whose difference is an update.

    **Assumes.** Clients that are asked again answer as they did before: from what is stored, or by
    the same coins.

    **Not covered.** A round that is run again after a resume, whose sum may have been opened before
    the process died.
    """

    def __init__(
        self,
        program: StepProgram,
        engine: EmbeddedEngine | Workers,
        gate: BudgetGate,
        groups: Sequence[int | None],
        heard: Callable[[int, int, int], None],
        recorder: Recorder,
    ) -> None:
        """`groups`: known, of every client.

        `heard` is told after each answer whose it is, how many there are, and how many will be.
        `recorder` writes the transcript.
        """
        self._program, self._engine, self._gate = program, engine, gate
        self._groups, self._heard, self._recorder = groups, heard, recorder
        self._parties: LocalParties | None = None

    def run(self, state: State) -> tuple[State, RoundRecord]:
        """The round at `state.place`: the state after it, and its record. Raises SecureSumError: a
        sum that failed where nobody can be blamed, or may have been known when it failed; too few
        clients are left; PrivacyError: the budget would be passed.
        """
        started, form = time.perf_counter(), self._program.form(state.place)
        places = list(enumerate(form.cohort))
        self._gate.admit(self._engine.releases(state, places), self._engine.results.answers)
        if self._parties is None:
            crew, heard = self._engine.crew, self._heard
            self._parties = LocalParties(self._program, state, crew, heard, self._recorder)
        begun = time.perf_counter()
        moved, opened = self._parties.run(state, len(places))
        cost = self._parties.cost(time.perf_counter() - begun)
        step, seen = self._program.step(state.place), self._parties.told.seen
        seen = {client: seen[client] for client in form.cohort if client in seen}
        metrics = step.observe(state, opened, seen, self._groups) | self._gate.spent()
        metrics |= Metrics(refused=tuple(cost.refused) or None)
        return moved, RoundRecord(
            form.name,
            state.place.round + 1,
            len(form.cohort),
            cost.bytes_down,
            cost.bytes_up,
            time.perf_counter() - started,
            metrics,
            cost.seconds,
        )
