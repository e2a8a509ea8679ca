"""What correlated noise is charged: a chain is one release, calibrated and claimed like any
other.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from experimental.trees import by_clients, source, tree

from secure_fl.errors import PrivacyError
from secure_fl.experimental.tree_chains import KeyHolderChain
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.calibration import smallest_noise
from secure_fl.privacy.claims import Adversary, Setting, claims
from secure_fl.privacy.ledger import Budget, PrivacyLedger

DELTA = 1e-5


def test_a_chain_is_one_release_of_its_noise_multiplier() -> None:
    """As one Gaussian of z, up to what integers cost; k and b are in the noise, not in the number
    of releases.
    """
    from dp_accounting import get_epsilon_gaussian

    for plan in (
        tree(levels=4096),
        tree(levels=4096, rounds=20, participations=5, separation=3),
        by_clients(levels=2048),
    ):
        for adjacency, distance in ((Adjacency.ZERO_OUT, 1.0), (Adjacency.REPLACE_ONE, 2.0)):
            found, gaussian = (
                epsilon([plan.event()], DELTA, adjacency),
                get_epsilon_gaussian(1 / distance, DELTA),
            )
            assert gaussian < found < 1.1 * gaussian
        with pytest.raises(PrivacyError, match="absent client"):
            epsilon([plan.event()], DELTA, Adjacency.ADD_REMOVE)


def test_noise_is_calibrated_to_a_budget_like_any_other() -> None:
    plan = tree(levels=512, rounds=16, participations=3, separation=4)
    noise = smallest_noise(
        lambda z: [replace(plan, noise_multiplier=z).event()], 2.0, DELTA, Adjacency.ZERO_OUT
    )
    assert (
        1.98
        < epsilon([replace(plan, noise_multiplier=noise).event()], DELTA, Adjacency.ZERO_OUT)
        <= 2.0
    )


def test_the_ledger_charges_once_and_stops_a_chain_beyond_its_budget() -> None:
    ledger = PrivacyLedger(Budget(8.0, DELTA, PrivacyUnit.CLIENT, Adjacency.ZERO_OUT))
    chain = KeyHolderChain(tree(levels=1024), source(), ledger)
    before = ledger.spent(PrivacyUnit.CLIENT, 0, DELTA, Adjacency.ZERO_OUT)
    for _ in range(3):
        chain.release(torch.zeros(3, dtype=torch.int64), [0] if chain.round == 0 else [])
    assert (
        ledger.spent(PrivacyUnit.CLIENT, 0, DELTA, Adjacency.ZERO_OUT)
        == before
        == epsilon([chain.tree.event()], DELTA, Adjacency.ZERO_OUT)
    )
    KeyHolderChain(tree(levels=1024, name="two"), source(), ledger)
    assert ledger.spent(PrivacyUnit.CLIENT, 0, DELTA, Adjacency.ZERO_OUT) > before
    with pytest.raises(PrivacyError, match="would pass"):
        KeyHolderChain(tree(levels=1024, name="three", noise_multiplier=0.1), source(), ledger)
    assert len(ledger.releases) == 2


def test_claims_leave_out_the_key_holder_who_adds_the_noise() -> None:
    ledger = PrivacyLedger()
    ledger.record(tree(levels=1024).release())
    setting = Setting("bfv+masked", key_holder="authority", threshold=3)
    rows = claims(ledger, PrivacyUnit.CLIENT, Adjacency.ZERO_OUT, DELTA, setting)
    assert Adversary.KEY_HOLDER not in {row.adversary for row in rows}
    for row in rows:
        assert any("the key holder adds the noise" in line for line in row.assumes)
        assert any("sees the sums without noise" in line for line in row.not_covered)
        assert not any("noise shares" in line for line in row.assumes)
    for other in (
        replace(setting, key_holder="clients"),
        Setting("plain"),
        Setting("masked", threshold=3),
    ):
        with pytest.raises(PrivacyError, match="before the key holder's noise"):
            claims(ledger, PrivacyUnit.CLIENT, Adjacency.ZERO_OUT, DELTA, other)
    assert "excludes the key holder" in tree().claim


def test_claims_from_clients_noise_hold_against_the_key_holder_too() -> None:
    ledger = PrivacyLedger()
    ledger.record(by_clients(levels=1024).release())
    rows = claims(
        ledger, PrivacyUnit.CLIENT, Adjacency.ZERO_OUT, DELTA, Setting("bfv+masked", threshold=3)
    )
    assert Adversary.KEY_HOLDER in {row.adversary for row in rows}
    assert all(any("2 honest clients" in line for line in row.assumes) for row in rows)
    assert "ends the chain" in by_clients().claim
