"""The private choice: right probabilities, their ratio on neighbours, few releases."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from secure_fl.errors import PrivacyError
from secure_fl.privacy.choice import PrivateChoice, bounded_score
from secure_fl.privacy.noise import NoiseSource, NoiseStream

DRAWS = 20_000
FALSE_ALARM = 1e-6
LOSSES = st.lists(
    st.one_of(
        st.floats(-10, 10), st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e308])
    ),
    min_size=3,
    max_size=3,
)


def stream(seed: int = 0) -> NoiseStream:
    return NoiseSource.for_tests(seed).stream(client=0, round=0, purpose="choice")


@pytest.mark.parametrize("previous", [None, 2])
def test_choices_follow_the_softmax(previous: int | None) -> None:
    mechanism = PrivateChoice(epsilon=1.0, bound=2.0, size=10, stay=0.1)
    scores = [0.3, 0.8, 0.5, 1.9]
    coins = stream()
    expected = mechanism.probabilities(scores, previous)
    shifted = [s - 0.1 * (k == previous) for k, s in enumerate(scores)]
    weights = [exp(-1.0 * s * 10 / (2 * 2.0)) for s in shifted]
    assert expected == pytest.approx([w / sum(weights) for w in weights])
    counts = [0] * 4
    for _ in range(DRAWS):
        counts[mechanism.choose(scores, coins, previous)] += 1
    assert chisquare(counts, [DRAWS * p for p in expected]).pvalue > FALSE_ALARM
    assert chisquare(counts, [DRAWS / 4] * 4).pvalue < FALSE_ALARM  # the test can tell


@given(
    st.lists(LOSSES, min_size=1, max_size=6),
    LOSSES,
    st.integers(0, 5),
    st.floats(0.1, 5),
    st.floats(0.01, 8),
    st.booleans(),
)
def test_no_example_moves_a_choice_beyond_its_epsilon(
    examples: list[list[float]],
    other: list[float],
    at: int,
    bound: float,
    epsilon: float,
    zeroed: bool,
) -> None:
    """One example under three pools, replaced or left out: every ratio within e^ε, and the
    log-ratios within a range of ε.
    """
    size, at = len(examples), at % len(examples)
    mechanism = PrivateChoice(epsilon, bound, size)
    losses = torch.tensor(examples)
    neighbour = losses.clone()
    neighbour[at] = torch.tensor(other)
    keep = torch.arange(size) != at if zeroed else torch.ones(size, dtype=torch.bool)
    one = [bounded_score(losses[:, k], bound, size) for k in range(3)]
    two = [bounded_score(neighbour[keep, k], bound, size) for k in range(3)]
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) <= bound / size * (1 + 1e-9)
    logs = [
        log(p / q)
        for p, q in zip(mechanism.probabilities(one), mechanism.probabilities(two), strict=True)
    ]
    assert max(logs) - min(logs) <= epsilon * (1 + 1e-6) + 1e-9
    assert max(map(abs, logs)) <= epsilon * (1 + 1e-6) + 1e-9


def test_the_epsilon_is_attained() -> None:
    """Opposite changes of two pools' scores reach a log-range of ε, so nothing is given away."""
    mechanism = PrivateChoice(epsilon=2.0, bound=1.0, size=4)
    one, two = mechanism.probabilities([0.5, 0.5]), mechanism.probabilities([0.25, 0.75])
    assert log(two[0] / one[0]) - log(two[1] / one[1]) == pytest.approx(2.0)


def test_many_examples_choose_the_better_pool() -> None:
    mechanism, coins = PrivateChoice(epsilon=0.5, bound=5.0, size=2000), stream(1)
    assert [mechanism.choose([1.0, 0.8, 2.0], coins) for _ in range(50)] == [1] * 50


def test_staying_needs_less_than_a_better_score_by_the_bonus() -> None:
    mechanism, coins = PrivateChoice(epsilon=100.0, bound=1.0, size=1000, stay=0.2), stream(2)
    assert mechanism.choose([0.5, 0.4], coins, previous=0) == 0
    assert mechanism.choose([0.5, 0.2], coins, previous=0) == 1


@pytest.mark.parametrize("scores", [[], [-0.1, 0.2], [0.2, 1.5], [float("nan"), 0.1]])
def test_unbounded_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(PrivacyError, match="bounded"):
        PrivateChoice(1.0, 1.0, 10).choose(scores, stream())


def test_a_score_counts_the_public_size() -> None:
    assert bounded_score(torch.tensor([1.0, 9.0, float("nan"), -3.0]), 2.0, 8) == pytest.approx(
        (1 + 2 + 2 + 0) / 8
    )
    assert bounded_score(torch.zeros(0), 2.0, 8) == 0
    for losses, bound, size in (
        (torch.zeros(9), 1.0, 8),
        (torch.zeros(1), 0.0, 8),
        (torch.zeros(0), 1.0, 0),
    ):
        with pytest.raises(PrivacyError):
            bounded_score(losses, bound, size)


def test_a_choice_that_protects_nothing_is_refused() -> None:
    with pytest.raises(PrivacyError, match="epsilon"):
        PrivateChoice(0.0, 1.0, 1)


def test_the_exponential_mechanism_is_charged_by_its_bounded_range() -> None:
    event = PrivateChoice(1.5, 1.0, 10).event(4)
    assert (event.epsilon, event.bounded_range, event.releases) == (1.5, True, 4)
