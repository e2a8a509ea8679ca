"""Who is drawn: rates, independence and edges. Statistical bounds are 5 standard deviations, a
false alarm in 1.7 million.
"""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from secure_fl.errors import PrivacyError
from secure_fl.privacy.noise import NoiseSource, NoiseStream
from secure_fl.privacy.sampling import draw_examples, draw_groups

DEVIATIONS = 5.0


def stream(seed: int = 0) -> NoiseStream:
    return NoiseSource.for_tests(seed).stream(client=0, round=0, purpose="sampling")


def near(found: float, trials: int, probability: float) -> bool:
    """Whether a count of successes fits a binomial."""
    return abs(found - trials * probability) <= DEVIATIONS * sqrt(
        trials * probability * (1 - probability)
    )


def test_every_example_is_drawn_at_the_rate_and_by_itself() -> None:
    source, steps, count, rate = stream(), 4000, 40, 0.15
    drawn = torch.zeros(steps, count)
    for step in range(steps):
        drawn[step, draw_examples(count, rate, source)] = 1
    assert near(float(drawn.sum()), steps * count, rate)
    assert all(near(float(of_one), steps, rate) for of_one in drawn.sum(0))
    both = drawn.T @ drawn
    pairs = both[torch.triu(torch.ones(count, count), 1).bool()]
    assert all(near(float(pair), steps, rate**2) for pair in pairs)
    consecutive = (drawn[1:] * drawn[:-1]).sum()
    assert near(float(consecutive), (steps - 1) * count, rate**2)


def test_the_size_of_a_draw_varies_as_poisson_sampling_does() -> None:
    source, steps, count, rate = stream(1), 4000, 100, 0.1
    sizes = torch.tensor([float(len(draw_examples(count, rate, source))) for _ in range(steps)])
    variance = count * rate * (1 - rate)
    assert abs(float(sizes.var()) / variance - 1) < DEVIATIONS * sqrt(2 / steps) * 1.1


def test_draws_may_be_empty_and_may_be_all() -> None:
    assert draw_examples(5, 1e-12, stream()).shape == (0,)
    assert draw_examples(0, 0.5, stream()).shape == (0,)
    assert draw_examples(5, 1.0, stream()).tolist() == [0, 1, 2, 3, 4]
    assert draw_groups(7, 3, 1e-12, stream()).shape == (0, 3)
    assert sorted(draw_groups(6, 3, 1.0, stream()).flatten().tolist()) == list(range(6))


def test_groups_are_disjoint_and_full() -> None:
    source = stream(2)
    for _ in range(200):
        groups = draw_groups(23, 4, 0.6, source)
        members = groups.flatten().tolist()
        assert groups.shape[1] == 4
        assert len(groups) <= 5
        assert len(set(members)) == len(members)
        assert all(0 <= member < 23 for member in members)


def test_groups_are_drawn_at_the_rate_from_a_fresh_uniform_partition() -> None:
    source, steps, count, size, rate = stream(3), 3000, 13, 4, 0.5
    together = torch.zeros(count, count)
    for _ in range(steps):
        for group in draw_groups(count, size, rate, source):
            together[group[:, None], group] += 1
    inside = rate * (count // size * size) / count
    assert all(near(float(n), steps, inside) for n in together.diagonal())
    pairs = together[torch.triu(torch.ones(count, count), 1).bool()]
    assert all(near(float(n), steps, inside * (size - 1) / (count - 1)) for n in pairs)


def test_settings_without_a_meaning_are_refused() -> None:
    for rate in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(PrivacyError, match="sampling_rate"):
            draw_examples(10, rate, stream())
    with pytest.raises(PrivacyError, match="examples"):
        draw_examples(-1, 0.5, stream())
    for size in (0, 11):
        with pytest.raises(PrivacyError, match="group_size"):
            draw_groups(10, size, 0.5, stream())
