"""Runs whose server sees sums only: the sums are right whatever protects them, and small pools stay closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import StopAfter, tiny_config, weights
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.engines import embedded
from secure_fl.errors import ConfigError
from secure_fl.federation.block_replies import in_blocks
from secure_fl.federation.blocks import Grid
from secure_fl.federation.messages import BlockUpdate, EncoderUpdate, SketchUpdate, TrainEncoder
from secure_fl.federation.summing import Opening, Summing
from secure_fl.privacy.client_level import Blocks
from secure_fl.privacy.noise import NoiseSource
from secure_fl.secure_sum.layout import FieldLayout
from secure_fl.secure_sum.round_plan import BlockVector
from secure_fl.secure_sum.secure_sum import EmbeddedRound
from secure_fl.summary import unprotected

PROTECTED = [("masked", "clients"), ("bfv", "clients"), ("bfv+masked", "clients"), ("bfv+masked", "authority")]


def secure(protection: str = "bfv+masked", key_holder: str = "clients", **tables: dict[str, Any]) -> FederationConfig:
    return tiny_config(security={"protection": protection, "key_holder": key_holder}, **tables)


def groups(choices: dict[int, int]) -> set[frozenset[int]]:
    """Clients by pool, whatever the pools are called."""
    return {frozenset(client for client, pool in choices.items() if pool == k) for k in choices.values()}


def test_every_protection_gives_the_same_models_and_the_groups_of_plain_averaging(images: Dataset) -> None:
    plain = Federation(secure("plain"), data=images).run()
    runs = [Federation(secure(*protection), data=images).run() for protection in PROTECTED]
    for run in runs[1:]:
        assert torch.equal(weights(runs[0]), weights(run))
        assert run.choices == runs[0].choices
    assert groups(runs[0].choices) == groups(plain.choices)
    assert abs(runs[0].summary["pools"]["accuracy"] - plain.summary["pools"]["accuracy"]) < 0.1


def test_one_round_differs_from_plain_averaging_by_less_than_a_grid_step(images: Dataset) -> None:
    """After one round: later ones amplify any difference, since the code form's gradient does not shrink with its loss."""
    tables: dict[str, Any] = {"pretrain": {"rounds": 1}, "pools": {"enabled": False}, "evaluate": {"enabled": False}}
    runs = [Federation(secure(protection, **tables), data=images).run() for protection in ("plain", "bfv+masked")]
    step = 1 / Federation(secure(**tables), data=images).blueprint.grid("pretrain").codec.scale
    assert (weights(runs[0]) - weights(runs[1])).abs().max() < 1.1 * step


def test_the_sketch_start_finds_the_same_groups_through_encrypted_sums(images: Dataset) -> None:
    plain, protected = (Federation(secure(protection), data=images).run() for protection in ("plain", "masked"))
    counts = [[r.metrics.get("counts") for r in run.records if r.phase == "sketch"] for run in (plain, protected)]
    assert sorted(counts[0][-1]) == sorted(counts[1][-1])


def test_client_level_sums_are_bit_equal_with_and_without_encryption(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(3))
    privacy = {"unit": "client", "noise": 2.0, "epsilon": 500.0, "min_clients": 3}
    runs = [Federation(secure(protection, privacy=privacy), data=images).run() for protection in ("plain", "bfv+masked")]
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    claims = [{c["adversary"]: c["epsilon"] for c in run.summary["privacy"]["claims"] if c["unit"] == "client"} for run in runs]
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
    grid = Grid(4, 0, 5, 2, 1.0, True, FieldLayout.words() if protection == "masked" else FieldLayout())
    updates = torch.linspace(-0.5, 0.5, 20).view(4, 5)
    summing, pools, sum_ = Summing(config.security, 4), [0, 0, 0, 1], None
    for client, (update, pool) in enumerate(zip(updates, pools, strict=True)):
        blocks = grid.blocks(update, pool)
        sum_ = sum_ or summing.begin(blocks, (0, 1, 2, 3), Opening(grid.codec.bound, minimum=2))
        sum_.add(client, blocks)
    assert sum_ is not None
    summed = sum_.open()
    _, means = grid.means(summed.total, summed.survivors, 2)
    assert torch.allclose(means[0], updates[:3].double().mean(0), atol=2 / grid.codec.scale)
    assert torch.equal(means[1], torch.zeros(5, dtype=torch.float64))
    if protection != "plain":
        assert torch.equal(summed.total.pools[1], torch.zeros_like(summed.total.pools[1]))


def test_a_damaged_upload_costs_its_own_update_and_is_on_record(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit of one client's upload turns over on its way, in the second round of pre-training."""
    honest, tables = EmbeddedRound.protect, {"pretrain": {"rounds": 2}, "pools": {"enabled": False}, "evaluate": {"enabled": False}}

    def protect(self: EmbeddedRound, client: str, vector: BlockVector) -> memoryview:
        upload = bytearray(honest(self, client, vector))
        if self.plan.round == 1 and client == "client-0002":
            upload[-1] ^= 1
        return memoryview(upload)

    whole = Federation(secure("masked", **tables), data=images).run()
    monkeypatch.setattr(EmbeddedRound, "protect", protect)
    run = Federation(secure("masked", **tables), data=images).run()
    assert [record.metrics.get("refused") for record in run.records] == [None, ["client-0002: bit-flipped"]]
    assert all("refused" not in record.metrics for record in whole.records)
    assert not torch.equal(weights(run), weights(whole))


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
    weight = torch.rand(clients, generator=generator, dtype=torch.float64) * 0.9 + 0.1 if weighted else torch.ones(clients, dtype=torch.float64)
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
        assert torch.allclose(got[pool], (w[:, None] * updates[:, shared:]).sum(0) / w.sum(), atol=tolerance)


def test_replies_that_are_summed_leave_as_integers_of_one_shape_whatever_was_chosen(images: Dataset) -> None:
    federation = Federation(secure(), data=images)
    blueprint = federation.blueprint
    size = len(blueprint.grid("pretrain").codec.quantise(torch.zeros(blueprint.grid("pretrain").codec.width).numpy()))
    update = EncoderUpdate(torch.zeros(blueprint.grid("pretrain").pooled), 30.0, {"align": 1.0})
    reply = in_blocks(update, blueprint)
    assert isinstance(reply, BlockUpdate)
    assert reply.blocks is not None
    assert reply.blocks.pools.dtype == torch.int64
    assert reply.blocks.pools.numel() == size
    grid = blueprint.grid("cluster")
    shapes = {tuple(grid.blocks(torch.randn(grid.pooled) * 0.1, pool).pools.shape) for pool in range(grid.pools)}
    assert len(shapes) == 1
    sketch = SketchUpdate(torch.zeros(blueprint.sketch_width), 0.0, 1)
    assert isinstance(in_blocks(sketch, blueprint), BlockUpdate)
    engine = embedded.EmbeddedEngine(federation.clients, blueprint)
    vector = torch.zeros(blueprint.grid("pretrain").pooled)
    assert isinstance(engine._clients[0].handle(TrainEncoder(0, vector)), BlockUpdate)


def test_the_default_is_protected_and_says_nothing_else() -> None:
    config = FederationConfig()
    assert config.security.protection == "bfv+masked"
    assert not any("no protection" in line for line in unprotected(config))
    assert any("no protection" in line for line in unprotected(tiny_config()))


@pytest.mark.parametrize("start", ["restarts", "farthest"])
def test_starts_that_show_clients_are_open_or_refused(start: str) -> None:
    assert FederationConfig(pools={"start": start}).security.protection == "plain"
    with pytest.raises(ConfigError, match="shows the server"):
        FederationConfig(pools={"start": start}, security={"protection": "masked"})
