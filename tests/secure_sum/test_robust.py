"""Groups that lie move a robust combination no further than honest groups reach; a mean they move
as they like.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from secure_sum.round_helpers import make_federation, make_vectors

from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.robust import combine_means, draw_groups


@given(count=st.integers(2, 60), size=st.integers(2, 9), seed=st.binary(max_size=8))
def test_groups_are_a_partition(count: int, size: int, seed: bytes) -> None:
    names = [f"c{k}" for k in range(count)]
    if count < size:
        with pytest.raises(SecureSumError):
            draw_groups(names, size, seed)
        return
    groups = draw_groups(names, size, seed)
    assert sorted(name for group in groups for name in group) == sorted(names)
    assert min(len(group) for group in groups) >= size
    assert groups == draw_groups(names[::-1], size, seed)


def test_groups_follow_the_seed() -> None:
    names = [f"c{k}" for k in range(30)]
    assert draw_groups(names, 3, b"a") != draw_groups(names, 3, b"b")


@given(groups=st.integers(3, 9), bad=st.integers(0, 4), seed=st.integers(0, 99))
def test_bad_groups_stay_between_honest_ones(groups: int, bad: int, seed: int) -> None:
    bad = min(bad, (groups - 1) // 2)
    rng = np.random.default_rng(seed)
    means = rng.uniform(-50, 50, (groups, 20))
    honest = means[bad:].copy()
    means[:bad] = rng.choice([-(2**40), 2**40], (bad, 1))
    for how in ("median", "trimmed_mean"):
        found = combine_means(means.copy(), how, trim=bad)  # type: ignore[arg-type]
        assert (found >= honest.min(0) - 1e-9).all()
        assert (found <= honest.max(0) + 1e-9).all()


def test_what_cannot_be_combined_is_refused() -> None:
    for means, trim in ((np.zeros((0, 1)), 0), (np.ones((2, 1)), 1), (np.ones((2, 1)), -1)):
        with pytest.raises(SecureSumError, match="trim"):
            combine_means(means, "trimmed_mean", trim=trim)


def test_a_round_for_each_group() -> None:
    """One client pushes with all its clip; the median of three groups does not follow."""
    federation = make_federation("masked", clients=6)
    shape = BlockShape(1, 4)
    vectors = make_vectors(shape, dict.fromkeys(federation.clients, 0), most=3)
    vectors["client-0000"] = BlockVector.one_hot(shape, 0, np.full(4, 80_000))
    groups = draw_groups(list(vectors), 2, b"last view")
    opened = [
        federation.round(
            number, {name: vectors[name] for name in group}, shape, cohort=group
        ).opened
        for number, group in enumerate(groups)
    ]
    assert [found.survivors for found in opened] == [2, 2, 2]
    means = np.stack([found.pools[0] / found.survivors for found in opened])
    assert np.abs(combine_means(means, "median")).max() <= 3
    assert means.mean(0).min() > 1000
