"""Runs that sum updates in groups: a client that lies moves a model no further than honest
groups reach.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federation.parts import form_on, program_of
from federation.sums import GroupedSum, ProtectedSum, Summing
from helpers import StopAfter, tiny_config, weights
from hypothesis import given
from hypothesis import strategies as st

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.config import SecurityConfig
from secure_fl.config_file import starter_config
from secure_fl.engines import embedded
from secure_fl.errors import ConfigError, SecureSumError
from secure_fl.federation.client import Client
from secure_fl.federation.factory.grouping import Grouping
from secure_fl.federation.state import State
from secure_fl.federation.steps.step import Answer
from secure_fl.federation.summing import Opening, Summed
from secure_fl.finished.summary import unprotected
from secure_fl.privacy.noise import NoiseSource
from secure_fl.secure_sum.grid import Blocks, Grid
from secure_fl.secure_sum.layout import FieldLayout

ONE_ROUND: dict[str, Any] = {
    "partition": {"clients": 9, "groups": 1},
    "pretrain": {"rounds": 1},
    "pools": {"enabled": False},
    "evaluate": {"enabled": False},
}
POOLS: dict[str, Any] = {
    "partition": {"clients": 18, "groups": 2},
    "pretrain": {"mode": "none"},
    "pools": {"rounds": 2},
}


@pytest.fixture(autouse=True)
def _repeatable_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run of a test draws the same noise for its sketches, so that runs can be compared."""
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(7))


def robust(
    how: str, tables: dict[str, Any], size: int = 3, protection: str = "masked", **security: Any
) -> FederationConfig:
    settings = {"protection": protection, "robust": how, "group_size": size, **security}
    return tiny_config(security=settings, **tables)


def encoder(result: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in result.encoder.parameters()])


def lie(monkeypatch: pytest.MonkeyPatch, liar: int, bound: int) -> None:
    """One client sends the largest step that its clamp allows, in every coordinate, and keeps count
    and weight honest.
    """
    honest = Client.answered

    def answered(self: Client, state: State, position: int) -> Answer:
        answer = honest(self, state, position)
        # which has not been pre-trained yet
        if self.local.data.id == liar and "encoder" not in state.tensors:
            pools = torch.full_like(answer.blocks.pools, bound)
            pools[:, -1] = answer.blocks.pools[:, -1]
            answer = replace(answer, blocks=replace(answer.blocks, pools=pools))
        return answer

    monkeypatch.setattr(Client, "answered", answered)


@pytest.mark.parametrize(("how", "trim"), [("median", 1), ("trimmed_mean", 1)])
def test_a_liar_within_its_clamp_moves_the_mean_and_not_the_robust_average(
    how: str, trim: int, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = encoder(Federation(robust("none", ONE_ROUND), data=images).run())
    quiet = encoder(Federation(robust(how, ONE_ROUND, trim=trim), data=images).run())
    bound = Federation(robust("none", ONE_ROUND), data=images).factory.grid("pretrain").codec.bound
    lie(monkeypatch, 4, bound)
    moved = (encoder(Federation(robust("none", ONE_ROUND), data=images).run()) - settled).abs()
    kept = (
        encoder(Federation(robust(how, ONE_ROUND, trim=trim), data=images).run()) - settled
    ).abs()
    assert float(moved.min()) > 0.05
    assert float(kept.max()) < 0.5 * float(moved.min())
    assert float(kept.mean()) < 0.1 * float(moved.mean())
    assert float((quiet - settled).abs().max()) < 0.5 * float(moved.min())


def test_every_protection_gives_the_same_models(images: Dataset) -> None:
    runs = [
        Federation(robust("median", POOLS, 6, protection), data=images).run()
        for protection in ("masked", "bfv+masked")
    ]
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    opened = [
        record.metrics.groups_opened for record in runs[0].records if record.phase == "cluster"
    ]
    assert [len(row) for row in opened] == [2, 2]
    assert all(0 <= groups <= 3 for row in opened for groups in row)
    assert (
        runs[0].summary.unprotected
        != Federation(robust("none", POOLS, 6), data=images).run().summary.unprotected
    )


def test_k_means_is_left_alone_and_none_forms_no_groups(images: Dataset) -> None:
    runs = [Federation(robust(how, POOLS, 6), data=images).run() for how in ("none", "median")]
    sketches = [
        [record.metrics for record in run.records if record.phase == "sketch"] for run in runs
    ]
    assert sketches[0]
    assert sketches[0] == sketches[1]
    assert not any(record.metrics.groups_opened for record in runs[0].records)
    assert {record.phase for record in runs[1].records if record.metrics.groups_opened} == {
        "cluster"
    }


def test_a_stopped_run_ends_with_the_same_records(tmp_path: Path, images: Dataset) -> None:
    config = robust(
        "trimmed_mean", {**POOLS, "pretrain": {"rounds": 2}, "objective": {"assign": "modulo"}}, 6
    )
    whole = Federation(config, data=images).run()
    with pytest.raises(KeyboardInterrupt):
        Federation(config, data=images, callbacks=[StopAfter(3)]).run(tmp_path / "run")
    resumed = Federation(config, data=images).run(tmp_path / "run", resume=True)
    assert torch.equal(weights(whole), weights(resumed))
    facts = [
        [(r.phase, r.round, r.clients, r.metrics) for r in run.records] for run in (whole, resumed)
    ]
    assert facts[0] == facts[1]


def vectors(grid: Grid, clients: int, seed: int) -> tuple[torch.Tensor, list[int], list[float]]:
    generator = torch.Generator().manual_seed(seed)
    updates = 2 * torch.rand(clients, grid.shared + grid.pooled, generator=generator) - 1
    chosen = torch.randint(0, grid.pools, (clients,), generator=generator).tolist()
    return updates, chosen, (0.2 + 0.8 * torch.rand(clients, generator=generator)).tolist()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shared", [0, 4])
def test_groups_of_a_protected_sum_give_the_medians_of_their_own_means(
    weighted: bool, shared: int
) -> None:
    grid = Grid(13, shared, 6, 2, 1.0, weighted, FieldLayout.words())
    updates, chosen, share = vectors(grid, 13, 3)
    share = share if weighted else [1.0] * 13
    form = form_on(grid, range(13), minimum=2, group_size=4, group_seed=b"seed")
    running: Any = Summing(SecurityConfig(protection="masked"), 13).begin(form)
    for client in range(13):
        running.add(client, grid.blocks(updates[client], chosen[client], share[client]))
    assert isinstance(running, GroupedSum)
    members = [sorted(group) for group in _groups(running)]
    assert sorted(len(group) for group in members) == [4, 4, 5]
    summed = running.open()
    assert summed.survivors == 13
    assert running.cost.bytes_up == sum(part.cost.bytes_up for part in running._parts) > 0
    got_shared, got, opened = Grouping("median", 4, 1).means(grid, summed.groups, 2)
    for pool in range(2):
        inside = [[c for c in group if chosen[c] == pool] for group in members]
        means = [
            _mean(updates[group, shared:], [share[c] for c in group])
            for group in inside
            if len(group) >= 2
        ]
        assert opened[pool] == len(means)
        expected = np.median(means, axis=0) if len(means) >= 3 else np.zeros(6)
        np.testing.assert_allclose(got[pool].numpy(), expected, atol=100 / grid.codec.scale)
    if shared:
        means = [_mean(updates[group, :shared], [share[c] for c in group]) for group in members]
        np.testing.assert_allclose(
            got_shared.numpy(), np.median(means, axis=0), atol=100 / grid.codec.scale
        )
    else:
        assert got_shared.shape == (0,)


def _groups(running: GroupedSum) -> list[list[int]]:
    parts = list(dict.fromkeys(running._part_of.values()))
    return [[client for client, part in running._part_of.items() if part is mine] for mine in parts]


def _mean(rows: torch.Tensor, share: list[float]) -> np.ndarray:
    return np.average(rows.numpy().astype(np.float64), axis=0, weights=share)


@given(
    seed=st.integers(0, 10**6), opened=st.integers(0, 6), trim=st.integers(1, 2), idle=st.booleans()
)
def test_too_few_groups_move_nothing_and_idle_ones_do_not_vote(
    seed: int, opened: int, trim: int, idle: bool
) -> None:
    grid = Grid(24, 0, 5, 2, 1.0, True, FieldLayout())
    rng, groups, means = torch.Generator().manual_seed(seed), [], []
    for group in range(6):
        total: Blocks | None = None
        for member in range(3):
            update = 2 * torch.rand(5, generator=rng) - 1
            pool = int(not (group < opened and member < 2))
            weight = 0.0 if idle and member < 2 else 1.0
            blocks = grid.blocks(update, pool, weight)
            total = blocks if total is None else total + blocks
        assert total is not None
        groups.append(Summed(total, 3))
        if group < opened and not idle:
            means.append(grid.means(total, 3, 2)[1][0])
    for grouping in (Grouping("median", 3, trim), Grouping("trimmed_mean", 3, trim)):
        _, got, count = grouping.means(grid, groups, 2)
        assert count[0] == len(means)
        if len(means) < grouping.needed:
            assert not got[0].any()
        else:
            stacked = torch.stack(means)
            assert bool((got[0] >= stacked.min(0).values - 1e-12).all())
            assert bool((got[0] <= stacked.max(0).values + 1e-12).all())


@given(seed=st.integers(0, 10**6), bad=st.integers(0, 2))
def test_lying_groups_move_a_pool_no_further_than_honest_ones_reach(seed: int, bad: int) -> None:
    grid = Grid(20, 3, 4, 1, 1.0, True, FieldLayout())
    generator = torch.Generator().manual_seed(seed)
    groups, honest = [], []
    for group in range(5):
        blocks = grid.blocks(2 * torch.rand(7, generator=generator) - 1, 0, 0.5)
        if group < bad:
            lies = torch.full_like(blocks.pools, (-1) ** seed * grid.codec.bound)
            lies[:, -1] = 1
            blocks = Blocks(blocks.head, blocks.shared, lies)
        else:
            honest.append(grid.means(blocks, 1, 1)[1][0])
        groups.append(Summed(blocks, 4))
    stacked = torch.stack(honest)
    for how in ("median", "trimmed_mean"):
        _, got, _ = Grouping(how, 4, 2).means(grid, groups, 1)  # type: ignore[arg-type]
        assert bool((got[0] >= stacked.min(0).values - 1e-9).all())
        assert bool((got[0] <= stacked.max(0).values + 1e-9).all())


def test_groups_change_from_round_to_round_and_none_are_drawn_otherwise(images: Dataset) -> None:
    tables = {**POOLS, "pretrain": {"rounds": 2}, "objective": {"assign": "modulo"}}
    steps = {
        step.name: step
        for step in program_of(Federation(robust("median", tables, 6), data=images)).steps
    }
    first, second = (steps["pretrain"].form(number).opening for number in (0, 1))
    assert (first.group_size, second.group_size) == (6, 6)
    assert first.group_seed != second.group_seed
    assert [steps["sketch"].form(number).opening.group_size for number in (0, 1)] == [None, None]
    plain = Federation(robust("none", ONE_ROUND), data=images).factory
    form = program_of(Federation(robust("none", ONE_ROUND), data=images)).steps[0].form(0)
    assert form.opening == Opening(plain.grid("pretrain").codec.bound)
    assert isinstance(Summing(plain.facts.config.security, 9).begin(form), ProtectedSum)


@pytest.mark.parametrize(
    ("tables", "field", "remedy"),
    [
        ({"security": {"robust": "median", "protection": "plain"}}, "security.robust", "masked"),
        (
            {"security": {"robust": "median"}, "privacy": {"unit": "client"}},
            "security.robust",
            "none",
        ),
        ({"security": {"robust": "median", "group_size": 8}}, "security.group_size", "= 9"),
        (
            {
                "security": {"robust": "median", "group_size": 3, "min_pool_clients": 4},
                "pools": {"enabled": False},
            },
            "security.group_size",
            "= 4",
        ),
        ({"security": {"group_size": 2}}, "security.group_size", "group"),
        ({"security": {"robust": "mean"}}, "security.robust", "trimmed_mean"),
        ({"security": {"trim": 0}}, "security.trim", "lie"),
    ],
)
def test_settings_that_contradict_are_refused(
    tables: dict[str, Any], field: str, remedy: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        FederationConfig(**tables)
    assert caught.value.field == field
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("how", "size", "security", "tables"),
    [
        ("median", 4, {}, ONE_ROUND),
        ("median", 6, {}, ONE_ROUND),
        ("trimmed_mean", 3, {"trim": 2}, ONE_ROUND),
        ("median", 3, {}, {**ONE_ROUND, "pretrain": {"participation": 0.5}}),
        ("median", 6, {}, {**POOLS, "pools": {"participation": 0.6}}),
    ],
)
def test_too_few_clients_for_the_groups_are_refused(
    how: str, size: int, security: dict[str, Any], tables: dict[str, Any], images: Dataset
) -> None:
    with pytest.raises(ConfigError) as caught:
        Federation(robust(how, tables, size, **security), data=images)
    assert caught.value.field == "security.group_size"
    assert "more clients" in caught.value.remedy


def test_a_cohort_too_small_for_one_group_is_refused() -> None:
    grid = Grid(3, 0, 2, 1, 1.0, False, FieldLayout.words())
    with pytest.raises(SecureSumError, match="groups need"):
        Summing(SecurityConfig(protection="masked"), 3).begin(form_on(grid, range(3), group_size=4))


def test_a_group_that_one_client_spoils_is_left_out() -> None:
    grid = Grid(9, 0, 2, 1, 1.0, False, FieldLayout.words())
    form = form_on(grid, range(9), group_size=3, group_seed=b"seed")

    def summed(silent: int) -> tuple[Any, list[list[int]]]:
        running: Any = Summing(SecurityConfig(protection="masked"), 9).begin(form)
        members = _groups(running)
        for client in set(range(9)) - {group[0] for group in members[:silent]}:
            running.add(client, grid.blocks(torch.full((2,), client / 10), 0))
        return running, members

    running, members = summed(1)
    found = running.open()
    assert found.survivors == 6
    assert found.left_out == ("too-few",)
    left = [float(grid.codec.dequantise(group.total.pools[0])[0]) for group in found.groups]
    np.testing.assert_allclose(left, [sum(group) / 10 for group in members[1:]], atol=1e-3)
    _, moved, opened = Grouping("median", 3, 1).means(grid, found.groups, 1)
    assert opened == [2]
    assert not moved.any(), "of two groups one that lies could move the median as it likes"
    with pytest.raises(SecureSumError, match="too-few"):
        summed(3)[0].open()


@pytest.mark.parametrize("lies", [5, 12], ids=["within the field", "at the field's edge"])
@pytest.mark.parametrize("protection", ["masked", "bfv+masked"])
def test_a_liar_beyond_its_clamp_ends_no_run(
    protection: str, lies: int, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A field holds more than one client's clamp: a group's sum beyond what its clients can have
    sent is refused.
    """
    config = robust(
        "median", {**ONE_ROUND, "partition": {"clients": 12, "groups": 1}}, protection=protection
    )
    federation = Federation(config, data=images)
    honest = encoder(federation.run())
    lie(monkeypatch, 4, lies * federation.factory.grid("pretrain").codec.bound)
    result = Federation(config, data=images).run()
    metrics = next(record.metrics for record in result.records if record.phase == "pretrain")
    assert metrics.groups_opened == (4 - len(metrics.groups_left_out or ()),)
    # sums of BFV's fields may also wrap around and stay within range: then the median takes care
    # of them
    wraps = protection == "bfv+masked" and lies == 12
    assert metrics.groups_left_out in ([("out-of-range",), None] if wraps else [("out-of-range",)])
    assert float((encoder(result) - honest).abs().max()) < 0.5


def test_the_starter_file_explains_the_settings_and_a_run_says_what_groups_show() -> None:
    text = starter_config()
    assert 'robust = "none"' in text
    assert "group_size = 9" in text
    shown = [
        line
        for line in unprotected(FederationConfig(security={"robust": "median"}))
        if "groups of 9" in line
    ]
    assert len(shown) == 1
    assert "a pool over 3 or more" in shown[0]
    assert not any(
        "a pool over" in line
        for line in unprotected(
            FederationConfig(security={"robust": "median"}, pools={"enabled": False})
        )
    )
    assert not any("groups of" in line for line in unprotected(FederationConfig()))
