"""Secrecy test (b): each mask stream a variable. All that a coalition holds spans, of the inputs,
only the opened sums and its own rows.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from secure_sum.faults import FAULTS, Fault, ToyRound, sound_rounds

from secure_fl.crypto.key_streams import WORDS, Slots, Terms
from secure_fl.odds import default_threshold


class Symbols:
    """Vectors of coefficients: one column for each input x_iβ, one for each seed's stream."""

    def __init__(self, toy: ToyRound) -> None:
        self.inputs = {cell: k for k, cell in enumerate(toy.cells)}
        self.masks = {seed: len(self.inputs) + k for k, seed in enumerate(toy.seeds())}
        self.width = len(self.inputs) + len(self.masks)

    def unit(self, column: int) -> Slots:
        row = np.zeros(self.width, np.uint64)
        row[column] = 1
        return row

    def streams(self, vector: Slots, terms: Terms, modulus: int) -> None:
        for seed, sign in terms:
            vector[self.masks[seed]] += np.uint64(sign % modulus)


def echelon(rows: np.ndarray) -> np.ndarray:
    """Reduced row echelon form over the rationals, in integers: each row has coprime entries and a
    positive pivot.
    """
    rows = rows.copy()
    done = 0
    for column in range(rows.shape[1]):
        candidates = np.flatnonzero(rows[done:, column]) + done
        if not len(candidates):
            continue
        best = candidates[np.argmin(np.abs(rows[candidates, column]))]
        rows[[done, best]] = rows[[best, done]]
        factors = rows[:, column].copy()
        factors[done] = 0
        touched = np.flatnonzero(factors)
        rows[touched] = rows[touched] * rows[done, column] - factors[touched, None] * rows[done]
        assert np.abs(rows).max() < 2**31, "beyond exact integers"
        scale = np.gcd.reduce(rows, axis=1)
        rows //= np.where(scale == 0, 1, scale)[:, None]
        done += 1
    kept = rows[rows.any(axis=1)]
    lead = (
        kept[np.arange(len(kept)), np.argmax(kept != 0, axis=1)]
        if len(kept)
        else np.zeros(0, np.int64)
    )
    return kept * np.sign(lead)[:, None]


@cache
def uploads(clients: int, blocks: int, fault: Fault) -> dict[tuple[int, int], Slots]:
    """They do not depend on who survives, colludes or is opened."""
    toy = ToyRound(clients, blocks, tuple(range(clients)), (), fault=fault)
    symbols = Symbols(toy)
    return {
        cell: toy.upload(*cell, symbols.unit(symbols.inputs[cell]), WORDS, symbols.streams)
        for cell in toy.cells
    }


def held(toy: ToyRound, symbols: Symbols) -> np.ndarray:
    """Rows the adversary holds: uploads and what it opens, without the streams and inputs that it
    knows by themselves.
    """
    sent = uploads(toy.clients, toy.blocks, toy.fault)
    rows = list(sent.values())
    for block in toy.opened:
        total = np.sum([sent[i, block] for i in toy.survivors], axis=0, dtype=np.uint64)
        rows.append(total - toy.opening(block, symbols.width, WORDS, symbols.streams))
        expected = np.zeros(symbols.width, np.uint64)
        expected[[symbols.inputs[i, block] for i in toy.survivors]] = 1
        assert np.array_equal(rows[-1], expected), "the opened sum is wrong"
    matrix = np.array(rows).view(np.int64)
    matrix[:, [symbols.masks[seed] for seed in toy.revealed()]] = 0
    matrix[:, [symbols.inputs[i, block] for i in toy.coalition for block in range(toy.blocks)]] = 0
    return matrix


def learnt(toy: ToyRound) -> np.ndarray:
    """Echelon basis of all combinations of what is held that no mask is left in."""
    symbols = Symbols(toy)
    inputs = len(symbols.inputs)
    rows = held(toy, symbols)
    reduced = echelon(np.hstack([rows[:, inputs:], rows[:, :inputs]]))
    return echelon(reduced[~reduced[:, : len(symbols.masks)].any(axis=1), len(symbols.masks) :])


def meant(toy: ToyRound) -> np.ndarray:
    """Echelon basis of the opened sums over honest survivors: what is left of them without the
    coalition's own inputs.
    """
    column = {cell: k for k, cell in enumerate(toy.cells)}
    rows = np.zeros((len(toy.opened), len(column)), np.int64)
    for row, block in enumerate(toy.opened):
        rows[row, [column[i, block] for i in toy.survivors if i in toy.honest]] = 1
    return echelon(rows)


@pytest.mark.parametrize(
    ("clients", "majority"),
    [
        *((n, False) for n in range(2, 7)),
        *((n, True) for n in range(3, 6)),
        pytest.param(6, True, marks=pytest.mark.slow),
    ],
)
def test_only_opened_sums_are_learnt(clients: int, majority: bool) -> None:
    """Server, key holder and t − 1 clients, or none; no block opened, the counts, or the counts and
    a pool.
    """
    threshold = clients // 2 + 1 if majority else default_threshold(clients)
    rounds = 0
    for toy in sound_rounds(clients, threshold, 2, coalitions=(0, threshold - 1)):
        assert np.array_equal(learnt(toy), meant(toy)), toy
        rounds += 1
    assert rounds >= 6


def test_echelon_is_exact() -> None:
    rows = np.array([[2, 4, 6], [1, 1, 1], [3, 5, 7]])
    assert echelon(rows).tolist() == [[1, 0, -1], [0, 1, 2]]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("clients", [3, 5])
def test_every_planted_fault_is_found(fault: Fault, clients: int) -> None:
    toy = ToyRound(clients, 3, tuple(range(clients)), (0, 1), fault=fault)
    assert not np.array_equal(learnt(toy), meant(toy))


def test_a_late_upload_of_a_dropped_client_stays_closed() -> None:
    """Its pair seeds are public then; only its self mask, never revealed, keeps it. Without that
    mask it is read.
    """
    safe = ToyRound(4, 2, (0, 1, 2), (0, 1))
    assert np.array_equal(learnt(safe), meant(safe))
    late = learnt(ToyRound(4, 2, (0, 1, 2), (0, 1), fault=Fault.NO_SELF_MASK))
    alone = np.zeros(8, np.int64)
    alone[7] = 1
    assert any(np.array_equal(row, alone) for row in late)
