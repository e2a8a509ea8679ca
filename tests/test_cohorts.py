"""Rounds whose sums would show somebody, or whose pools could never be opened, are refused before
anything trains.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import make_images, tiny_config

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.config import SecurityConfig
from secure_fl.errors import ConfigError
from secure_fl.federation.client import Client
from secure_fl.federation.plan import Plan
from secure_fl.federation.run_folder.secrecy import secrecy
from secure_fl.federation.state import State
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.steps.step import Answer
from secure_fl.federation.summing import Summed
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.robust import draw_groups

OPEN = {"protection": "plain"}


@pytest.mark.parametrize(
    ("tables", "field", "named"),
    [
        (
            {"partition": {"clients": 8}},
            "partition.clients",
            "pools.count x security.min_pool_clients = 3 x 3 = 9",
        ),
        ({"pools": {"count": 5}}, "partition.clients", "5 x 3 = 15"),
        ({"security": {"min_pool_clients": 5}}, "partition.clients", "3 x 5 = 15"),
        (
            {"security": {"protection": "masked", "min_pool_clients": 5}},
            "partition.clients",
            "3 x 5 = 15",
        ),
        (
            {"pools": {"participation": 0.5}},
            "pools.participation",
            "6 of 12 clients a round cannot fill every pool: pools.count x security.min_pool",
        ),
        ({"pretrain": {"participation": 0.2}}, "pretrain.participation", "2 of 12 clients a round"),
        (
            {"partition": {"clients": 2}, "pools": {"enabled": False}},
            "partition.clients",
            "shows each to the others",
        ),
        ({"partition": {"clients": 1}, "pools": {"count": 1}}, "partition.clients", "1 of 1"),
        (
            {"partition": {"clients": 2}, "pools": {"count": 1}, "pretrain": {"mode": "none"}},
            "partition.clients",
            "1 x 3 = 3",
        ),
        (
            {"partition": {"clients": 3}, "pools": {"count": 4}, "security": OPEN},
            "pools.count",
            "3 clients (partition.clients)",
        ),
        (
            {"privacy": {"unit": "client", "min_clients": 13}},
            "privacy.min_clients",
            "12 clients (partition.clients)",
        ),
        (
            {"privacy": {"unit": "client", "min_clients": 2}},
            "privacy.min_clients",
            "security.min_pool_clients",
        ),
        (
            {"privacy": {"unit": "client", "min_clients": 3}, "security": {"min_pool_clients": 4}},
            "privacy.min_clients",
            "security.min_pool_clients = 4",
        ),
        (
            {"privacy": {"unit": "client", "min_clients": 5, "colluders": 5}},
            "privacy.min_clients",
            "privacy.colluders = 5",
        ),
        (
            {"security": {"min_pool_clients": 2}},
            "security.min_pool_clients",
            "greater than or equal to 3",
        ),
        ({"security": {"protection": "bfv"}}, "security.protection", "bfv+masked"),
        ({"security": {"protection": "ckks"}}, "security.protection", "bfv+masked"),
    ],
)
def test_cohorts_that_do_not_fit_are_refused_by_both_settings(
    tables: dict[str, Any], field: str, named: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        FederationConfig(**tables)
    assert caught.value.field == field
    assert named in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"partition": {"clients": 9}},
        {"pools": {"participation": 0.75}},
        {"pretrain": {"participation": 0.25}},
        {"partition": {"clients": 3}, "pools": {"count": 1}},
        {"partition": {"clients": 3}, "pools": {"enabled": False}},
        {"partition": {"clients": 1}, "pools": {"count": 1}, "security": OPEN},
        {
            "partition": {"clients": 4},
            "pools": {"count": 4, "participation": 0.3},
            "security": OPEN,
        },
        {"privacy": {"unit": "client", "min_clients": 3}},
        {"privacy": {"unit": "client"}},
        {"partition": {"kind": "natural", "clients": 1}},
    ],
)
def test_cohorts_that_just_fit_are_accepted(tables: dict[str, Any]) -> None:
    FederationConfig(**tables)


@pytest.mark.parametrize("share", [0.1, 0.37, 0.5, 0.74])
def test_the_remedy_for_a_small_share_is_enough(share: float) -> None:
    with pytest.raises(ConfigError) as caught:
        FederationConfig(partition={"clients": 23}, pools={"count": 6, "participation": share})
    enough = float(caught.value.remedy.removeprefix("at least ").partition(",")[0])
    FederationConfig(partition={"clients": 23}, pools={"count": 6, "participation": enough})


def test_clients_that_the_data_bring_are_counted_too() -> None:
    parts = [make_images(30, seed=number) for number in range(5)]
    data = Dataset.from_clients([(part.x, part.y) for part in parts])
    natural = {"partition": {"kind": "natural"}, "pools": {"count": 2}}
    with pytest.raises(ConfigError, match=r"2 x 3 = 6") as caught:
        Federation(FederationConfig(**natural), data=data)
    assert caught.value.field == "partition.clients"
    with pytest.raises(ConfigError, match="more pools than"):
        Federation(
            FederationConfig(partition={"kind": "natural"}, pools={"count": 6}, security=OPEN),
            data=data,
        )
    Federation(FederationConfig(partition={"kind": "natural"}, pools={"count": 1}), data=data)


def exposed(config: FederationConfig, images: Dataset, monkeypatch: pytest.MonkeyPatch) -> int:
    """Client's updates that another client of its pool gets by taking its own vector off what
    was opened.
    """
    rounds: list[tuple[dict[int, Blocks], Summed]] = []
    own, answered, apply = dict[int, Blocks](), Client.answered, StepProgram.apply

    def watched(client: Client, state: State, position: int) -> Answer:
        answer = answered(client, state, position)
        own[client.local.data.id] = answer.blocks
        return answer

    def applied(program: StepProgram, state: State, opened: Summed) -> State:
        rounds.append((dict(own), opened))
        own.clear()
        return apply(program, state, opened)

    monkeypatch.setattr(Client, "answered", watched)
    monkeypatch.setattr(StepProgram, "apply", applied)
    Federation(config, data=images).run()
    found = 0
    for own, summed in rounds:
        if len(summed.total.head) != config.pools.count:
            continue
        for reader, mine in own.items():
            pool = int(mine.head.argmax())
            others = [blocks.pools[pool] for client, blocks in own.items() if client != reader]
            rest = summed.total.pools[pool] - mine.pools[pool]
            found += any(bool(theirs.any()) and torch.equal(rest, theirs) for theirs in others)
    return found


@pytest.mark.parametrize(("clients", "fewest"), [(4, 2), (6, 3)])
def test_nobody_reads_a_neighbours_update_off_a_pool(
    clients: int, fewest: int, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault put back: with pools of two, which the settings refuse, clients read
    each other's.
    """
    pools = {"rounds": 2, "local_epochs": 1, "warmup_rounds": 1}
    tables = {
        "pretrain": {"mode": "none"},
        "pools": pools,
        "evaluate": {"enabled": False},
        "privacy": {"sketch_epsilon": 50.0},
    }
    config = tiny_config(
        partition={"clients": 6, "groups": 2}, security={"protection": "masked"}, **tables
    )
    if fewest < 3:
        with pytest.raises(ConfigError, match="min_pool_clients"):
            SecurityConfig(min_pool_clients=fewest)
        monkeypatch.setattr("secure_fl.config.federation.cohort_rules", lambda *_: ())
        monkeypatch.setattr(Plan, "config", property(lambda _: config))  # no plan may say so either
        security = config.security.model_copy(update={"min_pool_clients": fewest})
        config = config.model_copy(
            update={
                "security": security,
                "partition": config.partition.model_copy(update={"clients": clients}),
            }
        )
    assert (exposed(config, images, monkeypatch) > 0) == (fewest < 3)


@pytest.mark.parametrize("clients", [27, 29, 30, 31, 35, 36, 53])
def test_claims_count_the_groups_that_are_summed(clients: int) -> None:
    """A group of ten falls to 4 colluders of a lying server where one of nine takes 5."""
    security: dict[str, Any] = {"robust": "median", "group_size": 9}
    config = FederationConfig(
        partition={"clients": clients}, security=security, pools={"enabled": False}
    )
    groups = draw_groups([str(number) for number in range(clients)], 9, b"seed")
    assert config.cohorts(clients) == {len(group) for group in groups}
    stated = config.weakest_sums(clients)
    assert stated.against_a_lying_server == min(
        SecurityConfig().sums(len(group)).against_a_lying_server for group in groups
    )
    assert (
        f"fewer than 2t - m = {stated.against_a_lying_server} " in secrecy(config, clients)[1].holds
    )


def test_sketches_are_summed_over_all_clients_whatever_share_the_phases_call() -> None:
    shares: dict[str, Any] = {
        "partition": {"clients": 13},
        "pretrain": {"participation": 12 / 13},
        "pools": {"participation": 12 / 13},
    }
    config = FederationConfig(**shares)
    assert config.cohorts(13) == {12, 13}
    assert config.weakest_sums(13).against_a_lying_server == 5
    pretrained = FederationConfig(
        **shares | {"pools": {"participation": 12 / 13, "start": "pretrained"}}
    )
    assert pretrained.cohorts(13) == {12}
    assert pretrained.weakest_sums(13).against_a_lying_server == 6


@pytest.mark.parametrize(
    "tables",
    [
        {
            "partition": {"clients": 12},
            "pretrain": {"participation": 0.75},
            "pools": {"participation": 0.75},
            "security": {"threshold": 5},
        },
        {
            "partition": {"clients": 31},
            "pools": {"count": 2},
            "security": {"robust": "median", "group_size": 9, "threshold": 5},
        },
    ],
)
def test_a_threshold_that_only_some_sums_allow_is_refused_before_anything_trains(
    tables: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError, match=r"security\.threshold"):
        FederationConfig(**tables)


def test_the_table_says_what_few_colluders_read_of_opened_sums() -> None:
    for tables, said in (
        (
            {},
            (
                "where 2 of them (or a single colluder that lies in its count) are alone with a "
                "client in a pool"
            ),
        ),
        ({"pools": {"enabled": False}}, "where 8 of them are alone with a client in a sum"),
    ):
        rows = secrecy(FederationConfig(**tables), 12)
        assert all(said in row.reads for row in rows[:2])


@pytest.mark.parametrize(
    "security", [{}, {"protection": "masked"}, {"protection": "plain"}, {"key_holder": "authority"}]
)
def test_the_table_says_what_each_reads_and_what_it_cannot(security: dict[str, Any]) -> None:
    rows = {
        row.adversary.partition(",")[0]: row
        for row in secrecy(FederationConfig(security=security), 12)
    }
    plain = security.get("protection") == "plain"
    assert [name for name, row in rows.items() if not row.holds] == (["server"] if plain else [])
    assert ("sealed" in rows["reader of the disk"].holds) != plain
    if not security:
        assert "opened ones with any client" in rows["server that follows the protocol"].reads
    if security.get("key_holder") == "authority":
        assert rows["server that follows the protocol"].reads.startswith("no sum;")
