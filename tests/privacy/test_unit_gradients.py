"""Clipped sums against gradients that autograd forms one unit at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from privacy.broken import nt_xent_rows
from torch import Tensor, nn

from secure_fl.errors import PrivacyError
from secure_fl.models.convnet import MLP, ConvNet, SeriesConvNet
from secure_fl.models.heads import EncoderProjector, Projector
from secure_fl.models.resnet import ResNet18
from secure_fl.models.scattering import ScatteringEncoder
from secure_fl.privacy.row_isolation import check_separable
from secure_fl.privacy.rows_alone import check_rows_alone
from secure_fl.privacy.unit_gradients import Method, clipped_sum
from secure_fl_kernels import reference

METHODS: tuple[Method, ...] = ("hooks", "ghost")


class Odd(nn.Module):
    """What the project's own models have not: a layer used twice, tied weights, in-place ReLU,
    frozen parts, unusual convolutions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, (3, 2), stride=2, padding=(1, 0))
        self.second = nn.Conv2d(6, 6, 3, padding="same", groups=2)
        self.norm = nn.InstanceNorm2d(6, affine=True)
        self.third = nn.Conv2d(6, 4, 3, padding=2, dilation=2, bias=False)
        self.twice = nn.Linear(4, 4)
        self.tied, self.tied_too = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.tied_too.weight = self.tied.weight
        self.layer_norm = nn.LayerNorm(4)
        self.frozen, self.partly = nn.Linear(4, 4), nn.Linear(4, 5)
        self.frozen.requires_grad_(False)
        self.partly.bias.requires_grad_(False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.relu(self.second(self.relu(self.first(x)))))
        h = self.twice(self.relu(self.twice(self.third(x).mean((2, 3)))))
        h = self.tied_too(torch.tanh(self.tied(self.layer_norm(h)))) + h
        return h, self.partly(self.frozen(h))


class Words(nn.Module):
    """An embedding, and linear layers over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.inner = nn.Embedding(11, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.words(x)
        return h.flatten(1), torch.tanh(self.inner(h)).mean(1)


def with_projector(encoder: nn.Module, features: int) -> EncoderProjector:
    return EncoderProjector(encoder, Projector(features, 20, 8, "group"))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convnet": (lambda: with_projector(ConvNet(1, 32), 32), (1, 12, 12)),
    "mlp": (lambda: with_projector(MLP((9,), 16), 16), (9,)),
    "series_convnet": (lambda: with_projector(SeriesConvNet(3, 32), 32), (3, 30)),
    "resnet18": (lambda: with_projector(ResNet18(3, "group"), 512), (3, 6, 6)),
    "scattering": (lambda: with_projector(ScatteringEncoder((1, 12, 12), 32), 32), (1, 12, 12)),
    "odd": (Odd, (2, 9, 8)),
    "words": (Words, (7,)),
}


def build(name: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model = make().to(dtype)
    if name == "words":
        return model, torch.randint(0, 11, (12, *shape))
    return model, torch.randn(6 if name == "resnet18" else 12, *shape, dtype=dtype)


def losses(h: Tensor, z: Tensor) -> Tensor:
    """One a unit, of very different sizes, each from all of its rows together."""
    return (z[:, 0] * z[:, -1]).sum(1) + h.flatten(1).square().mean(1) + z.mean((1, 2)).exp()


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def one_at_a_time(model: nn.Module, rows: Tensor, rows_per_unit: int) -> Tensor:
    """Every unit's gradient, `[U, P]`."""
    found = []
    for unit in rows.split(rows_per_unit):
        h, z = model(unit)
        gradients = torch.autograd.grad(
            losses(h[None], z[None]).sum(), trained(model), materialize_grads=True
        )
        found.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(found)


def flat(gradients: list[Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients])


CASES = [
    (name, method, rows)
    for name in MODELS
    for method in METHODS
    for rows in ((2,) if name == "resnet18" else (1, 2, 6))
]


@pytest.mark.parametrize(("name", "method", "rows_per_unit"), CASES)
def test_the_sum_of_gradients_formed_one_unit_at_a_time(
    name: str, method: Method, rows_per_unit: int
) -> None:
    model, rows = build(name, torch.float64)
    units = one_at_a_time(model, rows, rows_per_unit)
    norms = units.norm(dim=1)
    bound = float(norms.median()) * 0.9
    expected = (units * (bound / norms).clamp(max=1)[:, None]).sum(0)
    assert int((norms > bound).sum()) > 0
    got = clipped_sum(model, rows, rows_per_unit, losses, bound, method=method)
    assert [g.shape for g in got.gradients] == [p.shape for p in trained(model)]
    assert float((flat(got.gradients) - expected).norm() / expected.norm()) < 1e-9
    assert torch.allclose(got.square_norms.sqrt(), norms, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("within", ["autocast", "float64"])
def test_models_that_change_their_precision_within(within: str, method: Method) -> None:
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first = nn.Linear(6, 6)
            self.norm = nn.LayerNorm(6)
            self.second = nn.Linear(6, 4, dtype=torch.float64)
            if within == "autocast":
                self.second = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.autocast("cpu", torch.bfloat16, enabled=within == "autocast"):
                h = self.norm(torch.relu(self.first(x)))
                z = self.second(h.to(self.second.weight.dtype))
            return h.float(), z.float()

    model, rows = Changing(), torch.randn(12, 6)
    units = one_at_a_time(model, rows, 2).double()
    bound = float(units.norm(dim=1).median()) * 0.9
    expected = (units * (bound / units.norm(dim=1)).clamp(max=1)[:, None]).sum(0)
    got = clipped_sum(model, rows, 2, losses, bound, method=method)
    assert [g.dtype for g in got.gradients] == [p.dtype for p in trained(model)]
    tolerance = 1e-2 if within == "autocast" else 1e-4
    assert (
        float((flat([g.double() for g in got.gradients]) - expected).norm() / expected.norm())
        < tolerance
    )
    alone = clipped_sum(model, rows[:2], 2, losses, bound / 100, method=method)
    assert float(flat([g.double() for g in alone.gradients]).norm()) <= bound / 100 * (1 + 1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["convnet", "mlp", "series_convnet", "resnet18"])
def test_float32_is_within_its_rounding(name: str, method: Method) -> None:
    """1e-5; for ResNet's wide layers ghost norms err upwards by up to 1e-4, so that no gradient
    comes out too long.
    """
    model, rows = build(name, torch.float32)
    got = clipped_sum(model, rows, 2, losses, 0.1, method=method)
    units = one_at_a_time(model.double(), rows.double(), 2)
    expected = (units * (0.1 / units.norm(dim=1)).clamp(max=1)[:, None]).sum(0)
    assert float((flat(got.gradients) - expected).norm() / expected.norm()) < (
        1e-4 if name == "resnet18" else 1e-5
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["convnet", "mlp", "series_convnet"])
def test_no_unit_adds_more_than_the_bound(name: str, method: Method) -> None:
    model, rows = build(name, torch.float32)
    for unit in rows.split(2):
        for bound in (1e-3, 0.37):
            got = clipped_sum(model, unit, 2, losses, bound, method=method)
            assert 0.99 * bound < float(flat(got.gradients).double().norm()) <= bound


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["convnet", "mlp", "series_convnet"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_a_unit_that_is_not_finite_adds_exactly_nothing(
    name: str, method: Method, value: float
) -> None:
    model, rows = build(name, torch.float32)
    broken = rows.clone()
    broken[5].view(-1)[3] = value
    got = clipped_sum(model, broken, 2, losses, 0.1, method=method)
    kept = clipped_sum(model, torch.cat([rows[:4], rows[6:]]), 2, losses, 0.1, method=method)
    assert bool(torch.isfinite(flat(got.gradients)).all())
    if value == 1e30 and bool(got.square_norms[2].isfinite()):
        assert (
            float((flat(got.gradients) - flat(kept.gradients)).norm()) <= 0.1
        )  # a norm layer made it small again
        return
    assert not bool(got.square_norms[2].isfinite())
    assert torch.allclose(flat(got.gradients), flat(kept.gradients), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -1e30])
def test_targets_that_are_not_finite_are_no_reason_to_refuse(value: float) -> None:
    """The run would stop for the sake of one example."""
    model, rows = build("mlp", torch.float32)
    targets = torch.zeros(len(rows) // 2)
    targets[1] = value
    without = torch.cat([rows[:2], rows[4:]])
    for _ in range(20):
        got = clipped_sum(
            model, rows, 2, lambda h, z: losses(h, z) + (z.mean((1, 2)) - targets).square(), 1.0
        )
        assert not bool(got.square_norms[1].isfinite())
        kept = clipped_sum(
            model, without, 2, lambda h, z: losses(h, z) + z.mean((1, 2)).square(), 1.0
        )
        assert torch.allclose(flat(got.gradients), flat(kept.gradients), rtol=1e-5, atol=1e-7)


def test_all_units_broken_is_zero() -> None:
    model, rows = build("convnet", torch.float32)
    for method in METHODS:
        assert not flat(
            clipped_sum(model, rows * torch.nan, 2, losses, 1.0, method=method).gradients
        ).any()


def test_no_units_give_zeros_and_run_nothing() -> None:
    model = build("convnet", torch.float32)[0]

    def never(h: Tensor, z: Tensor) -> Tensor:
        raise AssertionError("called without units")

    got = clipped_sum(model, torch.empty(0, 1), 1, never, 1.0)
    assert [g.shape for g in got.gradients] == [p.shape for p in trained(model)]
    assert not flat(got.gradients).any()
    assert got.square_norms.shape == (0,)


def test_losses_are_asked_for_twice_first_as_they_are_and_nothing_stays_behind() -> None:
    """A mechanism releases its statistic inside, at the first call."""
    model, rows = build("convnet", torch.float32)
    calls: list[Tensor] = []
    clipped_sum(model, rows, 2, lambda h, z: (calls.append(z.detach()), losses(h, z))[1], 1.0)  # type: ignore[func-returns-value]
    assert len(calls) == 2
    assert torch.equal(calls[0].flatten(0, 1), model(rows)[1])
    assert all(p.grad is None for p in model.parameters())
    assert not any(layer._forward_hooks for layer in model.modules())


def over_the_batch(_h: Tensor, z: Tensor) -> Tensor:
    return nt_xent_rows(z, 0.5)


def from_a_neighbour(h: Tensor, z: Tensor) -> Tensor:
    """Five losses are right; the last reads one number of the first unit."""
    return losses(h, z) + torch.eye(6, dtype=z.dtype)[5] * h[0, 0, 0]


def by_the_batchs_norm(h: Tensor, z: Tensor) -> Tensor:
    return losses(h / h.norm(), z)


def forty_sums(
    model: nn.Module, rows: Tensor, unit_losses: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Halves are drawn anew: two units are in different ones with probability 1/2, so one coupled
    pair passes this once in 10^12 times.
    """
    for _ in range(40):
        assert not flat(clipped_sum(model, rows, 2, unit_losses, 1.0).gradients).isnan().any()


@pytest.mark.parametrize("coupled", [over_the_batch, from_a_neighbour, by_the_batchs_norm])
def test_losses_over_several_units_are_refused(coupled: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(PrivacyError, match="other units' rows") as caught:
        forty_sums(*build("mlp", torch.float32), coupled)
    assert caught.value.field == "unit_losses"
    assert "within groups" in caught.value.remedy


@pytest.mark.parametrize("absent", [1, 4])
def test_losses_over_several_units_are_refused_where_some_are_not_finite(absent: int) -> None:
    """Also where one example's NaN reaches everybody, and the sum would be zero for its sake."""
    model, rows = build("mlp", torch.float32)
    rows[2 : 2 + absent] = torch.nan
    for coupled in (over_the_batch, from_a_neighbour):
        with pytest.raises(PrivacyError, match="other units' rows"):
            forty_sums(model, rows, coupled)


def test_units_do_not_change_each_other_through_a_constant() -> None:
    """A loss may use a released value; the gradient does not flow into it."""
    model, rows = build("mlp", torch.float64)
    released = torch.randn(8, dtype=torch.float64)

    def with_constant(h: Tensor, z: Tensor) -> Tensor:
        return (z * released).sum((1, 2))

    together = clipped_sum(model, rows, 2, with_constant, 0.5).gradients
    apart = [clipped_sum(model, unit, 2, with_constant, 0.5).gradients for unit in rows.split(2)]
    assert torch.allclose(flat(together), torch.stack([flat(g) for g in apart]).sum(0), rtol=1e-9)


def test_a_frozen_batch_norm_in_eval_mode_is_a_constant() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4).requires_grad_(False).eval(), nn.Linear(4, 3))
    check_separable(model)
    rows = torch.randn(6, 4)
    got = clipped_sum(model, rows, 1, lambda h, z: z.square().sum((1, 2)), 0.1)
    apart = [
        clipped_sum(model, row[None], 1, lambda h, z: z.square().sum((1, 2)), 0.1) for row in rows
    ]
    assert torch.allclose(
        flat(got.gradients),
        torch.stack([flat(g.gradients) for g in apart]).sum(0),
        rtol=1e-5,
        atol=1e-7,
    )


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def test_rows_that_see_each_other_are_found_by_running() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Centred())
    check_separable(model)
    with pytest.raises(PrivacyError, match="depends on the other rows"):
        check_rows_alone(model, torch.randn(5, 4))
    assert model.training
    for name in ("convnet", "resnet18"):
        check_rows_alone(*build(name, torch.float32))


def test_two_stage_norms_match_reference_for_groups() -> None:
    """A group's loss that does not split: NT-Xent among its own rows."""
    model, rows = build("mlp", torch.float64)

    def contrast(h: Tensor, z: Tensor) -> Tensor:
        return torch.stack([reference.nt_xent_loss(unit[:3], unit[3:], 0.5) for unit in z])

    hooks, ghost = (
        clipped_sum(model, rows, 6, contrast, 0.05, method=method) for method in METHODS
    )
    assert torch.allclose(flat(hooks.gradients), flat(ghost.gradients), rtol=1e-8)
    assert torch.allclose(hooks.square_norms, ghost.square_norms, rtol=1e-8)
