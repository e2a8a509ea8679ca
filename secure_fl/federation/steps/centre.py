"""Released sketches only: the centre that sketches are taken from."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from secure_fl.federation.asks import GiveCentre
from secure_fl.federation.observe import Seen
from secure_fl.federation.program import SumForm
from secure_fl.federation.state import State
from secure_fl.federation.steps.step import Answer, Step
from secure_fl.federation.summing import Summed
from secure_fl.secure_sum.grid import Grid

if TYPE_CHECKING:
    from secure_fl.federation.client import Client


class Centre(Step):
    """Average the clients' noised mean examples into the centre that sketches are taken from.

    Opened once, over the clients that answer: nothing of it stands still between two openings, and
    each summand has noise of its own.
    """

    name = "centre"

    @property
    def rounds(self) -> int:
        return 1

    @cached_property
    def grid(self) -> Grid:
        """One vector of a mean example, whose length is 1 at most."""
        return self.factory.unit_grid(self.factory.sketch.inputs)

    def form(self, round_number: int) -> SumForm:
        return self.on_grid(self.grid)

    def ask(self, state: State) -> GiveCentre:
        return GiveCentre()

    def answer(self, ask: GiveCentre, client: Client, position: int) -> Answer:
        return Answer(self.grid.blocks(client.sketch.centre(ask).float(), 0), Seen())

    def apply(self, state: State, opened: Summed) -> State:
        centre = self.grid.sums(opened.total) / opened.survivors
        return state.with_values({"sketch.public_centre": centre})
