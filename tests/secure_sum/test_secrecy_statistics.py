"""Secrecy test (d): with real streams, all an adversary can compute is uniform, and a trained
distinguisher stays at chance.

The false-alarm rate is fixed: `ALARM` for each test as a whole, and streams are derived from fixed
labels, so a run repeats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import binom, chisquare
from secure_sum.faults import FAULTS, Fault, ToyRound
from sklearn.linear_model import LogisticRegression

from secure_fl.crypto.key_streams import WORDS, Slots, Terms, add_streams
from secure_fl.he.parameters import BATCHING_PRIME

ALARM = 1e-6
MODULI = [WORDS, BATCHING_PRIME]


def toy_round(fault: Fault) -> ToyRound:
    """Two survivors and a dropped client, counts opened; for the pair fault both blocks."""
    return ToyRound(3, 2, (0, 1), (0, 1) if fault is Fault.SHARED_PAIR_SEED else (0,), fault=fault)


class Trial:
    """Streams of one run of the round: each seed's name and the trial's number make a key."""

    def __init__(self, number: int) -> None:
        self.number = number

    def streams(self, vector: Slots, terms: Terms, modulus: int) -> None:
        add_streams(
            vector,
            [
                (hashlib.sha256(b"trial %d " % self.number + seed).digest(), sign)
                for seed, sign in terms
            ],
            modulus,
        )


def residuals(
    toy: ToyRound, inputs: dict[tuple[int, int], Slots], modulus: int, trial: Trial
) -> Iterator[Slots]:
    """What the adversary can form beside the opened sums: uploads stripped of every stream it
    knows, their differences and their sums.
    """
    known, slots = toy.revealed(), len(inputs[0, 0])
    stripped: dict[tuple[int, int], np.ndarray] = {}
    for client, block in toy.cells:
        left = toy.upload(client, block, inputs[client, block], modulus, trial.streams)
        others = [j for j in range(toy.clients) if j != client]
        terms = [(toy.self_seed(client, 0 if toy.fault is Fault.REUSED_SELF_SEED else block), -1)]
        terms += [(toy.pair_seed(client, j, block), -1 if j > client else 1) for j in others]
        trial.streams(left, [(seed, sign) for seed, sign in terms if seed in known], modulus)
        stripped[client, block] = left
    whole = 0 if modulus == WORDS else modulus
    for client in range(toy.clients):
        yield stripped[client, 0]
        yield stripped[client, 1]
        yield _modulo(stripped[client, 1] + np.uint64(whole) - stripped[client, 0], modulus)
    for block in range(toy.blocks):
        if block not in toy.opened:
            total = np.zeros(slots, np.uint64)
            for client in toy.survivors:
                total = _modulo(total + stripped[client, block], modulus)
            yield total


def _modulo(values: Slots, modulus: int) -> Slots:
    return values if modulus == WORDS else values % np.uint64(modulus)


def turns(values: Slots, modulus: int) -> np.ndarray:
    """Residues as parts of a turn, [0, 1)."""
    return values.astype(np.float64) / float(modulus) % 1.0


def small_inputs(toy: ToyRound, slots: int) -> dict[tuple[int, int], Slots]:
    return {cell: np.full(slots, 3 + sum(cell), np.uint64) for cell in toy.cells}


def smallest_p(toy: ToyRound, modulus: int) -> float:
    """Bonferroni-corrected p of chi-square tests on high and low bits of everything computable."""
    tests = []
    for values in residuals(toy, small_inputs(toy, 30_000), modulus, Trial(0)):
        tests.append(
            chisquare(
                np.bincount((turns(values, modulus) * 256).astype(int).clip(0, 255), minlength=256)
            ).pvalue
        )
        tests.append(
            chisquare(np.bincount((values & np.uint64(255)).astype(int), minlength=256)).pvalue
        )
    return min(tests) * len(tests)


@pytest.mark.parametrize("modulus", MODULI)
def test_everything_computable_is_uniform(modulus: int) -> None:
    assert smallest_p(toy_round(Fault.NONE), modulus) > ALARM


@pytest.mark.parametrize("modulus", MODULI)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_not_uniform(fault: Fault, modulus: int) -> None:
    assert smallest_p(toy_round(fault), modulus) < ALARM


def features(toy: ToyRound, world: int, number: int, modulus: int) -> np.ndarray:
    """In world 1, clients 0 and 1 move by a quarter turn: apart in opened blocks, whose sums stay,
    and together in the others.
    """
    inputs = small_inputs(toy, 4)
    step = modulus // 4 * world
    for block in range(toy.blocks):
        other = modulus - step if block in toy.opened else step
        if block == 1 and block in toy.opened:
            step, other = other, step
        for client, move in ((0, step), (1, other)):
            inputs[client, block] = np.full(4, (3 + client + block + move) % modulus, np.uint64)
    angles = (
        2
        * np.pi
        * np.concatenate(
            [turns(values, modulus) for values in residuals(toy, inputs, modulus, Trial(number))]
        )
    )
    return np.concatenate([np.cos(angles), np.sin(angles)])


def accuracy(fault: Fault, modulus: int, trials: int) -> float:
    """Of a logistic regression trained on half of the trials, on the other half."""
    worlds = np.arange(2 * trials) % 2
    rows = np.array(
        [
            features(toy_round(fault), int(world), 1 + number, modulus)
            for number, world in enumerate(worlds)
        ]
    )
    model = LogisticRegression(C=0.1, max_iter=200).fit(rows[:trials], worlds[:trials])
    return float((model.predict(rows[trials:]) == worlds[trials:]).mean())


def bound(trials: int) -> float:
    """Accuracy that guessing passes with probability `ALARM`/2: 0.67 of 200 trials."""
    return float(binom.isf(ALARM / 2, trials, 0.5)) / trials


def test_a_trained_distinguisher_stays_at_chance() -> None:
    assert 1 - bound(200) <= accuracy(Fault.NONE, BATCHING_PRIME, 200) <= bound(200)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_distinguisher_finds_every_planted_fault(fault: Fault) -> None:
    """Half as many trials, so a harder bar."""
    assert accuracy(fault, BATCHING_PRIME, 100) > bound(100) + 0.1
