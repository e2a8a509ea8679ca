"""The program that a plan asks for: its steps in order, as one replicated computation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.program import SumForm
from secure_fl.federation.state import Place, State
from secure_fl.federation.steps.step import Step
from secure_fl.federation.summing import Summed


class StepProgram:
    """A `Program` made of steps.

    **Guarantee**: `form` and `done` follow from the steps and the place; `apply` from these, the
    state and what was opened.

    **Assumes**: everybody makes it of the same factory, steps and initial tensors.
    """

    def __init__(
        self,
        factory: Factory,
        steps: Sequence[Step],
        initial: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`initial`: what the program begins with, such as an encoder from elsewhere."""
        self.factory, self.facts, self.steps = factory, factory.facts, tuple(steps)
        self._initial = dict(initial or {})
        self._asked: tuple[State, Any] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the steps, in order."""
        return tuple(step.name for step in self.steps)

    def step(self, place: Place) -> Step:
        """The step under way at `place`."""
        return self.steps[place.step]

    def start(self) -> State:
        return self.entered(State(Place(0, 0), self._initial))

    def entered(self, state: State) -> State:
        """The state with what its step begins with; the same again where the step has begun."""
        return state if self.done(state.place) else self.step(state.place).enter(state)

    def form(self, place: Place) -> SumForm:
        return self.step(place).form(place.round)

    def done(self, place: Place) -> bool:
        return place.step >= len(self.steps)

    def following(self, place: Place) -> Place:
        if place.round + 1 < self.step(place).rounds:
            return Place(place.step, place.round + 1)
        return Place(place.step + 1, 0)

    def ask(self, state: State) -> Any:
        """What clients are to compute at `state.place`; made once for all clients of a process."""
        if self._asked is None or self._asked[0] is not state:
            self._asked = (state, self.step(state.place).ask(state))
        return self._asked[1]

    def apply(self, state: State, opened: Summed) -> State:
        step, place = self.step(state.place), state.place
        moved = step.apply(state, opened)
        following = self.following(place)
        if following.step == place.step and not step.ended(moved):
            return moved.at(following)
        return self.entered(moved.at(Place(place.step + 1, 0)))
