"""Runs whose server sees sums only: the sums are right whatever protects them, and small pools
stay closed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from federation.parts import engine_of, form_on, program_of
from federation.sums import Summing, shape_of
from helpers import StopAfter, tiny_config, weights
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.engines import embedded
from secure_fl.errors import ConfigError, SecureSumError
from secure_fl.estimate import sample_state
from secure_fl.federation.run_folder.metrics import SummedTest
from secure_fl.federation.state import Place
from secure_fl.finished.summary import unprotected
from secure_fl.privacy.noise import NoiseSource
from secure_fl.secure_sum.blocks import BlockVector
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.grid import Blocks, Grid
from secure_fl.secure_sum.layout import FieldLayout

PROTECTED = [("masked", "clients"), ("bfv+masked", "clients"), ("bfv+masked", "authority")]


@pytest.fixture(autouse=True)
def _repeatable_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run of a test draws the same noise, so that runs can be compared."""
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(7))


def secure(
    protection: str = "bfv+masked", key_holder: str = "clients", **tables: dict[str, Any]
) -> FederationConfig:
    """Six clients in two groups of three; sketches noised so little that the groups of 32 examples
    each are found.
    """
    base = {"partition": {"clients": 6, "groups": 2}, "privacy": {"sketch_epsilon": 50.0}}
    return tiny_config(
        security={"protection": protection, "key_holder": key_holder}, **{**base, **tables}
    )


def groups(choices: dict[int, int]) -> set[frozenset[int]]:
    """Clients by pool, whatever the pools are called."""
    return {
        frozenset(client for client, pool in choices.items() if pool == k) for k in choices.values()
    }


ALIKE: dict[str, Any] = {
    "partition": {"clients": 6, "groups": 2},
    "pretrain": {"rounds": 1, "weights": "examples"},
    "pools": {"weights": "examples", "start": "pretrained", "count": 1, "rounds": 2},
}


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_sums_in_the_open_give_the_models_of_protected_ones(norm: str, images: Dataset) -> None:
    """One path for all: bit for bit, as long as every pool has enough members to be opened."""
    runs = [
        Federation(
            tiny_config(**ALIKE, model={"norm": norm}, security={"protection": each}), data=images
        ).run()
        for each in ("plain", "masked")
    ]
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    sums = [
        [record.metrics.tested for record in run.records if record.phase == "evaluate"]
        for run in runs
    ]
    assert sums[0] == sums[1]


def test_every_protection_gives_the_same_models_and_the_groups_of_open_sums(
    images: Dataset,
) -> None:
    plain = Federation(secure("plain"), data=images).run()
    runs = [Federation(secure(*protection), data=images).run() for protection in PROTECTED]
    for run in runs[1:]:
        assert torch.equal(weights(runs[0]), weights(run))
        assert run.choices == runs[0].choices
    assert groups(runs[0].choices) == groups(plain.choices)
    assert abs(runs[0].summary.pools.accuracy - plain.summary.pools.accuracy) < 0.1


def test_summed_test_scores_are_those_of_the_clients(images: Dataset) -> None:
    """A pool with enough members shows their mean accuracy and its spread, and one without nothing
    but its count.
    """
    last = Federation(secure("masked"), data=images).run().records[-1]
    accuracies = {int(client): accuracy for client, accuracy in last.metrics.accuracies.items()}
    for pool, tested in enumerate(last.metrics.tested):
        members = [
            accuracies[int(client)]
            for client, choice in last.metrics.choices.items()
            if choice == pool
        ]
        if len(members) < 3:
            assert tested == SummedTest(0, None, None, None)
            continue
        assert tested.clients == len(members)
        assert tested.mean_accuracy == pytest.approx(sum(members) / len(members), abs=1e-4)
        spread = float(torch.tensor(members, dtype=torch.float64).std(correction=0))
        assert tested.accuracy_deviation == pytest.approx(spread, abs=0.01)
    assert any(tested.clients for tested in last.metrics.tested)


def test_the_sketch_start_finds_the_same_groups_through_encrypted_sums(images: Dataset) -> None:
    plain, protected = (
        Federation(secure(protection), data=images).run() for protection in ("plain", "masked")
    )
    counts = [
        [r.metrics.counts for r in run.records if r.phase == "sketch"] for run in (plain, protected)
    ]
    assert sorted(counts[0][-1]) == sorted(counts[1][-1])


def test_client_level_sums_are_bit_equal_with_and_without_encryption(images: Dataset) -> None:
    privacy = {"unit": "client", "noise": 2.0, "epsilon": 500.0, "min_clients": 5}
    runs = [
        Federation(secure(protection, privacy=privacy), data=images).run()
        for protection in ("plain", "bfv+masked")
    ]
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    claims = [
        {c.adversary: c.epsilon for c in run.summary.privacy.claims if c.unit == "client"}
        for run in runs
    ]
    assert claims[1]["server"] == claims[1]["other clients and the public model"]
    assert claims[0]["server"] is None or claims[0]["server"] > claims[1]["server"]


def test_a_stopped_run_ends_the_same_under_fresh_keys(tmp_path: Path, images: Dataset) -> None:
    config = secure("masked")
    whole = Federation(config, data=images).run()
    with pytest.raises(KeyboardInterrupt):
        Federation(config, data=images, callbacks=[StopAfter(4)]).run(tmp_path / "run")
    resumed = Federation(config, data=images).run(tmp_path / "run", resume=True)
    assert torch.equal(weights(whole), weights(resumed))


@pytest.mark.parametrize("protection", ["plain", "masked", "bfv+masked"])
def test_a_pool_below_the_minimum_stays_as_it_is(protection: str) -> None:
    """Three members in pool 0 and one in pool 1, opened from two members on."""
    config = secure(protection)
    grid = Grid(
        4, 0, 5, 2, 1.0, True, FieldLayout.words() if protection == "masked" else FieldLayout()
    )
    updates = torch.linspace(-0.5, 0.5, 20).view(4, 5)
    summing, pools, sum_ = Summing(config.security, 4), [0, 0, 0, 1], None
    for client, (update, pool) in enumerate(zip(updates, pools, strict=True)):
        sum_ = sum_ or summing.begin(form_on(grid, range(4), minimum=2))
        sum_.add(client, grid.blocks(update, pool))
    assert sum_ is not None
    summed = sum_.open()
    _, means = grid.means(summed.total, summed.survivors, 2)
    assert torch.allclose(means[0], updates[:3].double().mean(0), atol=2 / grid.codec.scale)
    assert torch.equal(means[1], torch.zeros(5, dtype=torch.float64))
    if protection != "plain":
        assert torch.equal(summed.total.pools[1], torch.zeros_like(summed.total.pools[1]))


def damage(monkeypatch: pytest.MonkeyPatch, round_number: int) -> None:
    """One bit of client 2's upload turns over on its way to the server, in one round."""
    honest = RoundClient.upload

    def upload(self: RoundClient, vector: BlockVector) -> memoryview:
        made = bytearray(honest(self, vector))
        made[-1] ^= self._plan.round == round_number and self.name == "client-0002"
        return memoryview(made)

    monkeypatch.setattr(RoundClient, "upload", upload)


def test_a_damaged_upload_is_on_record(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {
        "pretrain": {"rounds": 3},
        "pools": {"enabled": False},
        "evaluate": {"enabled": False},
    }
    damage(monkeypatch, 1)
    run = Federation(secure("masked", **tables), data=images).run()
    assert [record.metrics.refused for record in run.records] == [
        None,
        ("client-0002 upload: bit-flipped",),
        None,
    ]


@pytest.mark.parametrize(("group_size", "lost"), [(None, {2}), (6, {2}), (3, set())])
def test_a_damaged_upload_costs_its_own_update(
    group_size: int | None, lost: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a group of three, whose threshold is three, it costs its group; the others are summed, and
    the refusal is known all the same.
    """
    grid = Grid(12, 0, 5, 1, 1.0, False, FieldLayout.words())
    vectors = {
        client: grid.blocks(update, 0)
        for client, update in enumerate(torch.linspace(-0.5, 0.5, 60).view(12, 5))
    }
    summing = Summing(secure("masked").security, 12)
    running: Any = summing.begin(
        form_on(grid, range(12), group_size=group_size, group_seed=b"seed")
    )
    if group_size:
        damage(monkeypatch, running._part_of[2]._round.plan.round)
        lost = lost or {
            client for client, part in running._part_of.items() if part is running._part_of[2]
        }
    else:
        damage(monkeypatch, 0)
    for client, blocks in vectors.items():
        running.add(client, blocks)
    summed = running.open()
    assert torch.equal(
        summed.total.pools,
        sum(blocks.pools for client, blocks in vectors.items() if client not in lost),
    )
    assert summed.survivors == 12 - len(lost)
    assert running.cost.refused == ("client-0002 upload: bit-flipped",)
    assert summed.left_out == (("too-few",) if len(lost) > 1 else ())


@pytest.mark.parametrize("field", ["head", "shared", "pools"])
def test_sums_beyond_what_clients_can_send_are_refused(field: str) -> None:
    """Three clients in two pools, all of them at their limits; then one passes it by one in a
    count, a shared and a pool's coordinate.
    """
    grid = Grid(4, 3, 3, 2, 1.0, False, FieldLayout())
    honest = grid.blocks(torch.ones(6), 0)
    liar = replace(honest, **{field: getattr(honest, field) + (getattr(honest, field) > 0)})
    for vector in (honest, liar):
        running = Summing(secure("bfv+masked").security, 3).begin(form_on(grid, range(3)))
        for client in range(3):
            running.add(client, vector if client == 1 else honest)
        if vector is honest:
            assert torch.equal(running.open().total.shared, 3 * honest.shared)
        else:
            with pytest.raises(SecureSumError, match="out-of-range"):
                running.open()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_opened_means_are_weighted_means_to_a_grid_step(data: st.DataObject) -> None:
    clients, pools = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 4))
    shared, pooled = data.draw(st.sampled_from([0, 3])), data.draw(st.integers(1, 6))
    weighted = data.draw(st.booleans())
    grid = Grid(clients, shared, pooled, pools, 1.0, weighted, FieldLayout())
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    updates = 2 * torch.rand(clients, shared + pooled, generator=generator, dtype=torch.float64) - 1
    chosen = torch.randint(0, pools, (clients,), generator=generator)
    weight = (
        torch.rand(clients, generator=generator, dtype=torch.float64) * 0.9 + 0.1
        if weighted
        else torch.ones(clients, dtype=torch.float64)
    )
    total: Blocks | None = None
    for update, pool, w in zip(updates, chosen.tolist(), weight.tolist(), strict=True):
        blocks = grid.blocks(update.float(), pool, w)
        total = blocks if total is None else total + blocks
    assert total is not None
    got_shared, got = grid.means(total, clients, 1)
    tolerance = 30 * clients / grid.codec.scale
    if shared:
        expected = (weight[:, None] * updates[:, :shared]).sum(0) / weight.sum()
        assert torch.allclose(got_shared, expected, atol=tolerance)
    for pool in range(pools):
        member = chosen == pool
        if not bool(member.any()):
            assert torch.equal(got[pool], torch.zeros(pooled, dtype=torch.float64))
            continue
        w = weight * member
        assert torch.allclose(
            got[pool], (w[:, None] * updates[:, shared:]).sum(0) / w.sum(), atol=tolerance
        )


@pytest.mark.parametrize("protection", ["plain", "masked"])
def test_every_answer_has_the_shape_that_its_form_says_before_anybody_trains(
    protection: str, images: Dataset
) -> None:
    federation = Federation(secure(protection, pools={"encoder": "shared"}), data=images)
    program = program_of(federation)
    engine = engine_of(federation)
    whole = sample_state(federation.factory)
    for number, step in enumerate(program.steps):
        for round_number in range(min(2, step.rounds)):
            place = Place(number, round_number)
            form = program.form(place)
            blocks = engine.clients[form.cohort[1]].answer(whole.at(place), 1)
            assert shape_of(blocks) == form.shape
            assert all(
                part.dtype == torch.int64 for part in (blocks.head, blocks.shared, blocks.pools)
            )
            assert int(blocks.pools.abs().max()) <= form.opening.bound


def test_the_default_is_protected_and_says_nothing_else() -> None:
    config = FederationConfig()
    assert config.security.protection == "bfv+masked"
    assert not any("no protection" in line for line in unprotected(config))
    assert any("no protection" in line for line in unprotected(tiny_config()))
    assert not any("by the batch" in line for line in unprotected(config))
    assert any("by the batch" in line for line in unprotected(secure(model={"norm": "batch"})))


@pytest.mark.parametrize("start", ["restarts", "farthest"])
def test_starts_that_show_clients_are_open_or_refused(start: str) -> None:
    assert FederationConfig(pools={"start": start}).security.protection == "plain"
    with pytest.raises(ConfigError, match="shows the server"):
        FederationConfig(pools={"start": start}, security={"protection": "masked"})
