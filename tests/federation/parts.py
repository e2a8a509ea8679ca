"""A federation's program, clients and states, made by hand for tests of single steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from federation.sums import OpenSum
from torch import Tensor

from secure_fl import Federation
from secure_fl.data.partitions import ClientData
from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.federation.observe import Seen
from secure_fl.federation.program import SumForm
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.state import Place, State
from secure_fl.federation.steps.order import steps_of
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.summing import Opening, Summed
from secure_fl.models.state import to_vector
from secure_fl.secure_sum.grid import Grid


def program_of(federation: Federation) -> StepProgram:
    return StepProgram(federation.factory, steps_of(federation.factory))


def engine_of(
    federation: Federation,
    results: ReleaseBox | Path | None = None,
    clients: Sequence[ClientData] | None = None,
) -> EmbeddedEngine:
    return EmbeddedEngine(clients or federation.clients, program_of(federation), results)


def state_at(
    federation: Federation, name: str, number: int = 0, **tensors: Tensor
) -> tuple[StepProgram, State]:
    """A program, and a state at one of its steps.

    What that begins with, after the tensors given and a fresh encoder.
    """
    program = program_of(federation)
    encoder = to_vector(federation.factory.encoder())
    place = Place(program.names.index(name), number)
    return program, program.entered(State(place, {"encoder": encoder} | tensors))


def drawn(federation: Federation) -> State:
    """A state with a fresh encoder, from which pools are drawn."""
    return State(Place(0, 0), {"encoder": to_vector(federation.factory.encoder())})


def summed(
    program: StepProgram, engine: EmbeddedEngine, state: State
) -> tuple[Summed, dict[int, Seen]]:
    """The sum of everybody's answers at a state, in the open, and what is read off the clients."""
    total, seen = OpenSum(), dict[int, Seen]()
    for position, client in enumerate(program.form(state.place).cohort):
        answer = engine.clients[client].answered(state, position)
        total.add(client, answer.blocks)
        seen[client] = answer.seen
    return total.open(), seen


def form_on(grid: Grid, cohort: Sequence[int], **rules: Any) -> SumForm:
    """The form of a sum on a grid."""
    opening = Opening(grid.codec.bound, **rules)
    return SumForm("pretrain", tuple(cohort), grid.frame.shape, opening, repeatable=False)
