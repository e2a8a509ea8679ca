"""The protocol's sums against oracles: what the server computes is what theory says it should be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import make_images, tiny_config
from torch.nn import functional

from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Dataset
from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.errors import ConfigError
from secure_fl.federation.blueprint import Blueprint
from secure_fl.federation.client import Client
from secure_fl.federation.cluster import Cluster
from secure_fl.federation.messages import (
    GiveSketch,
    KeepEncoder,
    ScorePools,
    SketchUpdate,
    TrainEncoder,
    TrainPool,
    payload_bytes,
)
from secure_fl.federation.phase import ServerState
from secure_fl.federation.starts import draw_pools, get_pools, set_pools
from secure_fl.federation.sums import BlockSum
from secure_fl.models.state import to_vector
from secure_fl.pools.pool_set import PoolSet
from secure_fl.run import Federation


def federation(images: Dataset, **tables: dict[str, Any]) -> Federation:
    return Federation(tiny_config(**tables), data=images)


def clients_of(made: Federation) -> tuple[list[Client], Blueprint]:
    return EmbeddedEngine(made.clients, made.blueprint)._clients, made.blueprint


def test_block_sums_equal_sums_of_one_hot_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, weights, blocks = torch.randn(9, 5, generator=generator), [float(i + 1) for i in range(9)], [0, 2, 2, 0, 2, 0, 0, 2, 2]
    total, dense, mass = BlockSum(4, 5), torch.zeros(4, 5, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    for block, vector, weight in zip(blocks, vectors, weights, strict=True):
        total.add(block, vector, weight)
        one_hot = functional.one_hot(torch.tensor(block), 4).double()
        dense += weight * one_hot[:, None] * vector.double()
        mass += weight * one_hot
    torch.testing.assert_close(total.sums, dense)
    torch.testing.assert_close(total.weights, mass)
    start = torch.randn(4, 5, generator=generator)
    moved = total.moved(start)
    torch.testing.assert_close(moved[0], (start[0].double() + dense[0] / mass[0]).float())
    assert torch.equal(moved[1], start[1])
    assert torch.equal(moved[3], start[3])


def test_one_global_model_with_whole_batches_is_centralized_gradient_descent(images: Dataset) -> None:
    """FedAvg with one step on all of a client's data, weighted by examples, equals one step on all clients' data together."""
    made = federation(
        images,
        partition={"kind": "dirichlet", "clients": 3, "concentration": 1.0},
        pretrain={"mode": "none"},
        pools={"count": 1, "start": "random", "rounds": 1, "local_epochs": 1, "batch_size": 500, "momentum": 0, "weight_decay": 0, "lr": 0.3},
    )
    clients, blueprint = clients_of(made)
    state = ServerState(tensors={"encoder": to_vector(blueprint.encoder())})
    phase = Cluster(blueprint, state, [None] * 3)
    call = phase.open()
    before = get_pools(state)
    assert len({len(client.data.train) for client in clients}) > 1
    for client in call.clients:
        phase.add(client, clients[client].handle(call.request))  # type: ignore[arg-type]
    phase.close()
    model = blueprint.pool_model(0)
    blueprint.layout.load(model, before, 0)
    x, y = (torch.cat([getattr(client.data.train, name) for client in clients]) for name in ("x", "y"))
    functional.cross_entropy(model(x), y).backward()
    stepped = torch.cat([(p - 0.3 * p.grad).detach().reshape(-1) for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(get_pools(state).pooled[0], stepped, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["finetune", "frozen", "shared"])
def test_pools_nobody_chose_stay_and_identical_pools_collapse(images: Dataset, mode: str) -> None:
    made = federation(images, pretrain={"mode": "none"}, pools={"count": 3, "start": "random", "encoder": mode})
    clients, blueprint = clients_of(made)
    state = ServerState(tensors={"encoder": to_vector(blueprint.encoder())})
    pools = draw_pools(blueprint, state)
    set_pools(state, PoolSet(pools.shared, pools.pooled[:1].repeat(3, 1)))
    if mode == "frozen":
        clients[0].handle(KeepEncoder(state.tensors["encoder"]))
    phase = Cluster(blueprint, state, [client.data.group for client in clients])
    call = phase.open()
    for client in call.clients:
        phase.add(client, clients[client].handle(call.request))  # type: ignore[arg-type]
    metrics = phase.close()
    assert metrics["pools"]["counts"] == (4, 0, 0)
    assert "clustering failure" in metrics["pools"]["alert"]
    after = get_pools(state)
    assert torch.equal(after.pooled[1:], pools.pooled[:1].repeat(2, 1))
    assert not torch.equal(after.pooled[0], pools.pooled[0])
    assert torch.equal(after.shared, pools.shared) == (mode != "shared")


def test_independent_heads_and_encoders(images: Dataset) -> None:
    """Pools differ from the start: identical ones would be certain failure."""
    for start, mode, equal_encoders in (("pretrained", "finetune", True), ("random", "finetune", False)):
        made = federation(images, pools={"start": start, "encoder": mode})
        blueprint = made.blueprint
        state = ServerState(tensors={"encoder": to_vector(blueprint.encoder())})
        pools, width = draw_pools(blueprint, state), len(state.tensors["encoder"])
        first, second = pools.pooled
        assert torch.equal(first[:width], second[:width]) == equal_encoders
        assert not torch.equal(first[width:], second[width:])


def test_a_forced_round_follows_the_sketch_and_not_the_loss(images: Dataset) -> None:
    made = federation(images)
    clients, blueprint = clients_of(made)
    encoder = to_vector(blueprint.encoder())
    sketches = []
    for client in clients:
        client.handle(KeepEncoder(encoder))
        reply = client.handle(GiveSketch())
        assert isinstance(reply, SketchUpdate)
        sketches.append(reply.sketch)
    from secure_fl.federation.messages import Guide

    mean = torch.stack(sketches).mean(0)
    pools = draw_pools(blueprint, ServerState(tensors={"encoder": encoder}))
    for order in ((0, 1), (1, 0)):
        guide = Guide(mean, torch.stack([sketches[i] - mean for i in order]))
        update = clients[0].handle(TrainPool(0, pools, guide, forced=True))
        assert update.score.choice == order.index(0)  # type: ignore[union-attr]
        assert update.score.losses == ()  # type: ignore[union-attr]


@pytest.mark.parametrize("sketch", ["features", "labelled"])
@pytest.mark.parametrize("start", ["sketch", "random"])
def test_unlabelled_clients_take_part_without_changing_the_models(start: str, sketch: str) -> None:
    pools = {"start": start, "sketch": sketch}
    made = federation(make_images(480), data={"labelled_clients": 0.5}, partition={"clients": 8, "groups": 2}, pools=pools)
    result = made.run()
    assert set(result.choices) == set(range(8))
    if start == "sketch":
        forced = next(record.metrics for record in result.records if record.phase == "cluster")
        assert forced["pools"]["ari"] == 1, "unlabelled clients did not join their own group's pool"
    clients, blueprint = clients_of(made)
    drawn = draw_pools(blueprint, ServerState(tensors={"encoder": to_vector(blueprint.encoder())}))
    update = clients[7].handle(TrainPool(0, drawn))
    assert update.weight == 0  # type: ignore[union-attr]
    assert update.pooled.abs().max() == 0  # type: ignore[union-attr]


def test_farthest_start_never_takes_a_client_twice_and_skips_the_unlabelled() -> None:
    tables = {"partition": {"clients": 8, "groups": 2}, "pools": {"start": "farthest", "count": 4}}
    made = federation(make_images(480), data={"labelled_clients": 0.5}, **tables)
    centres = [record.metrics["centre"] for record in made.run().records if record.phase == "farthest"]
    assert len(set(centres)) == 4
    assert set(centres) <= set(range(4))
    too_many = federation(make_images(480), data={"labelled_clients": 0.25}, **tables)
    with pytest.raises(ConfigError, match="only 2 clients can train a candidate"):
        too_many.run()


def test_a_client_with_one_labelled_example_takes_part(images: Dataset) -> None:
    made = federation(images, pools={"start": "random"})
    data = made.clients[0]
    y = torch.full_like(data.train.y, -1)
    y[0] = 1
    made.clients[0] = replace(data, train=replace(data.train, y=y))
    assert set(made.run().choices) == {0, 1, 2, 3}


def test_recorded_pool_losses_are_weighted(images: Dataset) -> None:
    tables = {"pools": {"task": "self_supervised", "start": "random"}, "evaluate": {"enabled": False}, "objective": {"delta": 0.0, "beta": 0.0}}
    losses = [r.metrics["loss"] for r in federation(images, **tables).run().records if r.phase == "cluster"]
    assert all(0 < loss < 4.1 for loss in losses)


def test_batch_counters_do_not_pass_between_clients(images: Dataset) -> None:
    clients, _ = clients_of(federation(images, model={"norm": "batch"}))
    bench = clients[0]._bench
    request = TrainEncoder(0, to_vector(bench.encoder_projector))
    first = clients[0].handle(request)
    clients[1].handle(request)
    counters = [buffer for name, buffer in bench.encoder_projector.named_buffers() if "num_batches" in name]
    assert all(int(counter) > 0 for counter in counters)
    again = clients[0].handle(request)
    assert torch.equal(first.delta, again.delta)  # type: ignore[union-attr]
    bench.restart()
    assert all(int(counter) == 0 for counter in counters)


def test_validation_examples_decide_where_asked(images: Dataset) -> None:
    made = federation(images, data={"validation_fraction": 0.25}, pools={"select_on": "validation", "select_by": "accuracy", "start": "random"})
    clients, blueprint = clients_of(made)
    pools = draw_pools(blueprint, ServerState(tensors={"encoder": to_vector(blueprint.encoder())}))
    task, data = blueprint.pool_task(0), clients[0].data
    score = clients[0].handle(ScorePools(pools))
    model = blueprint.pool_model(0)
    for k, loss in enumerate(score.losses):  # type: ignore[union-attr]
        blueprint.layout.load(model, pools, k)
        assert loss == pytest.approx(task.score(model, data.validation, 0).loss)
        assert loss != pytest.approx(task.score(model, data.train, 0).loss)


def test_partial_participation_samples_without_replacement_and_varies(images: Dataset) -> None:
    made = federation(images, partition={"clients": 10, "groups": 2}, pools={"participation": 0.3, "start": "random"})
    state = ServerState(tensors={"encoder": to_vector(made.blueprint.encoder())})
    phase = Cluster(made.blueprint, state, [None] * 10)
    drawn = set()
    for round_number in range(10):
        state.round = round_number
        call = phase.open()
        assert len(call.clients) == len(set(call.clients)) == 3
        drawn.add(call.clients)
    assert len(drawn) > 3


def test_bytes_are_those_of_the_bodies(images: Dataset) -> None:
    made = federation(images)
    vector = to_vector(made.blueprint.encoder())
    assert payload_bytes(KeepEncoder(vector)) == 4 * len(vector)
    result = made.run()
    first = next(record for record in result.records if record.phase == "pretrain")
    model = 4 * len(to_vector(made.blueprint.encoder_projector()))
    assert first.bytes_down == 4 * (model + 8)
    assert first.bytes_up == 4 * (model + 8 + 8 * 4)


def test_configurations_that_cannot_work_are_refused(images: Dataset) -> None:
    with pytest.raises(ConfigError, match="supervised pools need labels"):
        federation(images.unlabelled())
    with pytest.raises(ConfigError, match="distillation needs z as wide as h"):
        federation(images, model={"embedding": 8})
    federation(images, model={"embedding": 8}, objective={"name": "nt_xent"}, pools={"task": "self_supervised"})
    unlabelled = FederationConfig(pools={"task": "self_supervised", "sketch": "labelled"})
    with pytest.raises(ConfigError, match="no labels to split"):
        Federation(unlabelled, data=make_images(200).unlabelled())
