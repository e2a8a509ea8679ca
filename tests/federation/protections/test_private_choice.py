"""Pools chosen by the exponential mechanism: a choice stays with its client, is made once a round,
and outlives the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from federation.parts import drawn, engine_of
from federation.run_folder.run_record import fields
from helpers import StopAfter, tiny_config, weights

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.engines import embedded
from secure_fl.federation.asks import PoolScore, ScorePools, TrainPool
from secure_fl.federation.client import Client
from secure_fl.federation.protections import example_level
from secure_fl.federation.protections.example_level import ExampleLevel
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.state import State
from secure_fl.federation.steps.cluster import Cluster
from secure_fl.federation.steps.pools import draw_pools
from secure_fl.pools.pool_set import PoolSet
from secure_fl.privacy.choice import PrivateChoice, bounded_score
from secure_fl.privacy.events import PureEvent
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.noise import NoiseSource

EXPONENTIAL = {
    "unit": "example",
    "noise": 4.0,
    "epsilon": 60.0,
    "choice": "exponential",
    "choice_every": 3,
}


@pytest.fixture(autouse=True)
def _repeatable_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(7))


def config(privacy: dict[str, Any] | None = None, **pools: Any) -> FederationConfig:
    tables = {"start": "pretrained", "rounds": 5, "local_epochs": 1, **pools}
    return tiny_config(
        privacy=EXPONENTIAL | (privacy or {}),
        pools=tables,
        pretrain={"rounds": 1},
        evaluate={"probe_epochs": 0},
    )


def plain_values(message: object) -> Iterator[object]:
    """Every value of a message that is no tensor."""
    if is_dataclass(message) and not isinstance(message, type):
        for value in vars(message).values():
            yield from plain_values(value)
    elif isinstance(message, dict):
        for item in message.items():
            yield from plain_values(item)
    elif isinstance(message, tuple | list):
        for value in message:
            yield from plain_values(value)
    elif not isinstance(message, torch.Tensor):
        yield message


def heard(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """All that is asked from now on."""
    asks: list[object] = []
    answered = Client.answered

    def watched(self: Client, state: State, position: int) -> Any:
        asks.append(self._program.ask(state))
        return answered(self, state, position)

    monkeypatch.setattr(Client, "answered", watched)
    return asks


def told_choices(asks: list[object]) -> list[object]:
    """What is asked about pools beside models: a round's number, whether it is forced, and bounds
    are public.
    """
    about_pools = [ask for ask in asks if isinstance(ask, TrainPool | ScorePools)]
    assert about_pools
    public = [
        replace(ask, round=None, forced=None, bound=None) if isinstance(ask, TrainPool) else ask
        for ask in about_pools
    ]  # type: ignore[arg-type]
    return [value for ask in public for value in plain_values(ask) if value is not None]


def test_no_ask_carries_anybodys_choice(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = heard(monkeypatch)
    result = Federation(config(), data=images).run(tmp_path / "run")
    assert set(result.choices) == {0, 1, 2, 3}
    assert told_choices(asks) == []
    kept = [place for file, place in fields(tmp_path / "run") if file.startswith("checkpoints/")]
    assert not [place for place in kept if "choice" in place], "nor does the replicated state"


def test_an_ask_that_carries_them_is_found(
    images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True)
    class Telling(TrainPool):
        held: tuple[tuple[int, int], ...] = ()

    ask = Cluster.ask
    monkeypatch.setattr(
        Cluster, "ask", lambda self, state: Telling(**vars(ask(self, state)), held=((0, 1), (1, 0)))
    )
    asks = heard(monkeypatch)
    Federation(config(), data=images).run()
    assert told_choices(asks) != []


def test_what_the_experimenter_reads_off_moves_nothing(
    images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models and pools follow from what is summed, whatever is read off the clients beside."""
    tables: dict[str, Any] = {
        "partition": {"clients": 6},
        "security": {"protection": "masked"},
        "pretrain": {"rounds": 1},
    }
    masked = tiny_config(
        privacy=EXPONENTIAL, pools={"start": "pretrained", "rounds": 4, "local_epochs": 1}, **tables
    )
    told = Federation(masked, data=images).run()
    answer = Cluster.answer

    def misled(self: Cluster, *given: Any) -> Any:
        made = answer(self, *given)
        return replace(made, seen=replace(made.seen, score=PoolScore(0, (), 0.0, 0.0)))

    monkeypatch.setattr(Cluster, "answer", misled)
    untold = Federation(masked, data=images).run()
    assert torch.equal(weights(told), weights(untold))
    assert any(
        set(record.metrics.choices.values()) != {0}
        for record in told.records
        if record.phase == "cluster"
    )


def test_choices_are_made_when_they_are_due_and_held_in_between(images: Dataset) -> None:
    federation = Federation(config(), data=images)
    result = federation.run()
    rounds = [
        record.metrics.choices
        for record in result.records
        if record.phase in ("cluster", "evaluate")
    ]
    assert rounds[0] == rounds[1] == rounds[2]
    assert rounds[3] == rounds[4] == rounds[5]
    chosen = [release for release in federation._gate.ledger.releases if release.phase == "choice"]  # type: ignore[union-attr]
    assert sorted((release.round, *release.subjects) for release in chosen) == [
        (number, client) for number in (0, 3) for client in range(4)
    ]


def test_who_was_not_there_chooses_when_it_is_first_called(images: Dataset) -> None:
    federation = Federation(config(participation=0.5, rounds=4), data=images)
    result = federation.run()
    called = [set(record.metrics.choices) for record in result.records if record.phase == "cluster"]
    chosen = {
        (release.round, *release.subjects)
        for release in federation._gate.ledger.releases
        if release.phase == "choice"
    }  # type: ignore[union-attr]
    seen: set[str] = set()
    for number, clients in enumerate(called):
        expected = clients if number % 3 == 0 else clients - seen
        assert {client for round_number, client in chosen if round_number == number} == {
            int(client) for client in expected
        }
        seen |= clients
    assert len(seen) == 4


@pytest.mark.parametrize("midway", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_resumed_client_goes_on_with_its_own_choice(
    tmp_path: Path, images: Dataset, midway: bool
) -> None:
    """Of all the stops one is after the second round of choosing: what was chosen then is in no ask
    and in no checkpoint.
    """
    whole = Federation(config(), data=images).run()
    expected = [
        record.metrics.choices
        for record in whole.records
        if record.phase in ("cluster", "evaluate")
    ]
    for stop in (3, 6, 7):
        out = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            Federation(
                config(), data=images, callbacks=[StopAfter(stop, midway=midway, at_end=True)]
            ).run(out)
        resumed = Federation(config(), data=images).run(out, resume=True)
        assert [
            record.metrics.choices
            for record in resumed.records
            if record.phase in ("cluster", "evaluate")
        ] == expected
        releases = PrivacyLedger.load(out / "ledger.json").releases
        assert len([release for release in releases if release.phase == "choice"]) == 8


def test_a_client_whose_choice_is_forgotten_is_found(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReleaseBox, "find", lambda self, key: None)
    with pytest.raises(AssertionError):
        test_a_resumed_client_goes_on_with_its_own_choice(tmp_path, images, midway=False)


@pytest.mark.parametrize("stored", [True, False])
def test_one_choice_a_round_whatever_pools_are_shown(
    tmp_path: Path, images: Dataset, stored: bool
) -> None:
    """A server that asks again, with other pools, gets the same answer: it was charged for one."""
    federation = Federation(config({"choice_epsilon": 1e-6}), data=images)
    client = engine_of(federation, tmp_path / "results" if stored else None).clients[0].protection
    assert isinstance(client, ExampleLevel)
    pools = draw_pools(federation.factory, drawn(federation))
    answers = set()
    for number in range(12):
        ask = TrainPool(0, PoolSet(pools.shared, pools.pooled + 0.01 * number))
        answers.add(
            (
                client._private_choice(ask),
                bool([release for release in client.releases(ask, 0) if release.phase == "choice"]),
            )
        )
    assert len(answers) == 1, "chosen at next to no ε, twelve choices of two pools would differ"
    assert not next(iter(answers))[1], "and nothing more would be released"


# What is charged is what one example can move


def moved(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> float:
    """By how much one example of a client moves a pool's log-odds, over half of the ε that its
    choice is charged: at most 1.
    """
    losses, utilities, seen = ExampleLevel._losses, PrivateChoice._utilities, list[torch.Tensor]()

    def watched(self: PrivateChoice, *given: Any) -> Any:
        seen.append(torch.from_numpy(utilities(self, *given)))
        return seen[-1].numpy()

    monkeypatch.setattr(PrivateChoice, "_utilities", watched)
    for loss in (0.0, 1e6, torch.nan):
        monkeypatch.setattr(
            ExampleLevel,
            "_losses",
            lambda *given, loss=loss: torch.cat([torch.tensor([loss]), losses(*given)[1:]]),
        )
        made = Federation(config(start="random"), data=images)
        (asked,) = engine_of(made, clients=made.clients[:1]).clients
        ask = TrainPool(0, draw_pools(made.factory, drawn(made)))
        event = asked.protection.releases(ask, 0)[0].event
        assert isinstance(event, PureEvent)
        asked.protection.choose(ask, 0)
    return max(float((one - other).abs().max()) for one in seen for other in seen) / (
        event.epsilon / 2
    )


def test_one_example_moves_a_choice_by_what_is_charged(
    images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert moved(images, monkeypatch) == pytest.approx(1)


FAULTS: dict[str, Callable[[torch.Tensor, float, int], float]] = {
    "too large": lambda losses, bound, size: min(bound, 1.5 * bounded_score(losses, bound, size)),
    "not cut": lambda losses, bound, size: min(
        bound, float(losses.nan_to_num(nan=bound).sum()) / size
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_choice_that_one_example_moves_further_is_found(
    fault: str, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_level, "bounded_score", FAULTS[fault])
    assert moved(images, monkeypatch) > 1.4
