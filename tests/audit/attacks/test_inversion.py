"""Examples picked and read out of gradients: closed forms, the bar, chance, and planted faults."""

from __future__ import annotations

import base64
from functools import cache

import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from secure_fl.audit.attacks.first_layer import FIRST_LAYER, nearest
from secure_fl.audit.attacks.imprint import Imprint, between, first_layer, quotients, whole
from secure_fl.audit.attacks.inversion import INVERSION
from secure_fl.audit.attacks.inversion_cases import Player
from secure_fl.audit.attacks.inversion_game import Guesses
from secure_fl.audit.attacks.inversion_images import decibels, grey_png, paired
from secure_fl.audit.attacks.inversion_ranks import Ranks
from secure_fl.audit.attacks.inversion_round import AttackedRound
from secure_fl.audit.attacks.rates import allowed_guesses
from secure_fl.audit.check import Check, Depth, Fault
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.planted.inversion import FAULTS, small
from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig
from secure_fl.seeds import generator_of

CHECKS: dict[str, Check] = {each.name: each for each in (INVERSION, FIRST_LAYER)}


@cache
def player() -> Player:
    """A dozen images of candidates' law, and a hundred candidates."""
    attacked = AttackedRound.of(Subject(small(limit=360)), 0)
    ranks = Ranks(attacked, attacked.outside[:100], 64, 1)
    return Player(ranks, generator_of(0, "test"))


def run(fault: Fault) -> Outcome:
    check, subject = CHECKS[fault.check], Subject(fault.config())
    assert check.refused(subject) == ""
    assert check.estimate(subject, Depth.MINUTES) < 60
    return check.run(subject, Depth.MINUTES, 0, lambda _: None)


# The first layer in closed form


def gradients(module: nn.Linear, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    module.zero_grad()
    (module(x) * delta).sum().backward()
    weight, bias = module.weight.grad, module.bias.grad
    assert weight is not None
    assert bias is not None
    return weight, bias


def test_one_example_is_read_exactly_and_several_as_their_weighted_mean() -> None:
    torch.manual_seed(0)
    layer, x, delta = nn.Linear(12, 5), torch.rand(3, 12), torch.rand(3, 5) + 0.1
    alone = quotients(*gradients(layer, x[:1], delta[:1]))
    assert torch.allclose(alone, x[:1].expand(5, -1), atol=1e-5)
    several = quotients(*gradients(layer, x, delta))
    assert torch.allclose(several, (delta / delta.sum(0)).T @ x, atol=1e-5)


def test_a_row_that_nothing_has_moved_says_nothing() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(12, 5), torch.rand(1, 12)
    delta = torch.tensor([[1.0, 0.0, 2.0, 0.0, 0.0]])
    assert len(quotients(*gradients(layer, x, delta))) == 2


def test_an_imprint_reads_a_batch_whose_examples_fall_between_thresholds() -> None:
    torch.manual_seed(0)
    law, x = torch.rand(500, 1, 4, 4), torch.rand(6, 1, 4, 4)
    model = Imprint(nn.Flatten(), law, bins=400, seed=1)
    (model(x) * torch.rand(6, 16)).sum().backward()
    weight, bias = model.bins.weight.grad, model.bins.bias.grad
    assert weight is not None
    assert bias is not None
    places = (model.bins(x.flatten(1)) > 0).sum(1)
    alone = torch.stack([(places == each).sum() == 1 for each in places]) & (places > 0)
    near = nearest(between(weight, bias), x) > 30
    assert alone.sum() >= 4
    assert bool((near >= alone).all())
    assert float((model(x).detach() - x.flatten(1)).abs().mean()) < 1


def test_only_layers_with_a_bias_that_see_whole_examples_are_read() -> None:
    bare = nn.Sequential(nn.Flatten(), nn.Linear(16, 4, bias=False), nn.Linear(4, 4))
    assert first_layer(bare) is None
    named = first_layer(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)))
    assert named is not None
    assert named[0] == "1"
    assert whole(named[1], (1, 4, 4))
    assert not whole(nn.Conv2d(1, 2, 3), (1, 4, 4))


# The game


def test_the_source_is_picked_from_a_plain_gradient_of_four_images() -> None:
    chosen = player()
    played = chosen.play(16, chosen.plain(4, 1), {"span": chosen.spanning(8)})
    assert played.guesses["span"].rate >= 0.5


def test_noise_names_the_source_by_chance() -> None:
    chosen = player()

    def noise(_: Tensor, seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed % (1 << 60))
        model = chosen.ranks.attacked.model()
        return {
            name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()
        }

    played = chosen.play(60, noise, {"span": chosen.spanning(8)})
    assert not played.guesses["span"].above_claim(1e-4)


def test_a_plain_step_is_undone_to_its_gradient() -> None:
    chosen = player()
    batch = chosen.batch(chosen.ranks.images[0], 3)
    attacked = chosen.ranks.attacked
    one = attacked.gradients(attacked.plain(batch, 1, 5), 1)
    assert all(bool(each.isfinite().all()) for each in one.values())
    basis = chosen.ranks.span(one, 6)
    assert torch.allclose(basis @ basis.T, torch.eye(len(basis)), atol=1e-5)
    assert len(basis) == 6


def test_guesses_are_held_against_chance_or_what_epsilon_allows() -> None:
    assert Guesses(3, 60, 100).by_claim == pytest.approx(binom.sf(2, 60, 0.01))
    claimed = Guesses(3, 60, 100, epsilon=2.0, delta=1e-5)
    assert claimed.claimed == allowed_guesses(2.0, 1e-5, 100)
    assert claimed.by_claim > Guesses(3, 60, 100).by_claim
    limit = Guesses(0, 60, 100).allowed()
    assert not Guesses(round(limit * 60), 60, 100).above_claim()
    assert Guesses(round(limit * 60) + 1, 60, 100).above_claim()
    low, high = Guesses(8, 10, 100).interval  # exact, as tables of Clopper and Pearson's have it
    assert (low, high) == pytest.approx((0.4439, 0.9748), abs=1e-4)


def test_images_are_paired_measured_and_drawn() -> None:
    torch.manual_seed(0)
    true = torch.rand(4, 1, 3, 3)
    assert torch.equal(paired(true.flip(0), true), true)
    assert decibels(true, true + 0.1).tolist() == pytest.approx([20.0] * 4, abs=1e-3)
    made = grey_png(torch.zeros(2, 3, dtype=torch.uint8).numpy())
    assert made.startswith(b"\x89PNG")
    assert made.endswith(b"IEND\xaeB`\x82")


def test_runs_without_views_are_refused() -> None:
    masked = Subject(FederationConfig(objective={"name": "masked"}))  # type: ignore[arg-type]
    assert all("no views" in check.refused(masked) for check in CHECKS.values())


# The checks


def test_a_first_layer_of_one_client_in_the_open_is_found() -> None:
    fault = next(each for each in FAULTS if each.name == "first layer of one client's update")
    with fault.plant():
        found = run(fault)
    assert found.verdict == "broken"
    assert found.false_alarm == 1e-3
    assert len(found.pictures) <= 4
    assert all(base64.b64decode(each.png).startswith(b"\x89PNG") for each in found.pictures)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: each.name)
def test_a_planted_fault_is_found_and_the_honest_run_held(fault: Fault) -> None:
    honest = run(fault)
    assert honest.verdict == "held", honest.said
    assert len(honest.pictures) <= 4
    with fault.plant():
        assert run(fault).verdict == "broken"
