"""Pools chosen by the exponential mechanism: a choice stays with its client, is made once a round, and outlives the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from federation.run_record import fields
from helpers import StopAfter, tiny_config, weights

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.engines import embedded
from secure_fl.federation import private_client
from secure_fl.federation.client import Client
from secure_fl.federation.cluster import Cluster
from secure_fl.federation.messages import PoolScore, ScorePools, TrainPool
from secure_fl.federation.phase import Call, ServerState
from secure_fl.federation.private_client import PrivateClient
from secure_fl.federation.release_box import ReleaseBox
from secure_fl.federation.starts import draw_pools
from secure_fl.models.state import to_vector
from secure_fl.pools.pool_set import PoolSet
from secure_fl.privacy.choice import PrivateChoice, bounded_score
from secure_fl.privacy.events import PureEvent
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.noise import NoiseSource

EXPONENTIAL = {"unit": "example", "noise": 4.0, "epsilon": 60.0, "choice": "exponential", "choice_every": 3}


@pytest.fixture(autouse=True)
def _repeatable_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(7))


def config(privacy: dict[str, Any] | None = None, **pools: Any) -> FederationConfig:
    tables = {"start": "pretrained", "rounds": 5, "local_epochs": 1, **pools}
    return tiny_config(privacy=EXPONENTIAL | (privacy or {}), pools=tables, pretrain={"rounds": 1}, evaluate={"probe_epochs": 0})


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
    """All requests from now on."""
    requests: list[object] = []
    handle = Client.handle

    def watched(self: Client, request: Any, position: int = 0) -> Any:
        requests.append(request)
        return handle(self, request, position)

    monkeypatch.setattr(Client, "handle", watched)
    return requests


def told_choices(requests: list[object]) -> list[object]:
    """What requests about pools say beside models: a round's number, whether it is forced, and bounds are public."""
    about_pools = [request for request in requests if isinstance(request, TrainPool | ScorePools)]
    assert about_pools
    public = [replace(request, round=None, forced=None, bound=None) if isinstance(request, TrainPool) else request for request in about_pools]  # type: ignore[arg-type]
    return [value for request in public for value in plain_values(request) if value is not None]


def test_no_request_carries_anybodys_choice(tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = heard(monkeypatch)
    result = Federation(config(), data=images).run(tmp_path / "run")
    assert set(result.choices) == {0, 1, 2, 3}
    assert told_choices(requests) == []
    kept = [place for file, place in fields(tmp_path / "run") if file.startswith("checkpoints/")]
    assert not [place for place in kept if "choice" in place], "nor does the server's state"


def test_a_request_that_carries_them_is_found(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Telling(TrainPool):
        held: tuple[tuple[int, int], ...] = ()

    open_ = Cluster.open

    def telling(self: Cluster) -> Call:
        call = open_(self)
        assert isinstance(call.request, TrainPool)
        return replace(call, request=Telling(**vars(call.request), held=((0, 1), (1, 0))))

    monkeypatch.setattr(Cluster, "open", telling)
    requests = heard(monkeypatch)
    Federation(config(), data=images).run()
    assert told_choices(requests) != []


def test_what_the_experimenter_reads_off_moves_nothing(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a secure sum the server's side would make the same models of anything that it was told of choices."""
    tables: dict[str, Any] = {"partition": {"clients": 6}, "security": {"protection": "masked"}, "pretrain": {"rounds": 1}}
    masked = tiny_config(privacy=EXPONENTIAL, pools={"start": "pretrained", "rounds": 4, "local_epochs": 1}, **tables)
    told = Federation(masked, data=images).run()
    add = Cluster.add

    def misled(self: Cluster, client: int, reply: Any) -> None:
        add(self, client, replace(reply, observed=PoolScore(0, (), 0.0, 0.0)))

    monkeypatch.setattr(Cluster, "add", misled)
    untold = Federation(masked, data=images).run()
    assert torch.equal(weights(told), weights(untold))
    assert any(set(record.metrics["choices"].values()) != {0} for record in told.records if record.phase == "cluster")


def test_choices_are_made_when_they_are_due_and_held_in_between(images: Dataset) -> None:
    federation = Federation(config(), data=images)
    result = federation.run()
    rounds = [record.metrics["choices"] for record in result.records if record.phase in ("cluster", "evaluate")]
    assert rounds[0] == rounds[1] == rounds[2]
    assert rounds[3] == rounds[4] == rounds[5]
    chosen = [release for release in federation._gate.ledger.releases if release.phase == "choice"]  # type: ignore[union-attr]
    assert sorted((release.round, *release.subjects) for release in chosen) == [(number, client) for number in (0, 3) for client in range(4)]


def test_who_was_not_there_chooses_when_it_is_first_called(images: Dataset) -> None:
    federation = Federation(config(participation=0.5, rounds=4), data=images)
    result = federation.run()
    called = [set(record.metrics["choices"]) for record in result.records if record.phase == "cluster"]
    chosen = {(release.round, *release.subjects) for release in federation._gate.ledger.releases if release.phase == "choice"}  # type: ignore[union-attr]
    seen: set[str] = set()
    for number, clients in enumerate(called):
        expected = clients if number % 3 == 0 else clients - seen
        assert {client for round_number, client in chosen if round_number == number} == {int(client) for client in expected}
        seen |= clients
    assert len(seen) == 4


@pytest.mark.parametrize("midway", [False, True])
def test_a_resumed_client_goes_on_with_its_own_choice(tmp_path: Path, images: Dataset, midway: bool) -> None:
    """Of all the stops one is after the second round of choosing: what was chosen then is in no request and in no checkpoint."""
    whole = Federation(config(), data=images).run()
    expected = [record.metrics["choices"] for record in whole.records if record.phase in ("cluster", "evaluate")]
    for stop in (3, 6, 7):
        out = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            Federation(config(), data=images, callbacks=[StopAfter(stop, midway=midway, at_end=True)]).run(out)
        resumed = Federation(config(), data=images).run(out, resume=True)
        assert [record.metrics["choices"] for record in resumed.records if record.phase in ("cluster", "evaluate")] == expected
        releases = PrivacyLedger.load(out / "ledger.json").releases
        assert len([release for release in releases if release.phase == "choice"]) == 8


def test_a_client_whose_choice_is_forgotten_is_found(tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReleaseBox, "find", lambda self, key: None)
    with pytest.raises(AssertionError):
        test_a_resumed_client_goes_on_with_its_own_choice(tmp_path, images, midway=False)


@pytest.mark.parametrize("stored", [True, False])
def test_one_choice_a_round_whatever_pools_are_shown(tmp_path: Path, images: Dataset, stored: bool) -> None:
    """A server that asks again, with other pools, gets the same answer: it was charged for one."""
    federation = Federation(config({"choice_epsilon": 1e-6}), data=images)
    engine = embedded.EmbeddedEngine(federation.clients, federation.blueprint, tmp_path / "results" if stored else None)
    client = engine._clients[0]
    assert isinstance(client, PrivateClient)
    state = ServerState(tensors={"encoder": to_vector(federation.blueprint.encoder())})
    pools = draw_pools(federation.blueprint, state)
    answers = set()
    for number in range(12):
        request = TrainPool(0, PoolSet(pools.shared, pools.pooled + 0.01 * number))
        answers.add((client._private_choice(request), bool([release for release in client.releases(request) if release.phase == "choice"])))
    assert len(answers) == 1, "chosen at next to no ε, twelve choices of two pools would differ"
    assert not next(iter(answers))[1], "and nothing more would be released"


# What is charged is what one example can move


def moved(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> float:
    """By how much one example of a client moves a pool's log-odds, over half of the ε that its choice is charged: at most 1."""
    losses, utilities, seen = PrivateClient._losses, PrivateChoice._utilities, list[torch.Tensor]()

    def watched(self: PrivateChoice, *given: Any) -> Any:
        seen.append(torch.from_numpy(utilities(self, *given)))
        return seen[-1].numpy()

    monkeypatch.setattr(PrivateChoice, "_utilities", watched)
    for loss in (0.0, 1e6, torch.nan):
        monkeypatch.setattr(PrivateClient, "_losses", lambda *given, loss=loss: torch.cat([torch.tensor([loss]), losses(*given)[1:]]))
        made = Federation(config(start="random"), data=images)
        (asked,) = embedded.EmbeddedEngine(made.clients[:1], made.blueprint)._clients
        request = TrainPool(0, draw_pools(made.blueprint, ServerState(tensors={"encoder": to_vector(made.blueprint.encoder())})))
        event = asked.releases(request)[0].event
        assert isinstance(event, PureEvent)
        asked.handle(request)
    return max(float((one - other).abs().max()) for one in seen for other in seen) / (event.epsilon / 2)


def test_one_example_moves_a_choice_by_what_is_charged(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert moved(images, monkeypatch) == pytest.approx(1)


FAULTS: dict[str, Callable[[torch.Tensor, float, int], float]] = {
    "too large": lambda losses, bound, size: min(bound, 1.5 * bounded_score(losses, bound, size)),
    "not cut": lambda losses, bound, size: min(bound, float(losses.nan_to_num(nan=bound).sum()) / size),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_choice_that_one_example_moves_further_is_found(fault: str, images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_client, "bounded_score", FAULTS[fault])
    assert moved(images, monkeypatch) > 1.4
