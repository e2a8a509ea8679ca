"""Running statistics have the units of the data: what a run learns must not depend on them, nor on
how updates are summed.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.errors import ConfigError, SecureSumError
from secure_fl.models.build import build_encoder
from secure_fl.models.state import averaged_tensors, buffer_places, moving_buffers, to_vector
from secure_fl.pools.pool_set import PoolLayout
from secure_fl.secure_sum.fixed_point import Codec, Digits
from secure_fl.secure_sum.grid import Grid
from secure_fl.secure_sum.layout import FieldLayout


def kelvin() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(540) % 3
    return Dataset.from_arrays(
        290
        + (torch.randn(3, 16, generator=generator) * 5)[labels]
        + torch.randn(540, 16, generator=generator) * 2,
        labels,
    )


class Rescaled(nn.Module):
    """Normalises by running statistics, behind a factor that takes them to other units."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.norm = factor, nn.BatchNorm1d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normal: torch.Tensor = self.norm(x * self.factor)
        return normal


def normalised(factor: float, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(Rescaled(factor), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32))


def run(protection: str, factor: float = 1.0, **security: float):  # type: ignore[no-untyped-def]
    config = FederationConfig(
        data={"scale": "none"},
        partition={"kind": "iid", "clients": 4},
        pretrain={"mode": "none"},
        evaluate={"enabled": False},
        pools={"rounds": 6, "count": 1, "local_epochs": 2, "start": "random", "weights": "uniform"},
        security={"protection": protection, **security},
    )
    return Federation(config, data=kelvin(), encoder=lambda seed: normalised(factor, seed)).run()


@pytest.mark.parametrize("factor", [1.0, 1000.0])
def test_statistics_and_accuracy_are_those_of_a_plain_run(factor: float) -> None:
    plain, masked = run("plain", factor), run("masked", factor)
    norms = [result.pools[0].encoder[0].norm for result in (plain, masked)]
    assert torch.allclose(norms[0].running_mean, norms[1].running_mean, rtol=1e-4)
    assert torch.allclose(norms[0].running_var, norms[1].running_var, rtol=1e-3)
    assert float(norms[1].running_mean.max()) > 200 * factor
    assert masked.summary.pools.accuracy == pytest.approx(plain.summary.pools.accuracy, abs=0.02)
    assert not any(record.metrics.cut for record in masked.records)


def test_what_a_clamp_cuts_is_on_record() -> None:
    cut = [
        record.metrics.cut
        for record in run("masked", buffer_clamp=10.0).records
        if record.phase == "cluster"
    ]
    assert cut[0] is not None
    assert cut[0].clients == 4
    assert 0 < cut[0].share <= 1


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_wide_places_carry_their_weighted_mean_at_any_size(data: st.DataObject) -> None:
    clients = data.draw(st.sampled_from([1, 5, 300, 4000]))
    shared = data.draw(st.sampled_from([0, 3]))
    pooled = 4
    wide = tuple(sorted(data.draw(st.sets(st.integers(0, shared + pooled - 1), min_size=1))))
    weighted = data.draw(st.booleans())
    layout = data.draw(st.sampled_from([FieldLayout(), FieldLayout.words()]))
    grid = Grid(clients, shared, pooled, 2, 1.0, weighted, layout, wide, 1e12)
    updates = 2 * torch.rand(min(clients, 5), shared + pooled, dtype=torch.float64) - 1
    updates[:, list(wide)] *= 10.0 ** data.draw(st.integers(-1, 11))
    updates = updates.float().double()
    weight = (
        torch.rand(len(updates), dtype=torch.float64) * 0.9 + 0.1
        if weighted
        else torch.ones(len(updates), dtype=torch.float64)
    )
    vectors = [
        grid.blocks(update.float(), 1, w)
        for update, w in zip(updates, weight.tolist(), strict=True)
    ]
    assert all(
        int(part.abs().max()) <= grid.codec.bound
        for vector in vectors
        for part in (vector.shared, vector.pools)
        if part.numel()
    )
    of_shared, of_pools = grid.means(reduce(add, vectors), len(vectors), 1)
    # as its field holds it
    weight = (weight * grid.codec.scale).floor() / grid.codec.scale if weighted else weight
    expected = (weight[:, None] * updates).sum(0) / weight.sum().clamp_min(1e-12)
    got = torch.cat([of_shared, of_pools[1]])
    tolerance = len(updates) / grid.codec.scale / weight.sum().clamp_min(
        1e-12
    ) + 1e-6 * updates.abs().amax(0)
    assert bool(((got - expected).abs() <= tolerance).all())
    assert torch.equal(of_pools[0], torch.zeros(pooled, dtype=torch.float64))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 30_000), st.floats(-1e12, 1e12), st.floats(-1e12, 1e12))
def test_digits_of_a_sum_are_sums_of_digits(clients: int, one: float, other: float) -> None:
    codec = Codec.finest(clients, 1.0, FieldLayout())
    digits = Digits.of(codec, 1e12)
    written = [digits.written(torch.tensor([value], dtype=torch.float64)) for value in (one, other)]
    assert max(int(each.abs().max()) for each in written) <= codec.bound
    assert float(digits.read(sum(written, torch.zeros_like(written[0])))) == pytest.approx(
        one + other, abs=2.1 / codec.scale, rel=1e-9
    )


def test_places_of_buffers_are_where_vectors_hold_them() -> None:
    model = build_encoder(FederationConfig(model={"norm": "batch"}).model, (1, 8, 8), 0)
    for name, tensor in averaged_tensors(model):
        tensor.fill_(7.0 if "running" in name else 1.0)
    vector = to_vector(model)
    assert buffer_places(model) == tuple(torch.nonzero(vector == 7.0).flatten().tolist())
    assert buffer_places(build_encoder(FederationConfig().model, (1, 8, 8), 0)) == ()


@pytest.mark.parametrize("mode", ["finetune", "shared", "frozen"])
def test_places_follow_what_is_pooled(mode: str) -> None:
    data = Dataset.from_arrays(torch.rand(60, 1, 8, 8), torch.arange(60) % 2)
    config = FederationConfig(
        model={"norm": "batch"},
        partition={"kind": "iid"},
        pools={"encoder": mode},
        evaluate={"enabled": False},
    )
    factory = Federation(config, data=data).factory
    model = factory.pool_model(0)
    for buffer in model.buffers():
        buffer.fill_(7)
    vector = torch.cat(factory.pool_layout.parts(model))
    assert PoolLayout(mode).buffers(model) == tuple(torch.nonzero(vector == 7.0).flatten().tolist())  # type: ignore[arg-type]


def test_a_statistic_that_is_not_finite_is_refused() -> None:
    grid = Grid(4, 0, 3, 1, 1.0, False, FieldLayout(), (1,), 1e12)
    with pytest.raises(SecureSumError, match="running statistic"):
        grid.blocks(torch.tensor([0.0, float("nan"), 0.0]), 0)


def test_a_norm_clip_refuses_what_has_no_bound() -> None:
    """Private runs normalise by groups unless they are told otherwise; a constant that lies on a
    module is no statistic.
    """
    data = Dataset.from_arrays(torch.rand(120, 3, 8, 8), torch.arange(120) % 2, classes=2)
    tables = {
        "partition": {"kind": "iid", "clients": 6},
        "pools": {"count": 1},
        "privacy": {"unit": "client", "noise": 30.0, "epsilon": 400.0},
    }
    assert FederationConfig(**tables).model.norm == "group"
    Federation(FederationConfig(**tables), data=data)
    with pytest.raises(ConfigError, match=r"model\.norm"):
        Federation(FederationConfig(**tables, model={"norm": "batch"}), data=data)
    constant = nn.Linear(4, 4)
    constant.register_buffer("grid", torch.ones(4))
    assert moving_buffers(constant, torch.rand(3, 4)) == []
    assert moving_buffers(nn.BatchNorm1d(4), torch.rand(3, 4)) == ["running_mean", "running_var"]


@pytest.mark.parametrize("weighted", [False, True])
def test_a_client_that_lies_moves_a_statistic_no_further_than_its_clamp(weighted: bool) -> None:
    """A top digit at its field's bound says far more than the clamp allows; of sums no more is read
    than their members can have sent.
    """
    grid = Grid(9, 0, 3, 2, 1.0, weighted, FieldLayout(), (1,), 50.0)
    honest = [grid.blocks(torch.zeros(3), 1) for _ in range(8)]
    pools = grid.blocks(torch.zeros(3), 1).pools.clone()
    pools[1, 2:-1] = grid.codec.bound
    liar = grid.blocks(torch.zeros(3), 1)
    total = reduce(
        add,
        [
            *honest,
            type(liar)(
                liar.head,
                liar.shared,
                pools if weighted else torch.cat([pools[:, :-1], pools[:, -1:]], 1),
            ),
        ],
    )
    _, moved = grid.means(total, 9, 1)
    assert abs(float(moved[1, 1])) <= 50.0
    largest = reduce(add, [grid.blocks(torch.tensor([0.0, 50.0, 0.0]), 1) for _ in range(9)])
    assert float(grid.means(largest, 9, 1)[1][1, 1]) == pytest.approx(50.0, rel=1e-3)
