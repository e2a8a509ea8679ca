"""DP-SGD for losses of single examples: the step, its sensitivity, and adaptive clipping at the
price that was asked for.
"""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from privacy.example_cases import KINDS, WIDTH, encoder_projector, images, newcomer, stream, written
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.errors import PrivacyError
from secure_fl.models.convnet import ConvNet
from secure_fl.models.heads import Classifier
from secure_fl.objectives.contrastive import SpectralContrastive
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.masked import MaskedReconstruction
from secure_fl.objectives.unit_objectives import CrossEntropy, unit_form
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.mechanisms.mechanism import Labelled
from secure_fl.privacy.mechanisms.per_example import AdaptiveBound, PerExample


def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(ConvNet(1, WIDTH), nn.Linear(WIDTH, 3))


def labelled(count: int, seed: int = 0) -> Labelled:
    return Labelled(images(count, seed)[:, :1], torch.arange(count) % 3)


def mechanism(
    noise: float = 1.0, clip: float | AdaptiveBound = 1.0, examples: int = 100, rate: float = 0.2
) -> PerExample:
    return PerExample(CrossEntropy(), examples, rate, noise, clip)


def test_without_noise_and_clipping_the_step_is_cross_entropy_s() -> None:
    model, views = classifier(), labelled(12)
    mechanism(1e-12, 1e6, 12, 1.0).gradients(model, views, stream())
    found = written(model)
    model.zero_grad()
    functional.cross_entropy(model(views.rows[:, 0]), views.targets).backward()
    assert torch.allclose(found, written(model), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", [0.05, AdaptiveBound(0.05)], ids=["fixed", "adaptive"])
def test_no_neighbour_moves_a_released_sum_beyond_its_claim(
    kind: str, clip: float | AdaptiveBound
) -> None:
    model, others, made = classifier(), labelled(12), mechanism(1.0, clip)
    extra = newcomer(kind, others.rows, seed=3)[None]
    more = Labelled(torch.cat([extra, others.rows]), torch.cat([torch.tensor([1]), others.targets]))
    other = Labelled(torch.cat([others.rows[:-1], extra]), others.targets)
    without, with_it, replaced = (
        made.released_sums(model, views) for views in (others, more, other)
    )
    for adjacency, changed in (
        (Adjacency.ADD_REMOVE, with_it),
        (Adjacency.ZERO_OUT, with_it),
        (Adjacency.REPLACE_ONE, replaced),
    ):
        claims = made.sensitivity(adjacency)
        assert len(claims) == (2 if isinstance(clip, AdaptiveBound) else 1)
        for before, after, claim in zip(without, changed, claims, strict=True):
            assert bool(torch.isfinite(after).all())
            assert float((after - before).double().norm()) <= claim * (1 + 1e-5)


def test_masked_reconstruction_is_trained_with_it() -> None:
    objective, model = MaskedReconstruction(seed=0), encoder_projector()
    visible, cells = objective.hide(images(12)[:, 0])
    made = PerExample(objective, 12, 1.0, 1e-12, 1e6)
    made.gradients(model, Labelled(visible[:, None], cells), stream())
    found = written(model)
    model.zero_grad()
    objective.target_losses(model(visible)[1][:, None], cells).mean().backward()
    assert torch.allclose(found, written(model), rtol=1e-4, atol=1e-6)


def test_an_empty_draw_is_noise_of_the_right_deviation() -> None:
    model, made, source = classifier(), mechanism(1.5, 0.5), stream()
    rows = []
    for _ in range(30):
        made.gradients(model, torch.empty(0, 1), source)
        rows.append(written(model))
    noise = torch.stack(rows).double() * made.expected_units
    assert abs(float(noise.var()) / 0.75**2 - 1) < 5 * sqrt(2 / noise.numel())
    start = 0
    for parameter in model.parameters():
        leaf = noise[:, start : start + parameter.numel()]
        start += parameter.numel()
        assert abs(float(leaf.var()) / 0.75**2 - 1) < 5 * sqrt(2 / leaf.numel())


def test_the_sum_is_divided_by_a_constant_and_not_by_who_came() -> None:
    model, made = classifier(), mechanism(1e-9, 0.01)
    views = labelled(2)
    made.gradients(model, views, stream())
    one = written(model)
    made.gradients(model, Labelled(views.rows[[0, 1, 0, 1]], views.targets[[0, 1, 0, 1]]), stream())
    assert torch.allclose(written(model), 2 * one, rtol=1e-4)


# Adaptive clipping


def test_it_is_charged_what_was_asked_for() -> None:
    """σ = (σ_z⁻² + (2σ_b)⁻²)^(-1/2): gradients pay for the count, and the event says σ, not σ_z."""
    made = mechanism(1.1, AdaptiveBound(1.0, count_noise=2.0))
    assert made.gradient_noise > 1.1
    (bit,) = (claim for claim in made.sensitivity(Adjacency.ADD_REMOVE)[1:])
    assert (made.gradient_noise**-2 + (2.0 / bit) ** -2) ** -0.5 == pytest.approx(1.1)
    assert made.event(5).noise_multiplier == 1.1
    assert mechanism(1.1).gradient_noise == 1.1


def test_gradients_get_the_larger_noise_and_the_count_gets_its_own() -> None:
    model, source = classifier(), stream()
    rows, bounds = [], []
    for _ in range(60):
        made = mechanism(1.5, AdaptiveBound(1.0, rate=0.01, count_noise=0.9))
        made.gradients(model, torch.empty(0, 1), source)
        rows.append(written(model))
        bounds.append(made.bound)
    noise = torch.stack(rows).double() * made.expected_units
    assert abs(float(noise.var()) / made.gradient_noise**2 - 1) < 5 * sqrt(2 / noise.numel())
    counts = (-torch.tensor(bounds).log() / 0.01) * made.expected_units
    assert abs(float(counts.var()) / 0.9**2 - 1) < 5 * sqrt(2 / 60)


def test_the_bound_finds_the_quantile() -> None:
    model, views = classifier(), labelled(90)
    clip = AdaptiveBound(100.0, quantile=0.7, rate=0.3, count_noise=0.05)
    made = mechanism(0.05, clip, 90, 1.0)
    for _ in range(80):
        made.gradients(model, views, stream())
    norms = made._sum(model, views).square_norms.sqrt()
    assert float((norms <= clip.bound).double().mean()) == pytest.approx(0.7, abs=0.05)


def test_a_broken_example_is_no_reason_to_move() -> None:
    """Whatever the gradient, NaN too, an example adds one half to the count at most."""
    model, made = classifier(), mechanism(1.0, AdaptiveBound(1.0))
    views = Labelled(torch.full((1, 1, 1, 8, 8), torch.nan), torch.zeros(1, dtype=torch.int64))
    assert made.released_sums(model, views)[1].tolist() == [-0.5]


def test_rounding_of_all_other_norms_moves_the_count_by_next_to_nothing() -> None:
    """Norms that are all alike, at the bound: a step would flip every bit at once."""
    clip, square = AdaptiveBound(1.3), torch.full((4096,), 1.3**2, dtype=torch.float64)
    made = mechanism(1.0, clip, 4096)
    moved = float((clip.bits(square * (1 + 2.0**-20) ** 2) - clip.bits(square)).sum().abs())
    assert 0.5 + moved <= made.sensitivity(Adjacency.ADD_REMOVE)[1] < 0.52

    def step(square_norms: Tensor) -> Tensor:
        return (square_norms <= clip.bound**2).double() - 0.5

    assert float((step(square * (1 + 2.0**-20) ** 2) - step(square)).sum().abs()) == 4096, (
        "the planted fault"
    )


def test_a_batch_of_another_size_moves_the_count_by_no_more_than_is_charged() -> None:
    """One row many times over, and one example more; the bound lies between the norms that both
    batches give it.
    """
    torch.manual_seed(64)
    model, row, new = nn.Linear(64, 10), torch.rand(1, 1, 64), torch.rand(1, 1, 64)
    for count in (1, 3, 16, 33, 128, 255):
        rows = row.expand(count, 1, 64).contiguous()
        labels = torch.zeros(count + 1, dtype=torch.int64)
        without, more = Labelled(rows, labels[:-1]), Labelled(torch.cat([rows, new]), labels)
        norms = [mechanism()._sum(model, views).square_norms[:count] for views in (without, more)]
        made = mechanism(1.0, AdaptiveBound(float((norms[0][0] * norms[1][0]) ** 0.25)), count + 1)
        before, after = (made.released_sums(model, views)[1] for views in (without, more))
        assert float((after - before).abs()) <= made.sensitivity(Adjacency.ADD_REMOVE)[1]


def test_bits_are_halves_outside_of_the_ramp_and_even_within() -> None:
    clip = AdaptiveBound(2.0)
    norms = torch.tensor(
        [0.0, 1e-30, 1.59, 2.0, 2.51, 1e30, torch.inf, torch.nan], dtype=torch.float64
    )
    assert clip.bits(norms.square()).tolist() == pytest.approx(
        [0.5, 0.5, 0.5, 0.0, -0.5, -0.5, -0.5, -0.5]
    )
    inside = torch.tensor([2 / 1.1, 2 * 1.1], dtype=torch.float64)
    assert float(clip.bits(inside.square()).sum()) == pytest.approx(0)


class Lying:
    coupling, statistic = Coupling.BATCH, None

    def unit_losses(self, h: Tensor, z: Tensor, released: Tensor | None) -> Tensor:
        return z.sum((1, 2))


def test_what_the_proof_does_not_cover_is_refused() -> None:
    for match, call in (
        ("couples examples", lambda: PerExample(Lying(), 100, 0.2, 1.0)),
        (
            "released-statistics",
            lambda: PerExample(unit_form(SpectralContrastive(), 8, 0), 100, 0.2, 1.0),
        ),
        ("count_noise", lambda: mechanism(3.0, AdaptiveBound(1.0, count_noise=1.5))),
        ("quantile", lambda: AdaptiveBound(1.0, quantile=1.0)),
        ("rate", lambda: AdaptiveBound(1.0, rate=0.0)),
        ("clip", lambda: mechanism(1.0, AdaptiveBound(-1.0))),
        ("targets", lambda: mechanism().released_sums(classifier(), images(2)[:, :1])),
    ):
        with pytest.raises(PrivacyError, match=match):
            call()
