"""A federation's program: steps, each a row of rounds in which clients' integers are summed.

Everything that a sum must be like follows from the plan and the place, before anybody computes;
what an opened sum does to the state is a pure function. So the server drives a program without
seeing a model, and whoever holds the models comes to the same state as everybody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from secure_fl.federation.state import Place, State
from secure_fl.federation.summing import Opening, Summed
from secure_fl.privacy.ledger import Release
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.grid import Blocks


@dataclass(frozen=True)
class SumForm:
    """What everybody knows of one round's sum before anyone computes. It follows from the plan and
    the place alone.

    Attributes:
        name: of the step.
        cohort: clients that are asked, ascending.
        shape: of every client's integers.
        opening: when the sum may be opened, and what its fields may hold.
        repeatable: whether a client that is asked again gives the answer that it gave; then a round
            that failed before anything was opened may be tried again.
    """

    name: str
    cohort: tuple[int, ...]
    shape: BlockShape
    opening: Opening
    repeatable: bool


class Schedule(Protocol):
    """What everybody knows of what a federation does, in order, without a model."""

    def form(self, place: Place) -> SumForm:
        """What everybody knows of the sum of the round that begins at `place`."""

    def done(self, place: Place) -> bool:
        """Whether no round is left from `place` on."""

    def following(self, place: Place) -> Place:
        """Where the program is after the round that begins at `place`, unless a step ends early."""


class Program(Schedule, Protocol):
    """What a federation does, as everybody has it who holds the models."""

    def start(self) -> State:
        """The state before the first round."""

    def apply(self, state: State, opened: Summed) -> State:
        """The state after the round that began at `state.place`, at the next place. Pure, in
        float64, whatever computes it.
        """


class Answers(Protocol):
    """One client: its examples, its protection, and its own releases."""

    def releases(self, state: State, position: int) -> Sequence[Release]:
        """What answering would release; the gate admits it before `answer` is called.

        Args:
            state: at the place of the round.
            position: the client's place in the form's cohort.
        """

    def answer(self, state: State, position: int) -> Blocks:
        """The client's summand: integers of the form's shape, one-hot where there are pools. Raises
        TrainingError: training has diverged, or there is nothing to train on; names client, step
        and round; PrivacyError: answering would show what the client's protection is to hide.
        """
