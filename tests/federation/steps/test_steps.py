"""Programs of steps.

Pure functions of plan, place, state and opened sums, the same wherever they are computed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from federation.parts import engine_of, program_of, summed
from helpers import tiny_config

from secure_fl import Dataset, Federation
from secure_fl.config import PrivacyConfig
from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.engines.recorder import Recorder
from secure_fl.engines.rounds import Rounds
from secure_fl.errors import PrivacyError
from secure_fl.estimate import sample_state
from secure_fl.federation.client import Client
from secure_fl.federation.observe import Seen
from secure_fl.federation.program import SumForm
from secure_fl.federation.releases.budget import BudgetGate
from secure_fl.federation.state import Place, State
from secure_fl.federation.steps.evaluate import Evaluate
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.steps.restarts import Restarts
from secure_fl.federation.steps.step import Answer, Step
from secure_fl.federation.summing import Summed
from secure_fl.secure_sum.grid import Grid

STARTS: dict[str, dict[str, Any]] = {
    "sketch": {},
    "protected": {"security": {"protection": "masked"}, "partition": {"clients": 6}},
    "restarts": {"pools": {"start": "restarts", "restart_attempts": 2}},
    "farthest": {"pools": {"start": "farthest"}},
}


def made(start: str, images: Dataset) -> Federation:
    return Federation(tiny_config(**STARTS[start]), data=images)


def rounds_of(federation: Federation) -> Iterator[tuple[StepProgram, State, Summed]]:
    """Every round of a federation: its program, the state as it begins, and what is opened."""
    program, engine = program_of(federation), engine_of(federation)
    state = program.start()
    while not program.done(state.place):
        opened, _ = summed(program, engine, state)
        yield program, state, opened
        state = program.apply(state, opened)


@pytest.mark.parametrize("start", STARTS)
def test_replicas_of_one_plan_and_the_same_sums_are_equal(start: str, images: Dataset) -> None:
    """One is made anew from bytes in every round, as a client's is that comes back."""
    federation = made(start, images)
    other = program_of(made(start, images))
    replica, names = other.start(), list[str]()
    for program, state, opened in rounds_of(federation):
        assert replica.digest == state.digest
        replica = other.apply(State.decode(replica.encode()), opened)
        names.append(program.step(state.place).name)
    assert other.done(replica.place)
    assert list(dict.fromkeys(names)) == list(other.names)


@pytest.mark.parametrize("start", STARTS)
def test_nothing_is_written_to_a_state(start: str, images: Dataset) -> None:
    for program, state, opened in rounds_of(made(start, images)):
        kept = {name: tensor.clone() for name, tensor in state.tensors.items()}
        step = program.step(state.place)
        first, second = program.apply(state, opened), program.apply(state, opened)
        assert first.digest == second.digest
        step.ask(state)
        step.monitor(state, opened)
        assert (
            State(state.place, kept, state.facts).digest
            == State(state.place, state.tensors, state.facts).digest
        )


def test_forms_need_no_state(images: Dataset) -> None:
    """Before the first round a server knows every sum.

    Shapes, bounds, cohorts and opening rules.
    """
    federation = made("protected", images)
    known = program_of(federation)
    forms = {
        Place(number, place): known.form(Place(number, place))
        for number, step in enumerate(known.steps)
        for place in range(step.rounds)
    }
    for program, state, _ in rounds_of(federation):
        assert program.form(state.place) == forms[state.place]


def test_who_knows_the_forms_imports_nothing_of_clients() -> None:
    """A server drives a program without what computes answers, keeps releases or chooses."""
    code = (
        "import sys, secure_fl.federation.steps.program, secure_fl.federation.steps.order;"
        "print([name for name in sys.modules if name.startswith('secure_fl.federation.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "steps.cluster" in done.stdout
    for room in ("client'", "local", "protections", "releases.box"):
        assert f"federation.{room}" not in done.stdout


def test_k_means_that_has_settled_ends_its_step_early(images: Dataset) -> None:
    federation = Federation(tiny_config(pools={"sketch_iterations": 50}), data=images)
    places = [state.place for _, state, _ in rounds_of(federation)]
    step = program_of(federation).names.index("sketch")
    of_sketch = [place.round for place in places if place.step == step]
    assert of_sketch == list(range(len(of_sketch)))
    assert 2 < len(of_sketch) < 51
    assert places[places.index(Place(step, of_sketch[-1])) + 1] == Place(step + 1, 0)


@pytest.mark.parametrize("start", STARTS)
def test_the_monitor_works_from_opened_sums_alone(start: str, images: Dataset) -> None:
    """What the experimenter counts of the clients, the sums say."""
    federation = made(start, images)
    program, engine = program_of(federation), engine_of(federation)
    state, counted = program.start(), 0
    while not program.done(state.place):
        opened, seen = summed(program, engine, state)
        step = program.step(state.place)
        choices = [each.score.choice for each in seen.values() if each.score is not None]
        monitored = step.monitor(state, opened)
        if choices:
            told = monitored if monitored.pools is None else monitored.pools
            assert told.counts is not None
            assert list(told.counts) == [choices.count(pool) for pool in range(2)]
            counted += 1
        state = program.apply(state, opened)
    assert counted >= 4


class Labelled(Step):
    """A kind of step that nobody has thought of before.

    How many examples clients have of each class, as shares of the largest client's.
    """

    name = "labelled"
    rounds = 2

    @property
    def grid(self) -> Grid:
        return self.factory.unit_grid(self.factory.facts.classes)

    def form(self, round_number: int) -> SumForm:
        return self.on_grid(self.grid)

    def ask(self, state: State) -> int:
        return self.factory.facts.classes

    def answer(self, ask: int, client: Client, position: int) -> Answer:
        counts = client.local.data.train.y.bincount(minlength=ask) / self.factory.facts.largest
        return Answer(self.grid.blocks(counts.float(), 0), Seen())

    def apply(self, state: State, opened: Summed) -> State:
        return state.with_values({"shares": self.grid.sums(opened.total)})

    def ended(self, state: State) -> bool:
        return True


@pytest.mark.parametrize("protection", ["plain", "masked", "bfv+masked"])
def test_a_new_kind_of_step_is_one_class(protection: str, images: Dataset) -> None:
    tables = {"security": {"protection": protection}, "partition": {"clients": 6}}
    federation = Federation(tiny_config(**tables), data=images)
    program = StepProgram(federation.factory, [Labelled(federation.factory)])
    engine = EmbeddedEngine(federation.clients, program)
    gate, heard = BudgetGate(PrivacyConfig(), None), list[int]()
    recorder = Recorder(None, federation.config, 6)
    rounds = Rounds(
        program, engine, gate, [None] * 6, lambda *told: heard.append(told[0]), recorder
    )
    state, record = rounds.run(program.start())
    counts = torch.stack([client.train.y.bincount(minlength=3) for client in federation.clients])
    shares = counts.sum(0).double() / federation.factory.facts.largest
    assert torch.allclose(state.tensors["shares"], shares, atol=1e-3)
    assert program.done(state.place)
    assert (record.phase, record.round, record.clients) == ("labelled", 1, 6)
    assert heard == list(range(6))


@pytest.mark.parametrize(
    "privacy",
    [
        {"unit": "client", "noise": 2.0, "epsilon": 500.0, "min_clients": 3},
        {"unit": "example", "noise": 2.0, "epsilon": 60.0},
    ],
    ids=["client", "example"],
)
@pytest.mark.parametrize("kind", [Labelled, Restarts, Evaluate])
def test_what_no_mechanism_covers_is_not_answered_under_privacy(
    kind: type[Step], privacy: dict[str, Any], images: Dataset
) -> None:
    """Whoever thought of the step, and although the protection could compute it."""
    federation = Federation(tiny_config(privacy=privacy), data=images)
    program = StepProgram(federation.factory, [kind(federation.factory)])
    client = EmbeddedEngine(federation.clients, program).clients[0]
    state = sample_state(federation.factory)
    assert program.ask(state) is not None
    with pytest.raises(PrivacyError, match="not answered"):
        client.answer(state, 0)
