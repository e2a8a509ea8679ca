"""Every broken mechanism is found by a check, and the mechanisms that they are variations of pass
the same check.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from privacy.broken import (
    ActualBatchSize,
    BothViewsCounted,
    Groups,
    GroupsBySimilarity,
    KeepsIncompleteGroups,
    NaiveNTXent,
    PerExample,
    ReplaceOneAtC,
    SameKeyForEveryLeaf,
    chunked_sum,
)
from privacy.randomness import assert_moments, assert_uncorrelated
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from torch import Tensor, nn

from secure_fl import audit
from secure_fl.audit.neighbours import CLOUDS, linear_model
from secure_fl.config import ObjectiveConfig
from secure_fl.errors import PrivacyError
from secure_fl.experimental.logit import LogitDP
from secure_fl.objectives.build import build_objective
from secure_fl.objectives.contrastive import NTXent
from secure_fl.objectives.unit_objectives import CrossEntropy, unit_form
from secure_fl.privacy.mechanisms.group import GroupNTXent, group_form
from secure_fl.privacy.mechanisms.per_example import PerExample as RealPerExample
from secure_fl.privacy.mechanisms.released_statistics import ReleasedStatistics
from secure_fl.privacy.noise import NoiseSource

# Sensitivity


@pytest.mark.parametrize("way", ["hooks", "ghost"])
def test_naive_clipping_of_nt_xent_is_found_at_more_than_five_times_its_claim(way: str) -> None:
    report = audit.check_sensitivity(NaiveNTXent(way=way), examples=64)
    worst = max(
        (
            finding
            for finding in report.findings
            if finding.newcomer in ("hub", "centre", "opposite")
        ),
        key=lambda f: f.ratio,
    )
    assert 5 < worst.ratio < float("inf")
    with pytest.raises(PrivacyError, match="sensitivity"):
        report.require()


def test_more_examples_make_naive_clipping_worse() -> None:
    reports = [audit.check_sensitivity(NaiveNTXent(way="hooks"), examples=n) for n in (16, 64)]
    few, many = (
        max(finding.ratio for finding in report.findings if finding.ratio < float("inf"))
        for report in reports
    )
    assert many > 1.5 * few > 7


@pytest.mark.parametrize(
    ("broken", "at_least"),
    [
        (KeepsIncompleteGroups(members=3, temperature=0.5, bound=0.3), 1.3),
        (GroupsBySimilarity(members=4, temperature=0.5, bound=0.3), 2.0),
        (ActualBatchSize(), 5.0),
        (ReplaceOneAtC(), 1.4),
        (BothViewsCounted(), 1.9),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_faults_are_found(broken: Any, at_least: float) -> None:
    report = audit.check_sensitivity(broken, examples=12, trials=2)
    assert at_least < max(
        finding.ratio for finding in report.findings if finding.ratio < float("inf")
    )
    assert not report.passed


@pytest.mark.parametrize(
    "right",
    [PerExample(), Groups(members=3, temperature=0.5, bound=0.3)],
    ids=lambda value: type(value).__name__,
)
def test_what_they_vary_passes(right: Any) -> None:
    report = audit.check_sensitivity(right, examples=12, trials=2)
    report.require()
    assert report.ratio > 0.95


# Shuffle, then cut into groups


def test_no_coupling_of_shuffled_chunks_keeps_within_the_bound() -> None:
    """If sums could be paired so that each pair were within C, the two releases would be as close
    as C is; no pairing can.
    """
    views, groups, model = five_examples()
    without = [chunked_sum(model, views, order, 2, groups) for order in pairings([1, 2, 3, 4])]
    with_x = [chunked_sum(model, views, order, 2, groups) for order in pairings([0, 1, 2, 3, 4])]
    assert (len(without), len(with_x)) == (3, 15)
    assert farthest_of_the_best_pairing(without * 5, with_x) > 1.3 * groups.bound


def test_a_partition_of_the_public_index_set_keeps_within_it() -> None:
    views, groups, model = five_examples()
    views = torch.cat([views, views[:1] + 0.1])
    missing = torch.cat([torch.full_like(views[:1], torch.nan), views[1:]])
    worlds = (
        [chunked_sum(model, world, order, 2, groups) for order in pairings(list(range(6)))]
        for world in (views, missing)
    )
    assert farthest_of_the_best_pairing(*worlds) <= groups.bound * 1.0001


def five_examples() -> tuple[Tensor, Groups, nn.Module]:
    return (
        CLOUDS["spread"](5, 2, (3,), torch.Generator().manual_seed(1)),
        Groups(members=2, temperature=0.5, bound=0.1),
        linear_model(3),
    )


def pairings(members: list[int]) -> Iterator[list[int]]:
    """Every way to form as many pairs as possible, one after the other; whoever is left over
    comes last.
    """
    if len(members) % 2:
        for left in members:
            yield from (
                [*pairs, left] for pairs in pairings([other for other in members if other != left])
            )
    elif not members:
        yield []
    else:
        first, *others = members
        for partner in others:
            yield from (
                [first, partner, *rest]
                for rest in pairings([other for other in others if other != partner])
            )


def farthest_of_the_best_pairing(one: list[Tensor], other: list[Tensor]) -> float:
    """The smallest d such that two equally likely lists of sums can be paired within d (the
    W∞ distance).
    """
    distance = torch.cdist(torch.stack(one), torch.stack(other)).numpy()
    for d in np.unique(distance):
        if (maximum_bipartite_matching(csr_array(distance <= d)) >= 0).all():
            return float(d)
    raise AssertionError


# Noise


def leaves() -> nn.Module:
    """Parameters of equal size, so that noise drawn twice is seen as such."""
    return nn.Sequential(
        nn.Linear(40, 40, bias=False), nn.Linear(40, 40, bias=False), nn.Linear(40, 40, bias=False)
    )


def noise_of(mechanism: Any, scale: float, steps: int = 4) -> dict[object, Any]:
    """What lands in `.grad` when nobody is drawn, by step and parameter, in units of one
    noise deviation.
    """
    model = leaves()
    stream = NoiseSource.for_tests(5).stream(client=0, round=0, purpose="noise")
    found = {}
    for step in range(steps):
        mechanism.gradients(model, torch.empty(0, 1), stream)
        found |= {
            (step, name): p.grad.flatten().double().numpy() / scale
            for name, p in model.named_parameters()
            if p.grad is not None
        }
    return found


def test_one_key_for_every_leaf_is_found() -> None:
    with pytest.raises(AssertionError, match="deviations from 0"):
        assert_uncorrelated(noise_of(SameKeyForEveryLeaf(), 1.0))


def real_mechanisms() -> dict[str, tuple[Any, float]]:
    """With the deviation of their noise in `.grad`, worked out by hand: σ·C over the expected
    number of units.
    """
    spectral = unit_form(build_objective(ObjectiveConfig(name="spectral_contrastive")), 40, seed=0)
    groups = group_form(NTXent(0.5), 4)
    logit = LogitDP(1.0, 0.5, 2.0, 0.1, 100, 32)
    return {
        "released": (ReleasedStatistics(spectral, 100, 0.1, 2.0, 0.5), 2.0 / 0.9**0.5 * 0.5 / 10),
        "per-example": (RealPerExample(CrossEntropy(), 100, 0.1, 2.0, 0.5), 2.0 * 0.5 / 10),
        "group": (GroupNTXent(groups, 0.5, 2.0, 0.2, 102), 2.0 * 0.5 / (0.2 * 25)),
        "logit": (logit, 2.0 * logit.bound / 10),
    }


@pytest.mark.parametrize("name", ["released", "per-example", "group", "logit"])
def test_noise_of_every_mechanism_is_as_large_as_claimed_and_fresh_for_every_leaf_and_step(
    name: str,
) -> None:
    found = noise_of(*real_mechanisms()[name])
    assert len(found) == 12
    assert_moments(np.concatenate(list(found.values())), 1.0, 3.0)
    assert_uncorrelated(found)
    assert all(not np.isin(one, other).all() for one, other in combinations(found.values(), 2))
