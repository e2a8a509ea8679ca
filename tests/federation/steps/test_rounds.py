"""The protocol's sums against oracles: what the steps compute is what theory says it should be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from federation.parts import drawn, engine_of, state_at, summed
from helpers import make_images, tiny_config
from torch.nn import functional

from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Dataset
from secure_fl.errors import ConfigError
from secure_fl.federation.asks import GiveSketch, Guide, ScorePools, TrainPool
from secure_fl.federation.steps.pools import draw_pools, get_pools
from secure_fl.models.state import to_vector
from secure_fl.run import Federation


def federation(images: Dataset, **tables: dict[str, Any]) -> Federation:
    return Federation(tiny_config(**tables), data=images)


def test_one_global_model_with_whole_batches_is_centralized_gradient_descent(
    images: Dataset,
) -> None:
    """FedAvg with one step on all of a client's data, weighted by examples, equals one step on all
    clients' data together.
    """
    made = federation(
        images,
        partition={"kind": "dirichlet", "clients": 3, "concentration": 1.0},
        pretrain={"mode": "none"},
        pools={
            "count": 1,
            "start": "random",
            "rounds": 1,
            "local_epochs": 1,
            "batch_size": 500,
            "momentum": 0,
            "weight_decay": 0,
            "lr": 0.3,
        },
    )
    program, state = state_at(made, "cluster")
    before = get_pools(state)
    assert len({len(client.train) for client in made.clients}) > 1
    opened, _ = summed(program, engine_of(made), state)
    after = get_pools(program.apply(state, opened))
    model = made.factory.pool_model(0)
    made.factory.pool_layout.load(model, before, 0)
    x, y = (
        torch.cat([getattr(client.train, name) for client in made.clients]) for name in ("x", "y")
    )
    functional.cross_entropy(model(x), y).backward()
    stepped = torch.cat(
        [(p - 0.3 * p.grad).detach().reshape(-1) for p in model.parameters() if p.grad is not None]
    )
    # a grid step of three clients is 1.1e-5
    torch.testing.assert_close(after.pooled[0], stepped, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["finetune", "frozen", "shared"])
def test_pools_nobody_chose_stay_and_identical_pools_collapse(images: Dataset, mode: str) -> None:
    made = federation(
        images, pretrain={"mode": "none"}, pools={"count": 3, "start": "random", "encoder": mode}
    )
    pools = draw_pools(made.factory, drawn(made))
    alike = {"pools.shared": pools.shared, "pools.pooled": pools.pooled[:1].repeat(3, 1)}
    program, state = state_at(made, "cluster", **alike)
    opened, seen = summed(program, engine_of(made), state)
    metrics = program.step(state.place).observe(
        state, opened, seen, [client.group for client in made.clients]
    )
    assert metrics.pools.counts == (4, 0, 0)
    assert "clustering failure" in metrics.pools.alert
    after = get_pools(program.apply(state, opened))
    assert torch.equal(after.pooled[1:], pools.pooled[:1].repeat(2, 1))
    assert not torch.equal(after.pooled[0], pools.pooled[0])
    assert torch.equal(after.shared, pools.shared) == (mode != "shared")


def test_independent_heads_and_encoders(images: Dataset) -> None:
    """Pools differ from the start: identical ones would be certain failure."""
    for start, mode, equal_encoders in (
        ("pretrained", "finetune", True),
        ("random", "finetune", False),
    ):
        made = federation(images, pools={"start": start, "encoder": mode})
        state = drawn(made)
        pools, width = draw_pools(made.factory, state), len(state.tensors["encoder"])
        first, second = pools.pooled
        assert torch.equal(first[:width], second[:width]) == equal_encoders
        assert not torch.equal(first[width:], second[width:])


def test_a_forced_round_follows_the_sketch_and_not_the_loss(images: Dataset) -> None:
    made = federation(images)
    clients = engine_of(made).clients
    sketches = [client.sketch.give(GiveSketch())[:-3] for client in clients]
    mean, pools = torch.stack(sketches).mean(0), draw_pools(made.factory, drawn(made))
    for order in ((0, 1), (1, 0)):
        guide = Guide(mean, torch.stack([sketches[i] - mean for i in order]))
        score = clients[0].protection.choose(TrainPool(0, pools, guide, forced=True), 0)
        assert score.choice == order.index(0)
        assert score.losses == ()


@pytest.mark.parametrize("sketch", ["features", "labelled"])
@pytest.mark.parametrize("start", ["sketch", "random"])
def test_unlabelled_clients_take_part_without_changing_the_models(start: str, sketch: str) -> None:
    pools = {"start": start, "sketch": sketch}
    made = federation(
        make_images(480),
        data={"labelled_clients": 0.5},
        partition={"clients": 8, "groups": 2},
        pools=pools,
    )
    result = made.run()
    assert set(result.choices) == set(range(8))
    if start == "sketch":
        forced = next(record.metrics for record in result.records if record.phase == "cluster")
        assert forced.pools.ari == 1, "unlabelled clients did not join their own group's pool"
    pools = draw_pools(made.factory, drawn(made))
    trained = engine_of(made).clients[7].protection.train_pool(TrainPool(0, pools), 0, 7)
    assert trained.weight == 0
    assert trained.change.abs().max() == 0


def test_farthest_start_never_takes_a_client_twice_and_skips_the_unlabelled() -> None:
    tables = {"partition": {"clients": 8, "groups": 2}, "pools": {"start": "farthest", "count": 4}}
    made = federation(make_images(480), data={"labelled_clients": 0.5}, **tables)
    centres = [record.metrics.centre for record in made.run().records if record.phase == "farthest"]
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
    tables = {
        "pools": {"task": "self_supervised", "start": "random"},
        "evaluate": {"enabled": False},
        "objective": {"delta": 0.0, "beta": 0.0},
    }
    losses = [
        r.metrics.loss for r in federation(images, **tables).run().records if r.phase == "cluster"
    ]
    assert all(0 < loss < 4.1 for loss in losses)


def test_batch_counters_do_not_pass_between_clients(images: Dataset) -> None:
    made = federation(images, model={"norm": "batch"})
    engine, (_, state) = engine_of(made), state_at(made, "pretrain")
    bench = engine.clients[0].local.bench
    first = engine.clients[0].answer(state, 0)
    engine.clients[1].answer(state, 1)
    counters = [
        buffer for name, buffer in bench.encoder_projector.named_buffers() if "num_batches" in name
    ]
    assert all(int(counter) > 0 for counter in counters)
    assert torch.equal(first.pools, engine.clients[0].answer(state, 0).pools)
    bench.restart()
    assert all(int(counter) == 0 for counter in counters)


def test_validation_examples_decide_where_asked(images: Dataset) -> None:
    made = federation(
        images,
        data={"validation_fraction": 0.25},
        pools={"select_on": "validation", "select_by": "accuracy", "start": "random"},
    )
    factory, client = made.factory, engine_of(made).clients[0]
    pools = draw_pools(factory, drawn(made))
    task, data = factory.pool_task(0), client.local.data
    score = client.protection.choose(ScorePools(pools), 0)
    model = factory.pool_model(0)
    for k, loss in enumerate(score.losses):
        factory.pool_layout.load(model, pools, k)
        assert loss == pytest.approx(task.score(model, data.validation, 0).loss)
        assert loss != pytest.approx(task.score(model, data.train, 0).loss)


def test_partial_participation_samples_without_replacement_and_varies(images: Dataset) -> None:
    made = federation(
        images,
        partition={"clients": 10, "groups": 2},
        pools={"participation": 0.3, "start": "random"},
    )
    program, state = state_at(made, "cluster")
    drawn = {program.step(state.place).form(number).cohort for number in range(10)}
    assert all(len(cohort) == len(set(cohort)) == 3 for cohort in drawn)
    assert len(drawn) > 3


def test_bytes_are_those_of_the_messages(images: Dataset) -> None:
    made = federation(images)
    first = next(record for record in made.run().records if record.phase == "pretrain")
    model = len(to_vector(made.factory.encoder_projector()))
    whole = 4 * 8 * -(-(model + 1) // 2)  # two fields a word, a weight among them
    assert whole < first.bytes_up < whole + 4 * 4096, "signed heads and digests go along"
    assert whole < first.bytes_down < whole + 4 * 8192


def test_configurations_that_cannot_work_are_refused(images: Dataset) -> None:
    with pytest.raises(ConfigError, match="supervised pools need labels"):
        federation(images.unlabelled())
    with pytest.raises(ConfigError, match="distillation needs z as wide as h"):
        federation(images, model={"embedding": 8})
    federation(
        images,
        model={"embedding": 8},
        objective={"name": "nt_xent"},
        pools={"task": "self_supervised"},
    )
    unlabelled = FederationConfig(pools={"task": "self_supervised", "sketch": "labelled"})
    with pytest.raises(ConfigError, match="no labels to split"):
        Federation(unlabelled, data=make_images(200).unlabelled())
