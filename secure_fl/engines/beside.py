"""A simulated client's program and answers, with somebody who watches beside them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from secure_fl.federation.client import Client
from secure_fl.federation.observe import Seen
from secure_fl.federation.place import Place
from secure_fl.federation.program import SumForm
from secure_fl.federation.state import State
from secure_fl.federation.step_program import StepProgram
from secure_fl.privacy.ledger import Release
from secure_fl.secure_sum.grid import Blocks


class ProgramBeside:
    """A program that begins where a run goes on; who watches adds `apply`."""

    def __init__(self, program: StepProgram, first: State) -> None:
        self.program, self.first = program, first

    def start(self) -> State:
        """Where the run goes on."""
        return self.first

    def form(self, place: Place) -> SumForm:
        """As the program's."""
        return self.program.form(place)

    def done(self, place: Place) -> bool:
        """As the program's."""
        return self.program.done(place)

    def following(self, place: Place) -> Place:
        """As the program's."""
        return self.program.following(place)


class AnswersBeside(ABC):
    """One client's answers, read off as they are made."""

    def __init__(self, client: Client, number: int) -> None:
        self._client, self._number = client, number

    def releases(self, state: State, position: int) -> Sequence[Release]:
        """None: the run's own gate admits a whole round before it is called."""
        return ()

    def answer(self, state: State, position: int) -> Blocks:
        """The client's summand."""
        started = time.perf_counter()
        try:
            answer = self._client.answered(state, position)
        except Exception as error:
            self._failed(error)
            raise
        self._answered(answer.seen, time.perf_counter() - started)
        return answer.blocks

    @abstractmethod
    def _answered(self, seen: Seen, seconds: float) -> None:
        """Tell what was read off, and how long the answer took."""

    @abstractmethod
    def _failed(self, error: Exception) -> None:
        """Tell why there is no answer; what this raises stands in place of the error."""
