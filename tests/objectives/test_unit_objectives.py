"""Objectives cut into units: they average to the losses they are made of, and step along the
same gradient.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.config import ObjectiveConfig
from secure_fl.errors import PrivacyError
from secure_fl.models.heads import EncoderProjector
from secure_fl.objectives.build import build_objective
from secure_fl.objectives.contrastive import SpectralContrastive
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.losses import align_loss, distillation_loss, dsr_loss, uniformity_loss
from secure_fl.objectives.objective import TwoViews
from secure_fl.objectives.random_features import KernelMean
from secure_fl.objectives.separation import Separation
from secure_fl.objectives.unit_objectives import (
    CrossEntropy,
    SecondMoment,
    SSDUnits,
    distillation_rows,
    dsr_rows,
    unit_form,
)

SEPARATION = Separation(
    torch.tensor([0, 2]),
    basis=torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0],
)


def model() -> EncoderProjector:
    torch.manual_seed(0)
    return EncoderProjector(nn.Linear(5, 6), nn.Sequential(nn.ReLU(), nn.Linear(6, 6))).double()


def views(n: int = 9) -> TwoViews:
    generator = torch.Generator().manual_seed(1)
    return TwoViews(
        *(torch.randn(n, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    )


def outputs(network: EncoderProjector, batch: TwoViews) -> tuple[Tensor, Tensor]:
    """h and z as `[U, R, ...]`."""
    (h1, z1), (h2, z2) = network(batch.first), network(batch.second)
    return torch.stack([h1, h2], 1), torch.stack([z1, z2], 1)


def gradient(network: nn.Module, loss: Tensor) -> Tensor:
    return torch.cat(
        [
            g.flatten()
            for g in torch.autograd.grad(
                loss, list(network.parameters()), retain_graph=True, materialize_grads=True
            )
        ]
    )


def test_spectral_units_step_along_the_objective_s_gradient() -> None:
    network, batch, objective = model(), views(), SpectralContrastive()
    ordinary = gradient(network, torch.stack(list(objective.terms(batch, network).values())).sum())
    units = unit_form(objective, 6, 0)
    assert units.statistic is not None
    h, z = outputs(network, batch)
    released = units.statistic.mean(units.statistic.contributions(z).sum(0).detach(), len(z), 0.0)
    assert torch.allclose(
        gradient(network, units.unit_losses(h, z, released).mean()), ordinary, rtol=1e-9, atol=1e-12
    )


def test_second_moment_coordinates_keep_lengths_and_come_back() -> None:
    z = torch.randn(7, 2, 6, dtype=torch.float64)
    statistic = SecondMoment(6)
    contributions = statistic.contributions(z)
    unit = functional.normalize(z, dim=-1)
    moments = torch.einsum("urd,ure->ude", unit, unit) / 2
    assert contributions.shape == (7, statistic.size)
    assert torch.allclose(contributions.norm(dim=1), moments.flatten(1).norm(dim=1))
    assert torch.allclose(statistic.mean(contributions.sum(0), 7, 0.0), moments.mean(0))
    same = statistic.contributions(z[:, :1].expand(-1, 2, -1))
    assert torch.allclose(same.norm(dim=1), torch.ones(7, dtype=torch.float64))
    noise = torch.randn(4000, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spread = torch.stack([statistic.mean(row, 1, 1.0) for row in noise]).std(0)
    expected = torch.full((6, 6), 0.5**0.5, dtype=torch.float64).fill_diagonal_(1)
    assert torch.allclose(spread, expected, rtol=0.08)


@pytest.mark.parametrize("form", ["paper", "normalized"])
@pytest.mark.parametrize("alpha", [1.0, 10.0])
def test_rows_of_the_regulariser_average_to_it(form: str, alpha: float) -> None:
    separation = Separation(SEPARATION.dims, alpha, SEPARATION.basis)
    z = torch.randn(9, 2, 6, dtype=torch.float64, requires_grad=True)
    rows = dsr_rows(z, separation, form)  # type: ignore[arg-type]
    whole = (dsr_loss(z[:, 0], separation, form) + dsr_loss(z[:, 1], separation, form)) / 2  # type: ignore[arg-type]
    assert rows.shape == (9, 2)
    assert torch.allclose(rows.mean(), whole)
    assert torch.allclose(torch.autograd.grad(rows.mean(), z)[0], torch.autograd.grad(whole, z)[0])


@pytest.mark.parametrize("direction", ["projector_to_encoder", "encoder_to_projector"])
def test_rows_of_the_distillation_average_to_it(direction: str) -> None:
    h, z = (torch.randn(9, 2, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    rows = distillation_rows(h, z, 0.5, direction)  # type: ignore[arg-type]
    whole = (
        distillation_loss(h[:, 0], z[:, 0], 0.5, direction)
        + distillation_loss(h[:, 1], z[:, 1], 0.5, direction)
    ) / 2  # type: ignore[arg-type]
    assert torch.allclose(rows.mean(), whole)
    for found, expected in zip(
        torch.autograd.grad(rows.mean(), (h, z)), torch.autograd.grad(whole, (h, z)), strict=True
    ):
        assert torch.allclose(found, expected)


@pytest.mark.parametrize("form", ["paper", "normalized"])
def test_ssd_units_average_to_ssd_s_per_example_terms(form: str) -> None:
    """All but uniformity, which is tested apart."""
    network, batch = model(), views()
    objective = build_objective(ObjectiveConfig(form=form, beta=0), SEPARATION)  # type: ignore[arg-type]
    units = unit_form(objective, 6, 0)
    assert units.statistic is None
    whole = torch.stack(
        [objective.weights[name] * term for name, term in objective.terms(batch, network).items()]
    ).sum()
    parts = units.unit_losses(*outputs(network, batch), None).mean()
    assert torch.allclose(parts, whole)
    assert torch.allclose(gradient(network, parts), gradient(network, whole))


def kernel_mean(z: Tensor, t: float, statistic: KernelMean | None) -> Tensor:
    """Mean over ordered pairs of distinct examples, n² in the denominator, of the kernel averaged
    over views: exact or by features.
    """
    n = len(z)
    if statistic is not None:
        contributions = statistic.contributions(z)
        gram = contributions @ contributions.T
    else:
        unit = functional.normalize(z, dim=-1).flatten(0, 1)
        square = (2 - 2 * unit @ unit.T).clamp(min=0)
        gram = torch.exp(-t * square).reshape(n, 2, n, 2).mean((1, 3))
    return (gram.sum() - gram.diagonal().sum()) / n**2


def test_uniformity_s_units_step_along_the_gradient_of_the_kernel_mean_over_distinct_pairs() -> (
    None
):
    network, batch = model(), views()
    units = unit_form(build_objective(ObjectiveConfig(name="align_uniform")), 6, 0)
    assert isinstance(units, SSDUnits)
    assert units.statistic is not None
    h, z = outputs(network, batch)
    released = units.statistic.mean(units.statistic.contributions(z).sum(0).detach(), len(z), 0.0)
    expected = align_loss(z[:, 0], z[:, 1]) + kernel_mean(z, 2.0, units.statistic) / released[-2]
    assert torch.allclose(
        gradient(network, units.unit_losses(h, z, released).mean()),
        gradient(network, expected),
        rtol=1e-9,
        atol=1e-12,
    )


def test_with_many_features_it_is_the_gradient_of_uniformity() -> None:
    network, batch = model(), views(60)
    units = unit_form(build_objective(ObjectiveConfig(name="align_uniform")), 6, 0, pairs=30_000)
    assert isinstance(units, SSDUnits)
    assert units.statistic is not None
    h, z = outputs(network, batch)
    released = units.statistic.mean(units.statistic.contributions(z).sum(0).detach(), len(z), 0.0)
    found = gradient(network, units.unit_losses(h, z, released).mean())
    pooled = gradient(network, align_loss(z[:, 0], z[:, 1]) + kernel_mean(z, 2.0, None).log())
    assert float(functional.cosine_similarity(found, pooled, dim=0)) > 0.999
    assert float(found.norm() / pooled.norm()) == pytest.approx(1, abs=0.1)
    by_view = gradient(
        network,
        align_loss(z[:, 0], z[:, 1]) + (uniformity_loss(z[:, 0]) + uniformity_loss(z[:, 1])) / 2,
    )
    assert float(functional.cosine_similarity(found, by_view, dim=0)) > 0.98


def test_a_unit_s_loss_depends_on_its_own_rows_and_the_released_value_only() -> None:
    network, batch = model(), views()
    for objective in (
        SpectralContrastive(),
        build_objective(ObjectiveConfig(form="normalized"), SEPARATION),
    ):
        units = unit_form(objective, 6, 0)
        assert units.coupling is Coupling.PER_EXAMPLE
        assert units.statistic is not None
        h, z = (x.detach() for x in outputs(network, batch))
        released = units.statistic.mean(units.statistic.contributions(z).sum(0), 9, 1.0)
        together = units.unit_losses(h, z, released)
        alone = torch.cat(
            [units.unit_losses(h[i : i + 1], z[i : i + 1], released) for i in range(9)]
        )
        assert torch.allclose(together, alone, rtol=1e-12)


def test_cross_entropy_is_one_loss_a_unit() -> None:
    logits, labels = torch.randn(7, 1, 4), torch.arange(7) % 4
    losses = CrossEntropy().target_losses(logits, labels)
    assert torch.allclose(losses, functional.cross_entropy(logits[:, 0], labels, reduction="none"))


def test_batch_coupled_objectives_are_refused_with_what_fits() -> None:
    for config, remedy in (
        (ObjectiveConfig(name="nt_xent"), 'mechanism = "group"'),
        (ObjectiveConfig(name="ssd_nt_xent", form="normalized"), 'mechanism = "group"'),
        (ObjectiveConfig(name="ssd", form="code"), 'form = "normalized"'),
    ):
        with pytest.raises(PrivacyError, match=remedy):
            unit_form(build_objective(config, SEPARATION), 6, 0)
    with pytest.raises(PrivacyError, match="normalized"):
        dsr_rows(torch.randn(3, 2, 6), SEPARATION, "code")
    with pytest.raises(PrivacyError, match="one width"):
        distillation_rows(torch.randn(3, 2, 5), torch.randn(3, 2, 6), 0.5, "projector_to_encoder")
    with pytest.raises(PrivacyError, match="UnitObjective"):
        unit_form(object(), 6, 0)  # type: ignore[arg-type]


def test_the_code_form_is_fine_where_it_has_no_weight() -> None:
    assert (
        unit_form(
            build_objective(ObjectiveConfig(form="code", gamma=0), SEPARATION), 6, 0
        ).statistic
        is not None
    )
    units = unit_form(SpectralContrastive(), 6, 0)
    assert unit_form(units, 6, 0) is units
