"""Groups that lie move a robust combination no further than honest groups reach; a mean they move as they like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from secure_sum.round_helpers import make_federation, make_vectors

from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.robust import combine_groups, draw_groups
from secure_fl.secure_sum.round_plan import BlockShape, BlockVector


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
    sums = [rng.integers(-50, 50, 20) for _ in range(groups)]
    counts = rng.integers(1, 6, groups).tolist()
    honest = np.stack([vector / count for vector, count in zip(sums[bad:], counts[bad:], strict=True)])
    lies = [np.full(20, rng.choice([-(2**40), 2**40])) for _ in range(bad)]
    for how in ("median", "trimmed_mean"):
        found = combine_groups([*lies, *sums[bad:]], counts, how, trim=bad)  # type: ignore[arg-type]
        assert (found >= honest.min(0) - 1e-9).all()
        assert (found <= honest.max(0) + 1e-9).all()
    if bad:
        assert np.abs(combine_groups([*lies, *sums[bad:]], counts, "mean")).max() > 1e9 or bad > 1


def test_the_mean_is_that_of_all_clients() -> None:
    np.testing.assert_allclose(combine_groups([np.array([4, 8]), np.array([2, 1])], [3, 1], "mean"), [1.5, 2.25])
    np.testing.assert_allclose(combine_groups([np.array([4]), np.array([9]), np.array([0])], [2, 1, 0]), [5.5])


def test_what_cannot_be_combined_is_refused() -> None:
    one = [np.array([1])]
    for arguments in (([], []), (one, [0]), ([np.array([1]), np.array([1, 2])], [1, 1])):
        with pytest.raises(SecureSumError):
            combine_groups(*arguments)
    with pytest.raises(SecureSumError, match="trim"):
        combine_groups(one * 2, [1, 1], "trimmed_mean", trim=1)


def test_a_round_for_each_group() -> None:
    """One client pushes with all its clip; the median of three groups does not follow."""
    federation = make_federation("masked", clients=6)
    shape = BlockShape(1, 4)
    vectors = make_vectors(shape, dict.fromkeys(federation.clients, 0), most=3)
    vectors["client-0000"] = BlockVector.one_hot(shape, 0, np.full(4, 80_000))
    groups = draw_groups(list(vectors), 2, b"last view")
    opened = [federation.round(number, {name: vectors[name] for name in group}, shape, cohort=group).opened for number, group in enumerate(groups)]
    sums, counts = [found.pools[0] for found in opened], [found.survivors for found in opened]
    assert counts == [2, 2, 2]
    assert np.abs(combine_groups(sums, counts, "median")).max() <= 3
    assert combine_groups(sums, counts, "mean").min() > 1000
