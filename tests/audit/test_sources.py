"""Where secrets come from: derived a second time, and followed to the operating system; and faults
of one late round.
"""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.audit import derivations
from secure_fl.audit.check import Depth, Fault
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.planted import late, protocol, sources
from secure_fl.audit.subject import Subject
from secure_fl.audit.suite.catalogue import checks
from secure_fl.audit.which_rounds import spread
from secure_fl.crypto.key_streams import WORDS, expand
from secure_fl.crypto.shares import split
from secure_fl.he.parameters import BATCHING_PRIME
from secure_fl.privacy.noise import NoiseSource
from secure_fl.secure_sum.masks import pair_seeds

CHECKS = {check.name: check for check in checks()}
FAULTS = {fault.name: fault for fault in (*sources.FAULTS, *late.FAULTS)}
QUICK = (
    "pairs' masks of 64 bits that look random",
    "self masks that follow from the pairs' key",
    "shares that two holders open",
    "words of masks of 32 bits",
    "sources of noise of 32 bits",
    "no mask in the last round",
)


def tried(fault: Fault, seed: int = 0) -> Outcome:
    return CHECKS[fault.check].run(Subject(fault.config()), Depth.MINUTES, seed, lambda _: None)


def test_what_is_honest_holds() -> None:
    for config in (protocol.masked(), late.FAULTS[-1].config()):
        found = CHECKS["sources"].run(Subject(config), Depth.MINUTES, 3, lambda _: None)
        assert (found.verdict, found.false_alarm) == ("held", 0.0), found.said


@pytest.mark.parametrize("name", QUICK)
def test_a_secret_that_is_narrower_than_it_looks_is_found(name: str) -> None:
    with FAULTS[name].plant():
        assert tried(FAULTS[name]).verdict == "broken"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAULTS if name not in QUICK])
def test_each_further_fault_is_found(name: str) -> None:
    with FAULTS[name].plant():
        assert tried(FAULTS[name]).verdict == "broken"


# Derived a second time


@pytest.mark.parametrize("block", [0, 1, 254, 255, 256, 299])
def test_a_pairs_seed_is_that_of_the_protocol(block: int) -> None:
    own, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    facts = {"federation": "north", "round_number": 7, "blocks": 300, "low": 2, "high": 5}
    made = pair_seeds(own, other.public_key(), **facts)  # type: ignore[arg-type]
    told = (other.private_bytes_raw(), own.public_key().public_bytes_raw(), "north", 7)
    assert derivations.pair_seed(*told, block, (2, 5)) == made[block]
    assert derivations.pair_seed(*told, block, (2, 6)) != made[block]


@settings(max_examples=15)
@given(st.integers(-(2**31), 2**31), st.integers(0, 2**40), st.text(max_size=20))
def test_streams_of_noise_are_those_of_the_source(client: int, number: int, purpose: str) -> None:
    source = NoiseSource.for_tests(3)
    words = source.stream(client=client, round=number, purpose=purpose).words(5)
    key = derivations.noise_key(source._key, client, number, purpose)
    assert derivations.noise_words(key, 5) == words.tobytes()


@settings(max_examples=15)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 4096))
def test_words_of_masks_are_those_of_the_stream(seed: bytes, count: int) -> None:
    assert derivations.mask_words(seed, count, WORDS) == expand(seed, count).tolist()
    small = derivations.mask_words(seed, count, BATCHING_PRIME)
    whole = expand(seed, count, BATCHING_PRIME).tolist()
    assert [found for found, word in zip(whole, small, strict=True) if word is not None] == [
        word for word in small if word is not None
    ]


def test_as_many_shares_as_are_needed_have_one_value_at_zero() -> None:
    shares = split(bytes(range(32)), 4, 7)
    secret = derivations.at_zero(shares[:4])
    assert derivations.at_zero(shares[3:]) == secret
    assert bytes(range(32)) in secret.to_bytes(65, "big")
    assert derivations.at_zero(shares[:3]) != secret


# Which rounds are played


@given(st.integers(1, 500), st.integers(2, 40), st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_stretches_lie_over_the_whole_run(rounds: int, most: int, seed: int, length: int) -> None:
    found = spread(rounds, most, seed, length=length)
    assert found == sorted(set(found))
    assert len(found) <= most
    assert found[0] == 0
    assert found[-1] == max(0, rounds - length), "the last one ends with the run"
    assert found == spread(rounds, most, seed, length=length)
    if len(found) < most:
        assert {at for start in found for at in range(start, start + length)} >= set(range(rounds))


def test_other_seeds_play_other_rounds() -> None:
    assert len({tuple(spread(300, 5, seed)) for seed in range(20)}) > 15
