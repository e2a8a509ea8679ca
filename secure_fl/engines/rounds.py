"""One round: its sum is set up, clients answer into it, and what is opened moves the state.

Tried again where a client made the sum fail.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from secure_fl.engines.embedded import EmbeddedEngine, Places
from secure_fl.federation.asks import payload_bytes
from secure_fl.federation.budget import BudgetGate
from secure_fl.federation.observe import Seen
from secure_fl.federation.program import SumForm
from secure_fl.federation.record import Metrics, RoundRecord
from secure_fl.federation.state import State
from secure_fl.federation.step_program import StepProgram
from secure_fl.federation.summing import Cost, ProtectedSum, Summed, Summing
from secure_fl.secure_sum.round_messages import RoundRefusedError

ATTEMPTS = 3
"""Of one round.

Each leaves out more clients, and the numbers that must survive stay those of the round as it was
called.
"""


class Rounds:
    """Runs rounds. Before anybody is asked, what the answers will release is in the ledger.

    **Guarantee.** A round is tried again only where no client has sent what opens a pool of the
    attempt before, or a count that noise hides, and each asked again gives the answer that it gave:
    nothing is released twice, and no two sums of the same updates are opened, whose difference is
    an update. Clients see to that themselves, by the digest of what they are asked, whatever is
    said here. **Assumes.** Clients that are asked again answer as they did before: from what is
    stored, or by the same coins. **Not covered.** A round that is run again after a resume, whose
    sum may have been opened before the process died.
    """

    def __init__(
        self,
        program: StepProgram,
        engine: EmbeddedEngine,
        summing: Summing,
        gate: BudgetGate,
        groups: Sequence[int | None],
        heard: Callable[[int, int, int], None],
    ) -> None:
        """`groups`: known, of every client.

        `heard` is told after each answer whose it is, how many there are, and how many will be.
        """
        self._program, self._engine, self._summing = program, engine, summing
        self._gate, self._groups, self._heard = gate, groups, heard

    def run(self, state: State) -> tuple[State, RoundRecord]:
        """The round at `state.place`: the state after it, and its record.

        Raises:
            SecureSumError: a sum that failed where nobody can be blamed, or may have been known
                when it failed; too few clients are left without who can be blamed, or a private
                answer is not stored.
            PrivacyError: the budget would be passed.
        """
        started, form = time.perf_counter(), self._program.form(state.place)
        tally = _Tally()
        opened = self._summed(state, form, tally)
        moved = self._program.apply(state, opened)
        metrics = self._metrics(state, opened, tally)
        return moved, RoundRecord(
            form.name,
            state.place.round + 1,
            len(form.cohort),
            tally.down + tally.cost.bytes_down,
            tally.cost.bytes_up,
            time.perf_counter() - started,
            metrics,
            tally.cost.seconds,
        )

    def _metrics(self, state: State, opened: Summed, tally: _Tally) -> Metrics:
        refused = [*tally.again, *tally.cost.refused]
        step = self._program.step(state.place)
        observed = step.observe(state, opened, tally.seen, self._groups)
        return ({"refused": refused} if refused else {}) | observed | self._gate.spent()

    def _summed(self, state: State, form: SumForm, tally: _Tally) -> Summed:
        """The opened sum of a round, after as many attempts as it takes."""
        without = frozenset[int]()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._attempt(state, form, without, tally)
            except RoundRefusedError as error:
                blamed = without | self._summing.blamed(error)
                new = attempt < ATTEMPTS and blamed != without
                if not new or not self._can_repeat(state, form, blamed, tally):
                    raise
                told = f"attempt {attempt}: {error.reason}"
                tally.again += [f"{name} {told}" for name in error.blamed]
                without = blamed
        raise AssertionError

    def _attempt(
        self, state: State, form: SumForm, without: frozenset[int], tally: _Tally
    ) -> Summed:
        """Set up, ask, add, and open; what it cost is tallied also where it fails."""
        places, tally.seen = _places(form, without), {}
        question = state.digest if form.repeatable else b""
        running = self._summing.begin(form, without, question)
        try:
            self._gate.admit(self._engine.releases(state, places), self._engine.results.answers)
            tally.down += payload_bytes(self._program.ask(state)) * len(places)
            for done, (client, answer) in enumerate(self._engine.answers(state, places), 1):
                running.add(client, answer.blocks)
                tally.seen[client] = answer.seen
                self._heard(client, done, len(places))
            return running.open()
        finally:
            tally.cost += running.cost
            tally.closed = isinstance(running, ProtectedSum) and running.closed

    def _can_repeat(
        self, state: State, form: SumForm, without: frozenset[int], tally: _Tally
    ) -> bool:
        """Whether nothing can be known, enough clients are left, and all answers are stored."""
        enough = self._summing.suffices(form.cohort, form.opening, without)
        if not tally.closed or not enough:
            return False
        coming = self._engine.releases(state, _places(form, without))
        return all(self._engine.results.find(release.key) is not None for release in coming)


def _places(form: SumForm, without: frozenset[int]) -> Places:
    """Places stay what they are when others are left out."""
    return [each for each in enumerate(form.cohort) if each[1] not in without]


@dataclass
class _Tally:
    """What a round has cost over its attempts.

    Attributes:
        again: who made the earlier attempts fail.
        seen: what was read off the clients in the last one.
        closed: whether the last one's sum is unknown to everybody.
    """

    down: int = 0
    cost: Cost = field(default_factory=Cost)
    again: list[str] = field(default_factory=list)
    seen: dict[int, Seen] = field(default_factory=dict)
    closed: bool = True
