"""The sketch start ends after the fewest rounds that lost nothing when they were measured."""

from __future__ import annotations

import pytest

from bench import sketch_rounds
from bench.sketch_rounds import VOTES, course, fewest, qualities, table
from secure_fl.config import FederationConfig


@pytest.mark.parametrize("protection", ["plain", "masked"])
def test_runs_take_as_many_votes_as_lose_nothing(protection: str) -> None:
    pools = FederationConfig(security={"protection": protection}).pools
    assert pools.sketch_iterations == fewest(pools.sketch_starts)


def test_one_vote_less_was_measured_to_lose_something() -> None:
    found = qualities(128)
    less, last = found[fewest(128) - 2], found[-1]
    assert less.worst > 0.005 or less.found < last.found or less.ari < last.ari - 0.0005
    assert table(128).count("\n") == VOTES + 1


def test_groups_that_lie_apart_are_found_vote_by_vote() -> None:
    name = "4 groups of 12 clients, 4 apart"
    case = next(each for each in sketch_rounds.cases() if each.name == name)
    sketches, truth = case.draw(0)
    after = course(sketches, 4, 32, seed=0)
    assert len(after) == VOTES
    assert after[-1][1], "no centre moves any more"
    groups = after[-1][0]
    assert len({*zip(truth, groups, strict=True)}) == 4
