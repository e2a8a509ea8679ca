"""Neighbourhoods: drawn from the commitment alone, regular, connected, with bounds that simulation
does not exceed.
"""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.secure_sum.embedded import EmbeddedFederation
from secure_fl.errors import SecureSumError
from secure_fl.odds import (
    default_threshold,
    hypergeometric_tail_log2,
    odds,
    smallest_degree,
    withstands,
)
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.graph import Neighbourhoods, commitment, draw


def keys(count: int, salt: int = 0) -> list[bytes]:
    return [salt.to_bytes(4, "big") + i.to_bytes(4, "big") for i in range(count)]


def connected(graph: Neighbourhoods, alive: set[int]) -> bool:
    reached, frontier = set[int](), [min(alive)]
    while frontier:
        client = frontier.pop()
        if client not in reached:
            reached.add(client)
            frontier += [j for j in graph.neighbours[client] if j in alive]
    return reached == alive


@settings(max_examples=60)
@given(st.integers(2, 60), st.sampled_from([None, 2, 4, 8, 20]))
def test_regular_symmetric_and_connected(count: int, degree: int | None) -> None:
    graph = draw(keys(count), degree=degree)
    for i, row in enumerate(graph.neighbours):
        assert (
            len(row)
            == graph.degree
            == len(set(row))
            == (count - 1 if degree is None else min(degree, count - 1))
        )
        assert i not in row
        assert list(row) == sorted(row)
        assert all(i in graph.neighbours[j] for j in row)
        assert graph.holders(i) == tuple(sorted({*row, i}))
    assert connected(graph, set(range(count)))
    assert graph.threshold == default_threshold(graph.degree + 1)


def test_everyone_draws_the_same_and_one_key_changes_it() -> None:
    assert draw(keys(50), degree=6) == draw(keys(50), degree=6)
    changed = keys(50)
    changed[49] = b"another"
    assert draw(changed, degree=6) != draw(keys(50), degree=6)
    assert commitment([b"ab", b"c"]) != commitment([b"a", b"bc"])


def test_a_frozen_draw() -> None:
    """All ends of a federation must agree, whatever versions they run."""
    assert draw(keys(12), degree=4).neighbours[:3] == FROZEN


FROZEN = ((2, 4, 6, 7), (3, 5, 8, 9), (0, 7, 10, 11))


def test_places_are_uniform() -> None:
    """Over draws each client is another's neighbour equally often: chi-square at a fixed alarm rate
    of 1e-6.
    """
    from scipy.stats import chisquare

    counts = np.zeros(11)
    for salt in range(1500):
        for j in draw(keys(12, salt), degree=4).neighbours[0]:
            counts[j - 1] += 1
    assert chisquare(counts).pvalue > 1e-6


def test_the_bounds_hold_in_simulation() -> None:
    """Small odds are needed to see anything: 30 clients, 6 colluders, 4 drop-outs, degree 6."""
    count, degree, colluders, dropouts = 30, 6, 6, 4
    threshold = default_threshold(degree + 1)
    bound = odds(count, degree, threshold, colluders=colluders, dropouts=dropouts)
    bad, gone = set(range(colluders)), set(range(colluders, colluders + dropouts))
    seen = np.zeros(3)
    trials = 1500
    for salt in range(trials):
        graph = draw(keys(count, salt), degree=degree)
        honest = set(range(count)) - bad
        seen[0] += any(
            len(bad.intersection(graph.neighbours[i])) >= 2 * threshold - degree - 1 for i in honest
        )
        seen[1] += separable(graph, honest, bad)
        seen[2] += bool(graph.stranded(sorted(set(range(count)) - gone)))
    for found, limit in zip(
        seen / trials, (bound.exposed, bound.split, bound.stalled), strict=True
    ):
        assert found <= min(1.0, 2.0**limit) + 4 * np.sqrt(0.25 / trials)
    assert 0 < seen[0] < trials


def separable(graph: Neighbourhoods, honest: set[int], bad: set[int]) -> bool:
    """Whether a lying server can cut the ring at some honest client: all honest ones of its next
    half neighbourhood are called dropped, and still t of its own neighbourhood are there to sign.
    """
    ring = around_the_ring(graph)
    half = graph.degree // 2
    for place, client in enumerate(ring):
        beyond = {ring[(place + step) % len(ring)] for step in range(1, half + 1)}
        if client in honest and len(set(graph.holders(client)) - (beyond - bad)) >= graph.threshold:
            return True
    return False


def around_the_ring(graph: Neighbourhoods) -> list[int]:
    """The order of places: neighbours at distance one share all but two of their closed
    neighbourhoods.
    """
    closed = [set(graph.holders(i)) for i in range(len(graph.neighbours))]
    ring, degree = [0], graph.degree
    while len(ring) < len(closed):
        last = ring[-1]
        ring.append(
            next(
                j
                for j in graph.neighbours[last]
                if j not in ring and len(closed[j] & closed[last]) == degree
            )
        )
    return ring


def test_the_smallest_degree_meets_its_bounds_and_the_next_smaller_does_not() -> None:
    for count in (100, 500, 1000):
        colluders, dropouts, shown = count // 20, count // 10, 2 * count // 3 + 1
        degree = smallest_degree(count, colluders=colluders, dropouts=dropouts, shown=shown)
        assert degree < count // 2

        def good(
            degree: int,
            count: int = count,
            colluders: int = colluders,
            dropouts: int = dropouts,
            shown: int = shown,
        ) -> bool:
            threshold = default_threshold(degree + 1)
            stalled = odds(count, degree, threshold, colluders=colluders, dropouts=dropouts).stalled
            return (
                odds(shown, degree, threshold, colluders=colluders, dropouts=0).secret <= -80
                and stalled <= -20
            )

        assert good(degree)
        assert not good(degree - 2)
    assert smallest_degree(6, colluders=3, dropouts=2) == 5


def test_grinding_finds_a_victim_where_the_degree_is_refused() -> None:
    """The attack itself: one colluder draws keys until those of the server hold what opens client
    17. Refused degrees fall, accepted ones leave it without a chance."""
    names, colluders = [b"client-%04d" % number for number in range(40)], {3, 9, 21, 30, 38}
    listed = [name + os.urandom(64) for name in names]
    assert not withstands(27, 6, default_threshold(7), colluders=2)
    for _ in range(20_000):
        listed[38] = names[38] + os.urandom(64)
        graph = draw(listed, degree=6)
        if len(colluders.intersection(graph.neighbours[17])) >= 2 * graph.threshold - 7:
            break
    else:
        pytest.fail("not surrounded: the attack does not work any more, and this test says nothing")
    accepted = smallest_degree(40, colluders=5, dropouts=0, shown=27)
    assert 2 * default_threshold(accepted + 1) - (accepted + 1) > len(colluders)


@pytest.mark.parametrize("neighbours", [2, 6])
def test_a_plan_refuses_a_degree_that_grinding_beats(neighbours: int) -> None:
    federation = EmbeddedFederation(40, protection="masked")
    with pytest.raises(SecureSumError, match="colluders who try keys") as caught:
        federation.begin(0, BlockShape(2, 4), degree=neighbours)
    accepted = int(re.search(r"at least (\d+)", str(caught.value)).group(1))  # type: ignore[union-attr]
    assert federation.begin(0, BlockShape(2, 4), degree=accepted).plan.neighbourhood == accepted + 1
    with pytest.raises(SecureSumError):
        federation.begin(1, BlockShape(2, 4), degree=accepted - 2)


def test_the_complete_graph_has_certain_odds() -> None:
    fine = odds(9, 8, default_threshold(9), colluders=4, dropouts=1)
    assert (fine.exposed, fine.split, fine.stalled) == (float("-inf"),) * 3
    assert odds(9, 8, default_threshold(9), colluders=5, dropouts=0).exposed == 0
    assert odds(9, 8, default_threshold(9), colluders=0, dropouts=3).stalled == 0


def test_stranded_clients_are_named() -> None:
    graph = draw(keys(5))
    assert graph.stranded([0, 1, 2, 3]) == ()
    assert graph.stranded([0, 1, 2]) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("committed", "settings"),
    [
        (keys(1), {}),
        ([b"a", b"a", b"b"], {}),
        (keys(20), {"degree": 3}),
        (keys(20), {"degree": 0}),
        (keys(20), {"degree": 6, "threshold": 3}),
        (keys(20), {"degree": 6, "threshold": 8}),
    ],
)
def test_unsound_graphs_are_refused(committed: list[bytes], settings: dict[str, int]) -> None:
    with pytest.raises(SecureSumError):
        draw(committed, **settings)


@pytest.mark.parametrize(
    ("total", "marked", "draws", "least"),
    [(99, 20, 30, 15), (10, 3, 9, 3), (10, 3, 5, 4), (50, 50, 7, 7), (8, 0, 3, 1)],
)
def test_tail_of_draws_without_replacement(total: int, marked: int, draws: int, least: int) -> None:
    exact = stats.hypergeom(total, marked, draws).sf(least - 1)
    found = 2.0 ** hypergeometric_tail_log2(total, marked, draws, least)
    assert found == pytest.approx(exact, rel=1e-9, abs=1e-300)
