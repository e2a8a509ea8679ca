"""The noise source: keys, streams that never repeat, and the laws of what is drawn from them.
False-alarm rate: 1e-6 a test.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import os
import pickle
from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from numpy.typing import NDArray
from privacy.randomness import (
    ALARM,
    assert_frequencies,
    assert_moments,
    assert_uncorrelated,
    assert_unrelated_words,
    assert_z,
)
from scipy import stats

from secure_fl.errors import PrivacyError
from secure_fl.privacy.noise import BLOCK, NoiseSource, NoiseStream

COUNT = 1 << 18
TRIPLES = [
    (client, round_, purpose)
    for client in (0, 1)
    for round_ in (0, 1)
    for purpose in ("update", "updat", "count")
]


def stream(purpose: str = "test") -> NoiseStream:
    return NoiseSource.for_tests(0).stream(client=3, round=5, purpose=purpose)


class Planted(NoiseStream):
    """A stream whose words are given."""

    def __init__(self, *words: int) -> None:
        super().__init__(bytes(32), private=False)
        self.left = list(words)

    def words(self, count: int) -> NDArray[np.uint64]:
        taken, self.left = self.left[:count], self.left[count:]
        return np.array(taken, np.uint64)


# Keys and keystream


def test_keystream_is_aes_256_in_counter_mode() -> None:
    # AES-256 of the zero block under the zero key (NIST AESAVS)
    published = "dc95c078a2408989ad48a21492842087"
    assert NoiseStream(bytes(32), private=False).words(2).tobytes().hex() == published


def test_key_is_hkdf_of_master_and_unambiguous_triple() -> None:
    master = hashlib.sha256(b"secure_fl noise for tests 7").digest()
    info = (
        b"secure_fl noise 1"
        + (3).to_bytes(8, "big")
        + (-1).to_bytes(8, "big", signed=True)
        + b"update"
    )
    extracted = hmac.digest(bytes(32), master, "sha256")
    key = hmac.digest(extracted, info + b"\x01", "sha256")
    blocks = b"".join(number.to_bytes(16, "big") for number in range(10_000))
    expected = Cipher(AES(key), ECB()).encryptor().update(blocks)
    drawn = NoiseSource.for_tests(7).stream(client=3, round=-1, purpose="update").words(20_000)
    assert drawn.tobytes() == expected


def test_words_go_on_where_the_last_call_ended() -> None:
    parts = stream()
    assert np.array_equal(
        np.concatenate([parts.words(n) for n in (1, 0, 3, 20_000)]), stream().words(20_004)
    )


def test_words_never_repeat() -> None:
    assert len(np.unique(stream().words(1 << 20))) == 1 << 20  # by chance 2^-25


def test_bytes_and_neighbouring_words_look_uniform() -> None:
    words = stream().words(COUNT)
    assert_frequencies(np.bincount(words.view(np.uint8), minlength=256), np.full(256, 1 / 256))
    assert_unrelated_words({"even": words[::2], "odd": words[1::2]})


# Streams are independent of each other


def source_words(make: Callable[[], NoiseSource]) -> dict[object, NDArray[np.uint64]]:
    """Words by restart, client, round and purpose."""
    found: dict[object, NDArray[np.uint64]] = {}
    for restart in range(2):
        source = make()
        found |= {
            (restart, *t): source.stream(client=t[0], round=t[1], purpose=t[2]).words(4096)
            for t in TRIPLES
        }
    return found


def test_streams_of_clients_rounds_purposes_and_restarts_are_unrelated() -> None:
    seeds = iter((1, 2))
    assert_unrelated_words(source_words(lambda: NoiseSource.for_tests(next(seeds))))


def test_fresh_sources_differ() -> None:
    a, b = (
        NoiseSource.fresh().stream(client=0, round=0, purpose="x").words(4096) for _ in range(2)
    )
    assert not np.isin(a, b).any()


class OneKeyForAllPurposes(NoiseSource):
    def stream(self, *, client: int, round: int, purpose: str) -> NoiseStream:  # noqa: A002
        self._taken.clear()
        return super().stream(client=client, round=round, purpose="one")


class OneKeyShifted(NoiseSource):
    """Each purpose starts a few words further in the same keystream."""

    def stream(self, *, client: int, round: int, purpose: str) -> NoiseStream:  # noqa: A002
        self._taken.clear()
        shifted = super().stream(client=client, round=round, purpose="one")
        shifted.words(2 * len(purpose))
        return shifted


BROKEN: list[Callable[[], NoiseSource]] = [
    lambda: NoiseSource.for_tests(0),
    OneKeyForAllPurposes.fresh,
    OneKeyShifted.fresh,
]


@pytest.mark.parametrize(
    "make", BROKEN, ids=["constant seed", "one key for two purposes", "one keystream, shifted"]
)
def test_broken_sources_are_caught(make: Callable[[], NoiseSource]) -> None:
    with pytest.raises(AssertionError):
        assert_unrelated_words(source_words(make))


def test_gaussians_of_leaves_rounds_and_clients_are_uncorrelated() -> None:
    source, leaves = NoiseSource.for_tests(3), stream()
    draws: dict[object, NDArray[np.floating]] = {
        t: source.stream(client=t[0], round=t[1], purpose=t[2]).gaussian((4096,), 2.0).numpy()
        for t in TRIPLES
    }
    draws |= {f"leaf {leaf}": leaves.gaussian((4096,), 2.0).numpy() for leaf in range(4)}
    assert_uncorrelated(draws)
    with pytest.raises(AssertionError):
        assert_uncorrelated(draws | {"same noise again": 0.5 * draws[TRIPLES[0]] + draws["leaf 1"]})


# What a source refuses


def test_a_triple_is_handed_out_once() -> None:
    source = NoiseSource.fresh()
    source.stream(client=1, round=2, purpose="update")
    source.stream(client=2, round=1, purpose="update")
    with pytest.raises(PrivacyError, match="already taken"):
        source.stream(client=np.int64(1), round=2, purpose="update")  # type: ignore[arg-type]


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy, pickle.dumps])
def test_neither_source_nor_stream_can_be_copied(act: Callable[[object], object]) -> None:
    source = NoiseSource.fresh()
    for secret in (source, source.stream(client=0, round=0, purpose="x")):
        with pytest.raises(PrivacyError, match="same noise twice"):
            act(secret)


def test_text_shows_no_key() -> None:
    source = NoiseSource.fresh()
    taken = source.stream(client=0, round=0, purpose="x")
    assert (
        f"{source} {source!r} {taken} {taken!r}"
        == "<NoiseSource> <NoiseSource> <NoiseStream> <NoiseStream>"
    )
    assert not hasattr(source, "__dict__")
    assert not hasattr(taken, "__dict__")


def test_a_source_for_tests_says_so() -> None:
    source = NoiseSource.for_tests(0)
    assert "NOT PRIVATE" in repr(source)
    assert "NOT PRIVATE" in repr(stream())
    assert not source.private
    assert not stream().private
    assert NoiseSource.fresh().private
    assert NoiseSource.fresh().stream(client=0, round=0, purpose="x").private


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_is_refused() -> None:
    source = NoiseSource.fresh()
    taken = source.stream(client=0, round=0, purpose="x")
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        for use in (
            lambda: taken.words(1),
            lambda: taken.gaussian((3,), 1.0),
            lambda: source.stream(client=9, round=0, purpose="x"),
        ):
            try:
                use()
                os.write(writer, b"drawn ")
            except PrivacyError:
                os.write(writer, b"refused ")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"refused refused refused "
    os.close(reader)
    os.close(writer)
    assert len(taken.words(1)) == 1


@pytest.mark.parametrize(
    "use",
    [
        lambda s: s.words(-1),
        lambda s: s.gaussian((2, -1), 1.0),
        lambda s: s.gaussian((2,), -1.0),
        lambda s: s.gaussian((2,), 0.0),
        lambda s: s.gaussian((2,), float("nan")),
        lambda s: s.gaussian((2,), float("inf")),
        lambda s: s.coins(3, 1.5),
        lambda s: s.coins(3, float("nan")),
        lambda s: s.permutation(-1),
    ],
)
def test_senseless_arguments_are_refused(use: Callable[[NoiseStream], object]) -> None:
    with pytest.raises(PrivacyError, match="Remedy"):
        use(stream())


def test_numbers_beyond_64_bits_are_refused() -> None:
    with pytest.raises(PrivacyError, match="64 bits"):
        NoiseSource.for_tests(0).stream(client=1 << 63, round=0, purpose="x")


# Laws


def test_uniform_is_uniform_and_open() -> None:
    assert stats.kstest(stream().uniform(COUNT), "uniform").pvalue > ALARM
    low, high = Planted(0, 2**64 - 1).uniform(2)
    assert low == 2.0**-64
    assert high == 1 - 2.0**-53


def test_gaussian_is_normal() -> None:
    draws = stream().gaussian((COUNT,), 3.0).numpy()
    assert stats.kstest(draws / 3, "norm").pvalue > ALARM
    assert_moments(draws, 9.0, 3.0)


def test_gaussian_tails_have_the_normal_mass() -> None:
    draws = stream().gaussian((1 << 21,), 1.0).numpy()
    edges = np.array([3, 3.5, 4, 4.5])
    beyond = (np.abs(draws) > edges[:, None]).sum(1)
    for seen, mass in zip(beyond, 2 * stats.norm.sf(edges), strict=True):
        assert stats.binomtest(int(seen), len(draws), mass).pvalue > ALARM / len(edges)


def test_gaussian_reaches_far_and_never_fails() -> None:
    far = Planted(0, 0).gaussian((2,), 1.0)  # smallest radius uniform, angle 0
    assert far[0] == pytest.approx((128 * np.log(2)) ** 0.5)
    assert torch.equal(Planted(2**64 - 1, 7).gaussian((2,), 1.0), torch.zeros(2))


def test_twins_of_a_pair_are_independent() -> None:
    draws = stream().gaussian((BLOCK,), 1.0).numpy()
    cosines, sines = draws[: BLOCK // 2], draws[BLOCK // 2 :]
    assert_uncorrelated({"cos": cosines, "sin": sines})
    assert_uncorrelated({"cos²": cosines**2 - 1, "sin²": sines**2 - 1})


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 0, 4), (BLOCK + 1,)])
def test_gaussian_fills_any_shape(shape: tuple[int, ...]) -> None:
    draws = stream().gaussian(shape, 1.0)
    assert draws.shape == shape
    assert draws.dtype == torch.float32
    # float32 has some coincidences
    assert len(draws.unique()) > 0.999 * draws.numel() or draws.numel() == 0
    assert not draws.requires_grad


@pytest.mark.parametrize("probability", [0.001, 0.3, 0.5, 0.97])
def test_coins_come_at_their_rate(probability: float) -> None:
    heads = int(stream().coins(COUNT, probability).sum())
    assert stats.binomtest(heads, COUNT, probability).pvalue > ALARM / 4


def test_coins_turn_at_one_word() -> None:
    for probability, threshold in (
        (2.0**-64, 1),
        (0.3, int(0.3 * 2**64)),
        (1 - 2.0**-53, 2**64 - 2**11),
    ):
        assert Planted(threshold - 1, threshold).coins(2, probability).tolist() == [True, False]
    assert Planted(0).coins(1, 0.0).tolist() == [False]
    assert Planted(2**64 - 1).coins(1, 1.0).tolist() == [True]


def test_coins_are_independent_of_each_other() -> None:
    coins = stream().coins(COUNT, 0.3).numpy() - 0.3
    for lag in (1, 2, 64):
        assert_z(float((coins[lag:] * coins[:-lag]).sum()), 0.21 * (COUNT - lag) ** 0.5, 3)


def test_every_order_is_equally_likely() -> None:
    drawn, orders = stream(), {order: number for number, order in enumerate(permutations(range(4)))}
    seen = np.bincount(
        [orders[tuple(drawn.permutation(4).tolist())] for _ in range(10_000)], minlength=24
    )
    assert_frequencies(seen, np.full(24, 1 / 24))


def test_places_in_a_long_permutation_are_uniform() -> None:
    drawn = stream()
    place = np.bincount([int(drawn.permutation(50)[17]) for _ in range(5000)], minlength=50)
    assert_frequencies(place, np.full(50, 1 / 50))


def test_permutation_holds_every_index_once_and_redraws_ties() -> None:
    assert torch.equal(stream().permutation(1000).sort().values, torch.arange(1000))
    assert Planted(4, 2, 4, 8, 2, 4).permutation(3).tolist() == [1, 2, 0]
    assert stream().permutation(0).tolist() == []
