"""One client. It holds a replica's steps, its own examples, and a protection; it answers for its
place in a round, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from secure_fl.data.partitions import ClientData
from secure_fl.errors import TrainingError
from secure_fl.federation.asks import Ask, GiveSketch
from secure_fl.federation.local.local import Local
from secure_fl.federation.local.sketches import ClientSketch, client_sketch
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.observe import Seen
from secure_fl.federation.protections.client_level import ClientLevel
from secure_fl.federation.protections.example_level import ExampleLevel
from secure_fl.federation.protections.open import Open
from secure_fl.federation.protections.protection import Protection
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.releasing import Releasing
from secure_fl.federation.state import State
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.steps.step import Answer, Step
from secure_fl.privacy.ledger import Charges, Release
from secure_fl.privacy.noise import NoiseSource
from secure_fl.secure_sum.grid import Blocks


class Client:
    """Answers of one client; see `program.Answers`. It keeps nothing between rounds but what it has
    released.

    Attributes:
        local: its examples, and what it computes with.
        protection: what may leave it.
    """

    def __init__(self, program: StepProgram, local: Local, protection: Protection) -> None:
        self._program, self.local, self.protection = program, local, protection

    @classmethod
    def of(
        cls,
        program: StepProgram,
        data: ClientData,
        bench: Workbench,
        noise: NoiseSource,
        box: ReleaseBox,
        already: tuple[Charges, ...] = ((),),
    ) -> Client:
        """A client with the protection and the kind of sketch that the configuration asks for.

        Args:
            program: of the federation.
            data: its examples.
            bench: modules, which clients of one process share.
            noise: the source of its noise.
            box: where what it releases is stored.
            already: what earlier runs may have released of it, a history each.
        """
        config, plan = bench.factory.facts.config, bench.factory.client_plan
        if plan is not None:
            local = Local(data, bench)
            return cls(program, local, ClientLevel(local, plan, noise, box))
        releasing = Releasing(data.id, noise, box)
        sketches = config.pools.enabled and config.pools.start == "sketch"
        sketch = client_sketch(data, bench, releasing) if sketches else None
        local = Local(data, bench, sketch)
        if config.privacy.unit == "example":
            return cls(program, local, ExampleLevel(local, releasing, already))
        return cls(program, local, Open(local))

    @property
    def sketch(self) -> ClientSketch:
        """What the client answers about its sketch. Raises ConfigError: pools do not start from
        sketches.
        """
        return self.local.sketch

    def releases(self, state: State, position: int) -> Sequence[Release]:
        ask = self._program.ask(state)
        self._take_up(state)
        return (*self._sketched(ask), *self.protection.releases(ask, position))

    def answer(self, state: State, position: int) -> Blocks:
        return self.answered(state, position).blocks

    def answered(self, state: State, position: int) -> Answer:
        """As `answer`, with what a simulation reads off the client beside."""
        step, ask = self._program.step(state.place), self._program.ask(state)
        self.protection.check(ask)
        self._take_up(state)
        try:
            return step.answer(ask, self, position)
        except TrainingError as error:
            where = f"client {self.local.data.id}, phase {step.name}"
            raise error.within(f"{where}, round {state.place.round + 1}") from error

    def scored(self, step: Step, state: State, position: int) -> Seen:
        """The pool that the client would choose, and how it fares there: for the experimenter;
        nothing of it leaves a client.
        """
        self._take_up(state)
        return Seen(score=self.protection.choose(step.ask(state), position))

    def recalled(self, state: State) -> Sequence[Release]:
        """What `recall` would release, where the stored sketch is gone."""
        self._take_up(state)
        return self._sketched(self._given(state))

    def recall(self, state: State) -> None:
        """Take up again the sketch that was released before this process began. It is taken from
        where it is stored, and released anew where it is gone.
        """
        self._take_up(state)
        self.sketch.give(self._given(state))

    def _given(self, state: State) -> GiveSketch:
        return GiveSketch(state.tensors.get("sketch.public_centre"))

    def _sketched(self, ask: Ask) -> tuple[Release, ...]:
        own = self.local.own_sketch
        return () if own is None else own.releases(ask)

    def _take_up(self, state: State) -> None:
        """Fresh batch counters, and the replica's encoder where pools or sketches need it."""
        bench = self.local.bench
        bench.restart()
        if bench.factory.facts.config.keeps_encoder and "encoder" in state.tensors:
            bench.keep(state.tensors["encoder"])
