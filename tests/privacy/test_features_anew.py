"""Random features that are drawn anew: which step has which, and that none moves a sum further."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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
)
from torch import Tensor, nn

from secure_fl.audit import check_sensitivity
from secure_fl.audit.neighbours import linear_model
from secure_fl.coins import Draws
from secure_fl.config import FederationConfig
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.factory.private_paths import TrainingPath
from secure_fl.federation.facts import PublicFacts
from secure_fl.objectives.unit_objectives import SSDUnits, unit_form
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.engine import PrivateSpec, Sampling, choose_mechanism, train_privately
from secure_fl.privacy.mechanisms.released_statistics import ReleasedStatistics
from secure_fl.privacy.views_apart import Examples
from secure_fl.privacy.whole_path import check_training


def mechanism(name: str = "ssd", **settings: Any) -> ReleasedStatistics:
    return ReleasedStatistics(
        unit_form(OBJECTIVES[name], WIDTH, 0, pairs=32), 60, 0.3, 1.0, 0.05, **settings
    )


def frequencies(of: Any) -> Tensor:
    units = of.objective
    assert isinstance(units, SSDUnits)
    assert units.statistic is not None
    return units.statistic.features.frequencies


@dataclass
class Watched:
    """A mechanism that notes the features of every step that it takes."""

    inner: ReleasedStatistics
    seen: list[Tensor] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def at(self, step: int) -> Watched:
        return Watched(self.inner.at(step), self.seen)

    def gradients(self, model: nn.Module, views: Tensor, source: Any) -> None:
        self.seen.append(frequencies(self.inner))
        self.inner.gradients(model, views, source)


def trained(made: ReleasedStatistics, steps: int, seed: int = 0) -> list[Tensor]:
    """The features of each step of one call of training."""
    x = images(60)

    def views_of(index: Tensor, _: Draws) -> Tensor:
        return x[index[:, 0]]

    watched = Watched(made)
    train_privately(
        encoder_projector(), views_of, watched, PrivateSpec(steps, 0.1), stream(seed=seed)
    )
    return watched.seen


def test_every_step_has_features_of_its_own_which_follow_from_its_number_alone() -> None:
    """Whatever was drawn, and with whatever noise: a call that begins again comes to the same."""
    first, again = trained(mechanism(), 4), trained(mechanism(), 3, seed=1)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=False))
    assert len({tuple(each.flatten().tolist()) for each in first}) == 4
    assert torch.equal(first[2], frequencies(mechanism().at(2)))


@pytest.mark.parametrize("name", ["align_uniform", "ssd"])
def test_a_step_s_charge_noise_and_claim_are_those_of_any_other(name: str) -> None:
    made = mechanism(name)
    later = made.at(11)
    assert not torch.equal(frequencies(made), frequencies(later))
    assert later.event(5) == made.event(5)
    assert (later.statistic_noise, later.gradient_noise) == (
        made.statistic_noise,
        made.gradient_noise,
    )
    for adjacency in Adjacency:
        assert later.sensitivity(adjacency) == made.sensitivity(adjacency)


def test_what_draws_nothing_stays_as_it_is() -> None:
    made = mechanism("spectral")
    assert made.at(5) is made
    alone = choose_mechanism(
        OBJECTIVES["spectral"], Sampling(60, 0.3, 1.0), dimension=WIDTH, seed=0
    )
    assert alone.at(1) is alone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [1, 1000])
def test_no_neighbour_moves_a_sum_further_in_a_later_step(kind: str, step: int) -> None:
    model, others, made = encoder_projector(), images(12), mechanism().at(step)
    extra = newcomer(kind, others, seed=step)[None]
    sums = [made.released_sums(model, x) for x in (others, torch.cat([extra, others]))]
    for before, after, claim in zip(*sums, made.sensitivity(Adjacency.ZERO_OUT), strict=True):
        assert float((after - before).double().norm()) <= claim * (1 + 1e-5)


def test_a_search_finds_nothing_beyond_the_claim_and_nearly_that() -> None:
    units = unit_form(OBJECTIVES["align_uniform"], 4, 0, pairs=32)
    made = ReleasedStatistics(units, 60, 0.3, 1.0, 0.05).at(3)
    report = check_sensitivity(made, shape=(4,), model=linear_model(4), examples=8)
    report.require()
    assert report.ratio > 0.99


def test_the_whole_path_is_checked_with_the_features_of_any_step() -> None:
    def views_of(x: Tensor) -> Any:
        return lambda index, _: x[index[:, 0]][:, None].expand(-1, 2, -1, -1, -1)

    examples = Examples((1, 8, 8), torch.device("cpu"), 9)
    check_training(encoder_projector(), mechanism().at(6), views_of, 1, examples)


def test_features_are_the_same_at_every_client_and_others_in_every_round_and_phase() -> None:
    config = FederationConfig(
        privacy={"unit": "example", "features": 16},
        pools={"start": "sketch", "task": "self_supervised"},
    )
    factory = Factory.of(PublicFacts(config, (1, 8, 8), 10, 12))

    def of(phase: Any, client: int, number: int) -> Tensor:
        path = TrainingPath(factory, phase, client, 0, number)
        return frequencies(path.mechanism(50, 0.2, 1.0))

    one = of("pretrain", 0, 0)
    assert torch.equal(one, of("pretrain", 3, 0))
    for other in (of("pretrain", 0, 1), of("cluster", 0, 0)):
        assert not torch.equal(one, other)
