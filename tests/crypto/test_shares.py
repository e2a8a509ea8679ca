"""Secret sharing: vectors from elsewhere, every threshold, exact secrecy in a toy field,
and refusals.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.crypto.shares import (
    ELEMENT_BYTES,
    PRIME,
    SHARE_BYTES,
    Share,
    combine,
    combine_many,
    default_threshold,
    evaluate,
    split,
    split_many,
    weights_at_zero,
)
from secure_fl.errors import SecureSumError

SECRET = bytes(range(100, 132))


def test_published_example() -> None:
    """The worked example of Wikipedia's article on Shamir's scheme, modulo 1613."""
    points = {1: 1494, 2: 329, 3: 965, 4: 176, 5: 1188, 6: 775}
    assert {x: evaluate([1234, 166, 94], x) % 1613 for x in points} == points
    for chosen in combinations(points, 3):
        weights = weights_at_zero(chosen, 1613)
        assert sum(w * points[x] for w, x in zip(weights, chosen, strict=True)) % 1613 == 1234


@pytest.mark.parametrize("indices", [(1, 2, 3), (2, 5, 7, 11), (1, 3, 200, 65535)])
def test_weights_against_rational_elimination(indices: tuple[int, ...]) -> None:
    """Weights by solving the Vandermonde system over the rationals, then reduced into the field: no
    Lagrange formula in it.
    """
    size = len(indices)
    rows = [
        [Fraction(x) ** power for x in indices] + [Fraction(power == 0)] for power in range(size)
    ]
    for column in range(size):
        pivot = next(r for r in range(column, size) if rows[r][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for r in range(size):
            if r != column:
                rows[r] = [
                    a - rows[r][column] * b for a, b in zip(rows[r], rows[column], strict=True)
                ]
    expected = [row[-1].numerator * pow(row[-1].denominator, -1, PRIME) % PRIME for row in rows]
    assert weights_at_zero(indices, PRIME) == expected


def test_prime_is_the_standard_one() -> None:
    """Lucas and Lehmer's test, which is exact for Mersenne numbers."""
    value = 4
    for _ in range(519):
        value = (value * value - 2) % PRIME
    assert PRIME == 2**521 - 1
    assert value == 0


@settings(max_examples=60)
@given(st.binary(min_size=1, max_size=32), st.integers(2, 12), st.data())
def test_any_threshold_of_shares_gives_the_secret(
    secret: bytes, count: int, data: st.DataObject
) -> None:
    threshold = data.draw(st.integers(count // 2 + 1, count))
    shares = split(secret, threshold, count)
    chosen = data.draw(st.permutations(shares))[: data.draw(st.integers(threshold, count))]
    assert combine([Share.from_bytes(share.to_bytes()) for share in chosen]) == secret
    with pytest.raises(SecureSumError, match="too few"):
        combine(shares[: threshold - 1])


def test_share_size_says_nothing() -> None:
    sizes = {
        len(share.to_bytes())
        for secret in (b"\0", bytes(32), b"\xff" * 32, b"ab")
        for share in split(secret, 3, 4)
    }
    assert sizes == {SHARE_BYTES} == {71}


def test_a_share_shows_no_value() -> None:
    share = split(SECRET, 2, 3)[0]
    assert str(share.value) not in repr(share)


@pytest.mark.parametrize("threshold", [2, 3])
def test_fewer_shares_are_independent_of_the_secret(threshold: int) -> None:
    """Exact, in a field of 7: over all polynomials, any t − 1 shares have one distribution for
    every secret; t shares do not.
    """

    def views(secret: int, indices: tuple[int, ...]) -> Counter[tuple[int, ...]]:
        return Counter(
            tuple(evaluate([secret, *rest], x) % 7 for x in indices)
            for rest in product(range(7), repeat=threshold - 1)
        )

    for indices in combinations(range(1, 7), threshold - 1):
        assert all(views(secret, indices) == views(0, indices) for secret in range(1, 7))
    assert views(1, tuple(range(1, threshold + 1))) != views(0, tuple(range(1, threshold + 1)))


def test_coefficients_come_from_the_randomness_given_and_never_repeat() -> None:
    """Rejected at 2^521 − 1, drawn for every coefficient; two splits of one secret
    share nothing.
    """
    draws = iter([b"\xff" * 66, b"\x01" * 66, b"\x02" * 66])
    shares = split(SECRET, 3, 4, randomness=lambda count: next(draws))
    with pytest.raises(StopIteration):
        next(draws)
    assert combine(shares[1:]) == SECRET
    assert not {share.value for share in split(SECRET, 3, 4)} & {
        share.value for share in split(SECRET, 3, 4)
    }


@pytest.mark.parametrize("position", range(3))
def test_a_tampered_share_is_refused(position: int) -> None:
    shares = split(SECRET, 3, 5)[:3]
    for change in (1, PRIME - 1, 2**200):
        forged = list(shares)
        forged[position] = Share(
            forged[position].index, 3, (forged[position].value + change) % PRIME
        )
        with pytest.raises(SecureSumError, match="do not fit") as caught:
            combine(forged)
        assert str(shares[0].value)[:20] not in str(caught.value)


def test_a_tampered_share_costs_nothing_where_others_suffice() -> None:
    for position in range(5):
        shares = split(SECRET, 3, 5)
        shares[position] = Share(position + 1, 3, 12345)
        assert combine(shares) == SECRET


def test_shares_that_do_not_belong_together_are_refused() -> None:
    first, second = split(SECRET, 3, 5), split(bytes(32), 3, 5)
    for shares in ([*first[:2], second[2]], [*first[:2], Share(9, 3, first[2].value)]):
        with pytest.raises(SecureSumError, match="do not fit"):
            combine(shares)
    for shares, problem in (
        ([], "none"),
        ([*first[:2], first[1]], "one holder"),
        ([*first[:2], split(SECRET, 4, 5)[2]], "different secrets"),
        ([*first[:2], Share(3, 3, PRIME)], "outside"),
        ([*first[:2], Share(0, 3, 5)], "outside"),
        ([Share(1, 1, 5)], "too few"),
    ):
        with pytest.raises(SecureSumError, match=problem):
            combine(shares)


def test_bytes_that_are_no_share_are_refused() -> None:
    good = split(SECRET, 2, 3)[0].to_bytes()
    for bad in (
        good[:-1],
        good + b"\0",
        b"",
        b"\2" + good[1:],
        good[:1] + bytes(4) + good[5:],
        good[:5] + b"\xff" * 66,
        good[:3] + bytes(2) + good[5:],
    ):
        with pytest.raises(SecureSumError):
            Share.from_bytes(bad)


@settings(max_examples=200)
@given(st.binary(max_size=90) | st.binary(min_size=SHARE_BYTES, max_size=SHARE_BYTES))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(SecureSumError):
        assert Share.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize(
    ("threshold", "count"), [(1, 1), (1, 2), (2, 4), (5, 4), (0, 3), (2, 1), (2, 2**16)]
)
def test_thresholds_not_above_half_are_refused(threshold: int, count: int) -> None:
    with pytest.raises(SecureSumError, match="threshold"):
        split(SECRET, threshold, count)


@pytest.mark.parametrize("secret", [b"", bytes(33)])
def test_secrets_of_other_lengths_are_refused(secret: bytes) -> None:
    with pytest.raises(SecureSumError, match="32 bytes"):
        split(secret, 2, 3)


def test_default_threshold_tolerates_what_the_design_says() -> None:
    assert [count - default_threshold(count) for count in (3, 4, 5, 6, 7, 9, 10)] == [
        0,
        1,
        1,
        1,
        2,
        2,
        3,
    ]


def test_many_secrets_at_once() -> None:
    secrets = [np.random.default_rng(i).bytes(32) for i in range(20)]
    sets = [split(secret, 7, 10)[i % 3 :] for i, secret in enumerate(secrets)]
    assert combine_many(sets) == secrets


@pytest.mark.parametrize(("threshold", "count"), [(2, 2), (3, 5), (55, 81), (200, 255)])
def test_secrets_that_are_split_together_are_as_those_split_alone(
    threshold: int, count: int
) -> None:
    """With the largest coefficients there are, so that a lane that ran over would show in the
    next one.
    """
    largest = (PRIME - 1).to_bytes(ELEMENT_BYTES, "big")
    secrets = [b"\xff" * 32, bytes(32), SECRET, b"\xff" * 32]
    together = split_many(secrets, threshold, count, randomness=lambda _: largest)
    assert together == [
        split(secret, threshold, count, randomness=lambda _: largest) for secret in secrets
    ]
    for secret, shares in zip(secrets, split_many(secrets, threshold, count), strict=True):
        assert combine(shares[-threshold:]) == secret
