"""NT-Xent in groups: against autograd one group at a time, and each rule that its guarantee
rests on.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secure_fl.audit import check_sensitivity
from secure_fl.coins import Coins
from secure_fl.config import ObjectiveConfig
from secure_fl.errors import PrivacyError
from secure_fl.models.heads import EncoderProjector, Projector
from secure_fl.objectives.build import build_objective
from secure_fl.objectives.contrastive import NTXent, SpectralContrastive
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.losses import nt_xent_loss
from secure_fl.objectives.objective import TwoViews, total_loss
from secure_fl.objectives.separation import Separation
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.keyed_dropout import keyed_dropout, row_draws
from secure_fl.privacy.mechanisms.group import GroupNTXent, group_form
from secure_fl.privacy.noise import NoiseSource, NoiseStream

SHAPE = (1, 8, 8)
WIDTH = 8


def network() -> EncoderProjector:
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, WIDTH)
    )
    return EncoderProjector(encoder, Projector(WIDTH, 16, WIDTH, norm="group"))


def rows(units: int, members: int, views: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(
        units, views * members, *SHAPE, generator=torch.Generator().manual_seed(seed)
    )


def mechanism(members: int = 4, objective: Any = None, **options: Any) -> GroupNTXent:
    settings: dict[str, Any] = {
        "bound": 0.5,
        "noise_multiplier": 1e-12,
        "sampling_rate": 0.5,
        "examples": 40,
    } | options
    return GroupNTXent(group_form(objective or NTXent(0.2), members), **settings)


def stream(seed: int = 0) -> NoiseStream:
    return NoiseSource.for_tests(seed).stream(client=0, round=0, purpose="step")


def flat_gradient(loss: Tensor, model: nn.Module) -> Tensor:
    return torch.cat(
        [
            g.flatten()
            for g in torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
        ]
    )


def clipped(gradient: Tensor, bound: float) -> Tensor:
    return gradient * min(1.0, bound / float(gradient.norm()))


# The gradient


@pytest.mark.parametrize("method", ["hooks", "ghost"])
@pytest.mark.parametrize("members", [2, 3, 8])
def test_sum_is_that_of_groups_taken_one_at_a_time(members: int, method: str) -> None:
    model, views = network(), rows(5, members)
    expected = torch.zeros(sum(p.numel() for p in model.parameters()))
    for group in views:
        z = model(group)[1]
        expected += clipped(flat_gradient(nt_xent_loss(z[:members], z[members:], 0.2), model), 0.5)
    found = mechanism(members, method=method).released_sums(model, views)
    assert len(found) == 1
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)


def test_clipping_was_active_and_is_per_group() -> None:
    model, views = network(), rows(5, 4)
    small, large = (mechanism(bound=bound).released_sums(model, views)[0] for bound in (0.01, 1e6))
    assert float(small.norm()) <= 0.05
    assert float(large.norm()) > 1


def test_ssd_around_nt_xent_is_the_objective_of_one_group() -> None:
    separation = Separation(
        torch.tensor([0, 2]),
        basis=torch.linalg.qr(
            torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(3))
        )[0],
    )
    objective = build_objective(ObjectiveConfig(name="ssd_nt_xent", form="normalized"), separation)
    assert set(objective.weights) == {"nt_xent", "dsr", "distillation"}
    model, views = network(), rows(3, 4)
    expected = sum(
        clipped(
            flat_gradient(
                total_loss(
                    objective.weights, objective.terms(TwoViews(group[:4], group[4:]), model)
                ),
                model,
            ),
            0.5,
        )
        for group in views
    )
    torch.testing.assert_close(
        mechanism(4, objective).released_sums(model, views)[0], expected, rtol=1e-4, atol=1e-5
    )


# Missing members


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_group_with_a_broken_or_missing_member_contributes_zero(value: float) -> None:
    model, views = network(), rows(5, 4)
    broken = views.clone()
    broken[1, 6, 0, 3, 3] = value
    others = views[[0, 2, 3, 4]]
    torch.testing.assert_close(
        mechanism().released_sums(model, broken)[0], mechanism().released_sums(model, others)[0]
    )
    assert not mechanism().released_sums(model, broken[1:2])[0].any()


def test_a_missing_member_takes_nobody_else_s_place_or_masks() -> None:
    """With dropout: the others' groups add what they add when it is there."""
    model, views = network(), rows(5, 4)
    model.encoder.append(nn.Dropout(0.5))
    made, draws = mechanism(), Coins.public(0).at(0, torch.arange(20))
    missing = views.clone()
    missing[1, [0, 4]] = torch.nan  # the first member's two views
    missing[1, [1, 5]] = torch.nan

    def sums(views: Tensor, chosen: list[int]) -> Tensor:
        members = torch.cat([torch.arange(4 * unit, 4 * unit + 4) for unit in chosen])
        with keyed_dropout(model, row_draws(draws[members], len(chosen), 8)):
            return made.released_sums(model, views[chosen])[0]

    everybody = sums(missing, [0, 1, 2, 3, 4])
    others = sums(missing, [0, 2, 3, 4])
    alone = sums(missing, [1])
    torch.testing.assert_close(everybody, others + alone, rtol=1e-4, atol=1e-6)
    assert not alone.any()


@pytest.mark.slow
@pytest.mark.parametrize("members", [2, 3, 5])
def test_long_search_finds_no_change_beyond_the_claim(members: int) -> None:
    """Zero-out within C, replaced within 2C; and nearly that is found."""
    report = check_sensitivity(mechanism(members, NTXent(0.5), bound=0.2), examples=10, trials=10)
    report.require()
    assert report.ratio > 0.95


# Drawing


def test_groups_are_disjoint_complete_fresh_and_of_the_index_set() -> None:
    coins, seen = stream(), set()
    for _ in range(50):
        drawn = mechanism(examples=43).draw(coins)
        assert drawn.shape[1] == 4
        assert len(drawn.unique()) == drawn.numel()
        assert drawn.numel() == 0 or (int(drawn.min()) >= 0 and int(drawn.max()) < 43)
        seen |= {tuple(sorted(group)) for group in drawn.tolist()}
    assert len(seen) > 0.95 * 50 * 5


def test_rates_are_those_that_the_event_charges() -> None:
    """3,000 steps; each count within 5 deviations, chance 1e-6 a check."""
    coins = stream(1)
    steps = 3000
    groups = mechanism(examples=12, sampling_rate=0.3, noise_multiplier=1.0)
    sizes, with_zero, pairs = [], 0, 0
    for _ in range(steps):
        drawn = groups.draw(coins)
        sizes.append(len(drawn))
        mine = drawn[(drawn == 0).any(1)]
        with_zero += len(mine)
        pairs += int((mine == 1).any())
    deviation = (steps * 0.3 * 0.7) ** 0.5
    assert abs(with_zero - 0.3 * steps) < 5 * deviation
    assert abs(sum(sizes) - 0.9 * steps) < 5 * 3**0.5 * deviation
    together = 0.3 * 3 / 11
    assert abs(pairs - together * steps) < 5 * (steps * together) ** 0.5
    variance = torch.tensor(sizes, dtype=torch.float64).var()
    assert abs(float(variance) - 0.63) < 0.1, "groups are drawn by independent coins"
    assert groups.event(9).sampling_rate == 0.3


# What is charged and written


def test_events_and_claims() -> None:
    groups = mechanism(noise_multiplier=1.5)
    assert (
        groups.event(3).noise_multiplier,
        groups.event(3).steps,
        groups.event(3).contributions,
    ) == (1.5, 3, 1.0)
    assert groups.adjacencies == {Adjacency.ZERO_OUT, Adjacency.REPLACE_ONE}
    assert groups.sensitivity(Adjacency.ZERO_OUT) == [0.5]
    assert groups.sensitivity(Adjacency.REPLACE_ONE) == [1.0]


NORMALISERS: list[tuple[int, dict[str, Any], float]] = [
    (5, {}, 5.0),
    (3, {}, 5.0),
    (5, {"examples": 43, "sampling_rate": 0.3}, 3.0),
]


@pytest.mark.parametrize(("units", "options", "constant"), NORMALISERS)
def test_the_normaliser_is_a_public_constant(
    units: int, options: dict[str, Any], constant: float
) -> None:
    model, views, groups = network(), rows(units, 4), mechanism(**options)
    total = groups.released_sums(model, views)[0]
    groups.gradients(model, views, stream())
    written = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(written, total / constant)


def test_an_empty_draw_is_noise_of_the_same_size() -> None:
    model, groups = network(), mechanism(noise_multiplier=2.0, examples=400)
    groups.gradients(model, torch.empty(0, 1), stream())
    empty = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    groups.gradients(model, rows(5, 4), stream())
    full = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert 0.9 < float(empty.std()) / (2.0 * 0.5 / 50) < 1.1
    torch.testing.assert_close(
        full - empty, groups.released_sums(model, rows(5, 4))[0] / 50, rtol=1e-3, atol=1e-6
    )


def test_frozen_parameters_get_no_gradient() -> None:
    model = network()
    model.encoder.requires_grad_(False)
    mechanism(noise_multiplier=1.0).gradients(model, rows(3, 4), stream())
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.projector.parameters())


# What is refused


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: group_form(NTXent(), 1), "group_size"),
        (lambda: group_form(NTXent(), 17), "group_size"),
        (lambda: group_form(SpectralContrastive(), 4), "released-statistics"),
        (
            lambda: group_form(build_objective(ObjectiveConfig(name="ssd")), 4),
            "released-statistics",
        ),
        (
            lambda: group_form(
                build_objective(ObjectiveConfig(name="ssd_nt_xent"), Separation(torch.tensor([0]))),
                4,
            ),
            "normalized",
        ),
        (lambda: mechanism(bound=0.0), "clip"),
        (lambda: mechanism(sampling_rate=1.5), "sampling_rate"),
        (lambda: mechanism(examples=3), "one group of 4"),
    ],
)
def test_settings_without_a_guarantee_are_refused(make: Any, word: str) -> None:
    with pytest.raises(PrivacyError, match=word):
        make()


def test_batch_statistics_are_refused() -> None:
    model = EncoderProjector(
        nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH)), Projector(WIDTH, 16, WIDTH, norm="batch")
    )
    with pytest.raises(PrivacyError, match="group"):
        mechanism().released_sums(model, rows(2, 4))


def test_units_declare_their_coupling() -> None:
    units = group_form(NTXent(), 4)
    assert units.coupling is Coupling.GROUP
    assert units.statistic is None
