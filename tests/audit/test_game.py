"""Coins that are sealed, and trainers honest and broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from audit.canary_scores import DELTA, mu_of
from numpy.typing import NDArray

from secure_fl.audit import Claim, DiracCanaries, SealedAssignment, TrainerAudit, audit_trainer
from secure_fl.audit.game import all_bounds, opens
from secure_fl.errors import AuditError
from secure_fl.records import document


def entropy(seed: int) -> Callable[[int], bytes]:
    return np.random.default_rng(seed).bytes


@dataclass
class Sums:
    """Noisy sums of unit vectors, with the noise and the clipping as given."""

    deviation: float
    seed: int = 0
    factor: float = 1.0

    def release(self, data: None, canaries: DiracCanaries) -> NDArray[np.float64]:
        noise = np.random.default_rng(self.seed).normal(size=canaries.dimension)
        return self.factor * canaries.sum() + self.deviation * noise


def audit(trainer: Sums, epsilon: float = 4.4, seed: int = 0) -> TrainerAudit:
    mu = mu_of(epsilon)
    claim = Claim(epsilon, DELTA, (1.0, 1 / mu))
    return audit_trainer(trainer, None, claim, dimension=1000, entropy=entropy(seed))


def test_coins_are_fair_and_as_many_as_asked_for() -> None:
    assignment = SealedAssignment.draw(10_001)
    assignment.seal()
    assert len(assignment) == 10_001
    assert abs(len(assignment.included) - 5000) < 300


def test_nothing_comes_before_sealing() -> None:
    assignment = SealedAssignment.draw(10)
    with pytest.raises(AuditError, match="not sealed yet"):
        _ = assignment.included
    with pytest.raises(AuditError, match="scored before sealing"):
        assignment.open(np.zeros(10))


def test_coins_are_opened_for_one_set_of_scores() -> None:
    assignment = SealedAssignment.draw(10)
    assignment.seal()
    with pytest.raises(AuditError, match="not opened yet"):
        _ = assignment.nonce
    for wrong in (np.zeros(9), np.full(10, np.nan)):
        with pytest.raises(AuditError, match="not a score a canary"):
            assignment.open(wrong)
    coins = assignment.open(np.arange(10.0))
    assert np.array_equal(coins, assignment.open(np.arange(10.0)))
    with pytest.raises(AuditError, match="opened for other scores"):
        assignment.open(np.where(coins, 1.0, 0.0))
    with pytest.raises(AuditError, match="known already"):
        _ = assignment.included


def test_only_the_coins_that_were_sealed_open_the_commitment() -> None:
    assignment = SealedAssignment.draw(20)
    sealed, included = assignment.seal(), assignment.included
    coins = assignment.open(np.zeros(20))
    assert np.array_equal(np.flatnonzero(coins), included)
    assert opens(sealed, coins, assignment.nonce)
    other = coins.copy()
    other[3] = not other[3]
    assert not opens(sealed, other, assignment.nonce)
    assert not opens(sealed, coins, bytes(32))
    assert sealed == assignment.seal()


def test_equal_coins_have_different_commitments() -> None:
    class Coins:
        def __init__(self, last: int) -> None:
            self.last = last

        def __call__(self, size: int) -> bytes:
            return bytes([self.last if size == 32 else 170]) * size

    one, other = (SealedAssignment.draw(80, Coins(last)) for last in (1, 2))
    assert one.seal() != other.seal()
    assert np.array_equal(one.included, other.included)


def test_rows_and_sum_agree() -> None:
    canaries = DiracCanaries(np.array([1, 4]), 6, 2.0)
    assert np.array_equal(canaries.rows().sum(0), canaries.sum())
    assert len(canaries) == 2


@pytest.mark.parametrize("seed", range(20))
def test_honest_noise_passes(seed: int) -> None:
    found = audit(Sums(1 / mu_of(4.4), seed), seed=seed)
    assert found.passed, document(found)
    assert len({bound.method for bound in found.bounds}) == 6


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "fault",
    [lambda s: Sums(0.5 * s), lambda s: Sums(1e-9), lambda s: Sums(s, factor=2.0)],
    ids=["half the noise", "no noise", "clipped at twice the bound"],
)
def test_faults_are_caught(fault: Callable[[float], Sums], seed: int) -> None:
    trainer = fault(1 / mu_of(4.4))
    trainer.seed = seed
    found = audit(trainer, seed=seed)
    assert not found.passed
    assert found.alarm
    assert found.refuting


def test_without_noise_every_bound_without_a_law_refutes_much() -> None:
    found = {bound.method: bound.epsilon for bound in audit(Sums(1e-9)).bounds}
    assert found["one run"] > 1.5
    assert found["one run, f-DP"] > 3.5
    assert found["one run, Gaussian DP"] > 4.4
    assert found["Gaussian shift"] > 10


def test_a_trainer_that_mixes_up_signs_shows_nothing() -> None:
    assert audit(Sums(1e-3, factor=-1.0)).bounds[0].epsilon == 0


def test_too_few_canaries_and_other_vectors_are_refused() -> None:
    claim = Claim(1.0, DELTA)
    with pytest.raises(AuditError, match="not as many canaries as it takes"):
        audit_trainer(Sums(1.0), None, claim, dimension=999)

    class Short:
        def release(self, data: None, canaries: DiracCanaries) -> list[float]:
            return [0.0] * 7

    with pytest.raises(AuditError, match="not the vector that was asked for"):
        audit_trainer(Short(), None, claim, dimension=1000)


def test_an_audit_is_a_record_of_plain_values() -> None:
    told = document(audit(Sums(1.0)))
    assert set(told) == {"claim", "commitment", "canaries", "bounds"}
    assert {bound["kind"] for bound in told["bounds"]} == {"bound", "estimate"}


def test_without_a_claimed_deviation_there_is_no_test_of_it() -> None:
    rng = np.random.default_rng(0)
    coins = rng.random(1000) < 0.5
    bounds = all_bounds(rng.normal(size=1000), coins, Claim(1.0, DELTA))
    assert all("alarm" not in bound.details for bound in bounds)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_a_trainer_that_leaves_canaries_out_is_not_passed(share: float) -> None:
    """It is private, and nothing is known of what it does to other units."""
    for seed in range(20):
        found = audit(Sums(1 / mu_of(4.4), seed=seed, factor=share), seed=seed)
        assert found.idle is (share < 0.5)
        assert found.passed is (share > 0.5)
