"""Released statistics: the step is the objective's own, one example moves it by what is claimed,
and the noise is there.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import pytest
import torch
from privacy.example_cases import (
    KINDS,
    OBJECTIVES,
    WIDTH,
    encoder_projector,
    images,
    newcomer,
    stream,
    written,
)
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.objectives.contrastive import SpectralContrastive
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.objective import TwoViews, total_loss
from secure_fl.objectives.unit_objectives import unit_form
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.mechanisms.released_statistics import ReleasedStatistics, statistic_sum

ROUNDING = 1 + 1e-5
"""Differences of float32 sums: 20 terms of norm 1 and more."""


def mechanism(name: str, noise: float = 1.0, **settings: object) -> ReleasedStatistics:
    made = ReleasedStatistics(
        unit_form(OBJECTIVES[name], WIDTH, 0),
        examples=100,
        sampling_rate=0.2,
        noise_multiplier=noise,
    )
    return replace(made, **settings)  # type: ignore[arg-type]


def test_without_noise_and_clipping_the_step_is_the_objective_s() -> None:
    """All examples drawn: the mean gradient is that of the ordinary spectral loss."""
    model, views = encoder_projector(), images(20)
    everyone = mechanism("spectral", 1e-12, examples=20, sampling_rate=1.0, bound=1e6)
    everyone.gradients(model, views, stream())
    found = written(model)
    model.zero_grad()
    objective = SpectralContrastive()
    total_loss(
        objective.weights, objective.terms(TwoViews(views[:, 0], views[:, 1]), model)
    ).backward()
    expected = written(model)
    assert float((found - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_neighbour_moves_a_released_sum_beyond_its_claim(name: str, kind: str) -> None:
    model, others = encoder_projector(), images(18)
    made = mechanism(name, bound=0.05)
    extra = newcomer(kind, others, seed=7)[None]
    replaced = torch.cat([others[:-1], extra])
    without = made.released_sums(model, others)
    with_it = made.released_sums(model, torch.cat([extra, others]))
    other = made.released_sums(model, replaced)
    assert all(bool(torch.isfinite(total).all()) for total in (*without, *with_it, *other))
    for adjacency, changed in (
        (Adjacency.ADD_REMOVE, with_it),
        (Adjacency.ZERO_OUT, with_it),
        (Adjacency.REPLACE_ONE, other),
    ):
        assert adjacency in made.adjacencies
        for before, after, claim in zip(without, changed, made.sensitivity(adjacency), strict=True):
            assert float((after - before).double().norm()) <= claim * ROUNDING
    if kind in ("nan", "infinite"):
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(without, with_it, strict=True))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_claim_is_not_loose(name: str) -> None:
    """An example alone reaches most of it, so that the test above could fail."""
    model, made = encoder_projector(), mechanism(name, bound=0.05)
    same = images(1)[:, :1].expand(-1, 2, -1, -1, -1)
    statistic, gradient = (
        float(total.double().norm()) for total in made.released_sums(model, same)
    )
    assert 0.99 < statistic <= 1
    assert 0.99 * 0.05 < gradient <= 0.05


def test_a_statistic_that_is_too_long_is_cut() -> None:
    class Longer:
        dimension, size = WIDTH, 3

        def contributions(self, z: Tensor) -> Tensor:
            return 100 * torch.ones(len(z), 3)

        def mean(self, noised_sum: Tensor, expected_units: float, deviation: float) -> Tensor:
            return noised_sum

    assert float(statistic_sum(Longer(), torch.randn(1, 2, WIDTH)).norm()) <= 1


def test_two_releases_cost_one() -> None:
    made = mechanism("spectral", 1.3, statistic_share=0.25)
    assert (made.statistic_noise**-2 + made.gradient_noise**-2) ** -0.5 == pytest.approx(1.3)
    assert made.statistic_noise == pytest.approx(2.6)
    event = made.event(70)
    assert (event.noise_multiplier, event.sampling_rate, event.steps, event.contributions) == (
        1.3,
        0.2,
        70,
        1.0,
    )


@pytest.mark.parametrize("drawn", [0, 10])
def test_noise_of_the_right_deviation_is_in_every_leaf_and_leaves_are_independent(
    drawn: int,
) -> None:
    """Also where nobody was drawn. Bounds are 5 standard deviations of the estimates."""
    model, made = encoder_projector(), mechanism("spectral", 2.0, bound=0.5)
    views = images(drawn) if drawn else torch.empty(0, 1)
    source, steps = stream(), 40
    quiet = replace(made, noise_multiplier=1e-12)
    rows = []
    for _ in range(steps):
        made.gradients(model, views, source)
        noisy = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        quiet.gradients(model, views, source)
        rows.append(
            [
                n - p.grad
                for n, p in zip(noisy, model.parameters(), strict=True)
                if p.grad is not None
            ]
        )
    leaves = [
        torch.stack(leaf).double().flatten(1) * made.expected_units
        for leaf in zip(*rows, strict=True)
    ]
    deviation = made.gradient_noise * 0.5
    for leaf in leaves:
        if drawn == 0:  # else clipped sums differ too, since the released statistic does
            assert abs(float(leaf.var()) / deviation**2 - 1) < 5 * sqrt(2 / leaf.numel())
            assert abs(float(leaf.mean())) < 5 * deviation / sqrt(leaf.numel())
        else:
            assert float(leaf.std()) > 0.8 * deviation
    flat = torch.cat([leaf[:, :8] for leaf in leaves], 1)
    off = torch.corrcoef(flat.T) - torch.eye(flat.shape[1])
    assert float(off.abs().max()) < 0.85  # 1 where two leaves share a draw
    assert abs(float(torch.corrcoef(flat)[0, 1:].mean())) < 5 / sqrt(flat.numel())


def test_the_statistic_is_noised_before_it_is_used() -> None:
    """With all of σ's noise in the statistic and C so large that nothing is clipped, the gradients
    still vary.
    """
    model, views = encoder_projector(), images(10)
    made = mechanism("spectral", 1e-3, statistic_share=1e-9, bound=1e4)
    found = []
    for seed in range(6):
        made.gradients(model, views, stream(seed=seed))
        found.append(written(model) - 0)
    spread = torch.stack(found).std(0).norm()
    by_gradient_noise = made.gradient_noise * made.bound / made.expected_units * sqrt(len(found[0]))
    assert made.statistic_noise == pytest.approx(1e-3 / sqrt(1e-9))
    assert float(spread) > 1.3 * by_gradient_noise


def test_draws_are_of_the_public_index_set() -> None:
    drawn = mechanism("spectral").draw(stream())
    assert drawn.ndim == 2
    assert drawn.shape[1] == 1
    assert set(drawn.flatten().tolist()) <= set(range(100))


class Coupled:
    coupling, statistic = Coupling.BATCH, None


def test_what_the_proof_does_not_cover_is_refused() -> None:
    units = unit_form(SpectralContrastive(), 65, 0)
    for match, call in (
        ("model.embedding = 64", lambda: ReleasedStatistics(units, 100, 0.2, 1.0)),
        ("beyond its statistic", lambda: ReleasedStatistics(Coupled(), 100, 0.2, 1.0)),  # type: ignore[arg-type]
        (
            "has no statistic",
            lambda: replace(mechanism("spectral"), objective=_without_statistic()),
        ),
        ("sampling_rate", lambda: mechanism("spectral", sampling_rate=0.0)),
        ("noise_multiplier", lambda: mechanism("spectral", -1.0)),
        ("noise_multiplier", lambda: mechanism("spectral", 0.0)),
        ("noise_multiplier", lambda: mechanism("spectral", float("nan"))),
        ("clip", lambda: mechanism("spectral", bound=0.0)),
        ("examples", lambda: mechanism("spectral", examples=0)),
        ("statistic_share", lambda: mechanism("spectral", statistic_share=1.0)),
    ):
        with pytest.raises(PrivacyError, match=match):
            call()
    assert ReleasedStatistics(units, 100, 0.2, 1.0, widest=65).objective is units


def _without_statistic() -> object:
    class Alone:
        coupling, statistic = Coupling.PER_EXAMPLE, None

    return Alone()
