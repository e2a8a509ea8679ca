"""The tree behind correlated noise: its nodes, its sensitivity by brute force, and that no other
factorisation gains much where all take part.
"""

from __future__ import annotations

from itertools import combinations, pairwise
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from experimental.trees import by_clients, mixing, tree
from numpy.typing import NDArray

from secure_fl.errors import PrivacyError
from secure_fl.experimental.correlated import (
    node_of,
    nodes_in_prefix,
    participation_bound,
    require_correlated_noise,
)


def patterns(rounds: int, participations: int, separation: int) -> list[tuple[int, ...]]:
    """All sets of rounds that a client may take part in."""
    sizes = range(1, min(participations, rounds) + 1)
    sets = (chosen for size in sizes for chosen in combinations(range(rounds), size))
    return [
        chosen
        for chosen in sets
        if all(later - earlier >= separation for earlier, later in pairwise(chosen))
    ]


def prefixes(rounds: int) -> NDArray[np.float64]:
    """A: `[T, T]`, row t sums rounds 0…t."""
    return np.tril(np.ones((rounds, rounds)))


def largest(rounds: int, participations: int, separation: int) -> float:
    """M by brute force, from prefix sums and the covariance BBᵀ of their noise alone: of the
    squared distance between neighbours' prefix sums.
    """
    a, precision = prefixes(rounds), np.linalg.inv(mixing(rounds) @ mixing(rounds).T)
    found = 0.0
    for chosen in patterns(rounds, participations, separation):
        change = a[:, list(chosen)].sum(1)
        found = max(found, float(change @ precision @ change))
    return found


def test_a_prefix_is_the_disjoint_union_of_its_nodes() -> None:
    for t in range(70):
        covered = sorted(
            round_number for node in nodes_in_prefix(t) for round_number in node_of(node)
        )
        assert covered == list(range(t + 1))
        assert len(nodes_in_prefix(t)) == (t + 1).bit_count()


# Sensitivity


@pytest.mark.parametrize("rounds", range(1, 12))
def test_no_pattern_of_participation_moves_more_than_is_charged(rounds: int) -> None:
    """Every number of rounds up to 11, every k, every b; for b = 1 the bound is attained."""
    for separation in range(1, rounds + 1):
        for participations in range(1, rounds + 1):
            found, claim = (
                largest(rounds, participations, separation),
                participation_bound(rounds, participations, separation),
            )
            assert found <= claim * (1 + 1e-9)
            if separation == 1:
                assert found == pytest.approx(claim)
            else:
                assert claim <= 1.5 * found, "safe, but not wasteful"


def test_a_charge_for_one_participation_is_caught_when_two_occur() -> None:
    for separation in (1, 2, 4):
        assert largest(8, 2, separation) > 1.2 * participation_bound(8, 1, separation)
    assert largest(8, 2, 2) > 1.2 * 2 * participation_bound(4, 1), (
        "nor is it two trees of one participation each"
    )


def test_one_participation_costs_a_node_a_level_and_all_of_them_the_whole_tree() -> None:
    assert [participation_bound(rounds, 1) for rounds in (1, 2, 3, 4, 7, 8, 1024)] == [
        1,
        2,
        2,
        3,
        3,
        4,
        11,
    ]
    for rounds in (1, 2, 8, 64):
        assert participation_bound(rounds, rounds) == rounds * (3 * rounds - 1) // 2
        assert participation_bound(rounds, rounds) == sum(
            len(node_of(t)) ** 2 for t in range(rounds)
        )


@pytest.mark.parametrize(("participations", "separation"), [(1, 1), (2, 1), (2, 3), (7, 1)])
def test_random_vectors_do_not_move_the_nodes_farther(participations: int, separation: int) -> None:
    """Vectors of length at most L in every allowed pattern: the chain's outputs, put together to
    nodes, differ by at most the event's l2 and l1.
    """
    generator, plan = (
        torch.Generator().manual_seed(0),
        tree(rounds=7, participations=participations, separation=separation),
    )
    event, longest = plan.event(), 0.0
    for chosen in patterns(7, participations, separation):
        base = torch.randn(3, generator=generator)
        moved = torch.zeros(7, 3, dtype=torch.int64)
        for t in chosen:
            direction = base if t % 2 else torch.randn(3, generator=generator) / 4 + base
            moved[t] = (direction / direction.norm() * 64).trunc().long()
        nodes = torch.stack([moved[list(node_of(t))].sum(0) for t in range(7)]).double()
        longest = max(longest, float(nodes.norm()))
        assert float(nodes.abs().sum()) <= event.l1
    assert 0.9 * event.l2 < longest <= event.l2


# No factorisation gains much under full participation


@pytest.mark.parametrize("rounds", [1, 2, 5, 16, 33])
def test_under_full_participation_no_factorisation_saves_more_than_a_third(rounds: int) -> None:
    """Each factorisation's error, for equal vectors alone, is above the docstring's bound: the
    tree, the square root, random ones.
    """
    a, generator = prefixes(rounds), np.random.default_rng(rounds)
    least = rounds * (rounds + 1) * (2 * rounds + 1) / 6
    independent = np.square(a).sum() * rounds
    assert independent / least == pytest.approx(3 * rounds / (2 * rounds + 1))
    toeplitz = [1.0]
    for j in range(1, rounds):
        toeplitz.append(toeplitz[-1] * (2 * j - 1) / (2 * j))
    root = np.array(
        [[toeplitz[i - j] if i >= j else 0.0 for j in range(rounds)] for i in range(rounds)]
    )
    np.testing.assert_allclose(root @ root, a, atol=1e-12)
    spread = np.eye(rounds) + (sqrt(rounds) - 1) / rounds  # ‖C⁻¹‖ is small where A is large
    for c in (
        np.eye(rounds),
        a,
        root,
        spread,
        np.linalg.inv(mixing(rounds)) @ a,
        *generator.normal(size=(50, rounds, rounds)),
    ):
        b = a @ np.linalg.inv(c)
        ours = np.square(b).sum() * np.square(c.sum(1)).sum()
        assert ours >= least * (1 - 1e-6)
        assert independent / ours <= 1.5 * (1 + 1e-6)


def test_the_tree_saves_much_for_one_participation_and_nothing_for_all() -> None:
    for participations, separation, error in (
        (1, 1, 0.107),
        (4, 256, 0.132),
        (4, 1, 0.366),
        (32, 32, 0.512),
    ):
        found = tree(
            rounds=1024, participations=participations, separation=separation
        ).against_independent
        assert found == pytest.approx(error, abs=5e-4)
    assert by_clients(rounds=64).against_independent == pytest.approx(8.86, abs=0.01)
    last = by_clients(rounds=64, noise_multiplier=1.0)
    independent = 64 * 64 * 64**2  # T draws whose T releases together are of z = 1
    assert last.prefix_variance(63) / independent == pytest.approx(1.5 - 1 / 128)


# Who may add noise, and which numbers fit


def test_correlated_noise_is_valid_only_where_nobody_can_go_missing() -> None:
    assert "excludes the key holder" in require_correlated_noise(
        adder="key_holder", full_participation=False
    )
    assert "lost client" in require_correlated_noise(adder="clients", full_participation=True)
    for adder, full in (("clients", False), ("server", True)):
        with pytest.raises(PrivacyError, match="drops out"):
            require_correlated_noise(adder=adder, full_participation=full)
    for options in ({"participations": 7}, {"separation": 2}, {"adder": "server"}):
        with pytest.raises(PrivacyError, match="drops out"):
            by_clients(**options)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": ""}, "name"), ({"dimension": 0}, "dimension"), ({"levels": 0},
         "levels"), ({"participations": 0}, "participations"),
        ({"rounds": 0}, "rounds"), ({"separation": 0}, "separation"), ({"noise_multiplier": 0.0},
         "noise_multiplier"), ({"roster": 0}, "roster"),
        ({"kind": "laplace"}, "kind"), ({"noise_multiplier": 0.01}, "levels"), ({"levels": 2**20},
         "levels"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(PrivacyError, match=field):
        tree(**options)
