"""Correlated noise: its sensitivity by brute force, its law, who may add it, and that broken
variants are caught.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from itertools import combinations, pairwise
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from privacy.randomness import assert_z
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.experimental.correlated import (
    PrefixTree,
    node_of,
    nodes_in_prefix,
    participation_bound,
    require_correlated_noise,
)
from secure_fl.experimental.tree_chains import ClientChain, KeyHolderChain, SumChain, _Noise
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.calibration import smallest_noise
from secure_fl.privacy.claims import Adversary, Setting, claims
from secure_fl.privacy.ledger import Budget, PrivacyLedger
from secure_fl.privacy.noise import NoiseSource

DELTA = 1e-5


def patterns(rounds: int, participations: int, separation: int) -> list[tuple[int, ...]]:
    """All sets of rounds that a client may take part in."""
    sizes = range(1, min(participations, rounds) + 1)
    sets = (chosen for size in sizes for chosen in combinations(range(rounds), size))
    return [
        chosen
        for chosen in sets
        if all(later - earlier >= separation for earlier, later in pairwise(chosen))
    ]


def prefixes(rounds: int) -> NDArray[np.float64]:
    """A: `[T, T]`, row t sums rounds 0…t."""
    return np.tril(np.ones((rounds, rounds)))


def mixing(rounds: int) -> NDArray[np.float64]:
    """B: `[T, T]`, which noised node is in which prefix sum."""
    found = np.zeros((rounds, rounds))
    for t in range(rounds):
        found[t, nodes_in_prefix(t)] = 1
    return found


def largest(rounds: int, participations: int, separation: int) -> float:
    """M by brute force, from prefix sums and the covariance BBᵀ of their noise alone: of the
    squared distance between neighbours' prefix sums.
    """
    a, precision = prefixes(rounds), np.linalg.inv(mixing(rounds) @ mixing(rounds).T)
    found = 0.0
    for chosen in patterns(rounds, participations, separation):
        change = a[:, list(chosen)].sum(1)
        found = max(found, float(change @ precision @ change))
    return found


def tree(**options: Any) -> PrefixTree:
    settings: dict[str, Any] = {
        "name": "one", "rounds": 8, "dimension": 3, "levels": 64, "noise_multiplier": 1.0,
        "adder": "key_holder", "roster": 5, "participations": 2,
    }  # fmt: skip
    return PrefixTree(**settings | options)


def by_clients(**options: Any) -> PrefixTree:
    return tree(
        **{"adder": "clients", "participations": options.get("rounds", 8), "roster": 3, **options}
    )


def source(seed: int = 0) -> NoiseSource:
    return NoiseSource.for_tests(seed)


def test_a_prefix_is_the_disjoint_union_of_its_nodes() -> None:
    for t in range(70):
        covered = sorted(
            round_number for node in nodes_in_prefix(t) for round_number in node_of(node)
        )
        assert covered == list(range(t + 1))
        assert len(nodes_in_prefix(t)) == (t + 1).bit_count()


# Sensitivity


@pytest.mark.parametrize("rounds", range(1, 12))
def test_no_pattern_of_participation_moves_more_than_is_charged(rounds: int) -> None:
    """Every number of rounds up to 11, every k, every b; for b = 1 the bound is attained."""
    for separation in range(1, rounds + 1):
        for participations in range(1, rounds + 1):
            found, claim = (
                largest(rounds, participations, separation),
                participation_bound(rounds, participations, separation),
            )
            assert found <= claim * (1 + 1e-9)
            if separation == 1:
                assert found == pytest.approx(claim)
            else:
                assert claim <= 1.5 * found, "safe, but not wasteful"


def test_a_charge_for_one_participation_is_caught_when_two_occur() -> None:
    for separation in (1, 2, 4):
        assert largest(8, 2, separation) > 1.2 * participation_bound(8, 1, separation)
    assert largest(8, 2, 2) > 1.2 * 2 * participation_bound(4, 1), (
        "nor is it two trees of one participation each"
    )


def test_one_participation_costs_a_node_a_level_and_all_of_them_the_whole_tree() -> None:
    assert [participation_bound(rounds, 1) for rounds in (1, 2, 3, 4, 7, 8, 1024)] == [
        1,
        2,
        2,
        3,
        3,
        4,
        11,
    ]
    for rounds in (1, 2, 8, 64):
        assert participation_bound(rounds, rounds) == rounds * (3 * rounds - 1) // 2
        assert participation_bound(rounds, rounds) == sum(
            len(node_of(t)) ** 2 for t in range(rounds)
        )


@pytest.mark.parametrize(("participations", "separation"), [(1, 1), (2, 1), (2, 3), (7, 1)])
def test_random_vectors_do_not_move_the_nodes_farther(participations: int, separation: int) -> None:
    """Vectors of length at most L in every allowed pattern: the chain's outputs, put together to
    nodes, differ by at most the event's l2 and l1.
    """
    generator, plan = (
        torch.Generator().manual_seed(0),
        tree(rounds=7, participations=participations, separation=separation),
    )
    event, longest = plan.event(), 0.0
    for chosen in patterns(7, participations, separation):
        base = torch.randn(3, generator=generator)
        moved = torch.zeros(7, 3, dtype=torch.int64)
        for t in chosen:
            direction = base if t % 2 else torch.randn(3, generator=generator) / 4 + base
            moved[t] = (direction / direction.norm() * 64).trunc().long()
        nodes = torch.stack([moved[list(node_of(t))].sum(0) for t in range(7)]).double()
        longest = max(longest, float(nodes.norm()))
        assert float(nodes.abs().sum()) <= event.l1
    assert 0.9 * event.l2 < longest <= event.l2


# No factorisation gains much under full participation


@pytest.mark.parametrize("rounds", [1, 2, 5, 16, 33])
def test_under_full_participation_no_factorisation_saves_more_than_a_third(rounds: int) -> None:
    """Each factorisation's error, for equal vectors alone, is above the docstring's bound: the
    tree, the square root, random ones.
    """
    a, generator = prefixes(rounds), np.random.default_rng(rounds)
    least = rounds * (rounds + 1) * (2 * rounds + 1) / 6
    independent = np.square(a).sum() * rounds
    assert independent / least == pytest.approx(3 * rounds / (2 * rounds + 1))
    toeplitz = [1.0]
    for j in range(1, rounds):
        toeplitz.append(toeplitz[-1] * (2 * j - 1) / (2 * j))
    root = np.array(
        [[toeplitz[i - j] if i >= j else 0.0 for j in range(rounds)] for i in range(rounds)]
    )
    np.testing.assert_allclose(root @ root, a, atol=1e-12)
    spread = np.eye(rounds) + (sqrt(rounds) - 1) / rounds  # ‖C⁻¹‖ is small where A is large
    for c in (
        np.eye(rounds),
        a,
        root,
        spread,
        np.linalg.inv(mixing(rounds)) @ a,
        *generator.normal(size=(50, rounds, rounds)),
    ):
        b = a @ np.linalg.inv(c)
        ours = np.square(b).sum() * np.square(c.sum(1)).sum()
        assert ours >= least * (1 - 1e-6)
        assert independent / ours <= 1.5 * (1 + 1e-6)


def test_the_tree_saves_much_for_one_participation_and_nothing_for_all() -> None:
    for participations, separation, error in (
        (1, 1, 0.107),
        (4, 256, 0.132),
        (4, 1, 0.366),
        (32, 32, 0.512),
    ):
        found = tree(
            rounds=1024, participations=participations, separation=separation
        ).against_independent
        assert found == pytest.approx(error, abs=5e-4)
    assert by_clients(rounds=64).against_independent == pytest.approx(8.86, abs=0.01)
    last = by_clients(rounds=64, noise_multiplier=1.0)
    independent = 64 * 64 * 64**2  # T draws whose T releases together are of z = 1
    assert last.prefix_variance(63) / independent == pytest.approx(1.5 - 1 / 128)


# The noise


def covariances(noises: NDArray[np.float64], plan: PrefixTree, variance: float) -> None:
    """Prefix sums' noises `[T, d]` covary by the nodes they share, so every node was drawn once and
    apart from the others.
    """
    rounds, count = noises.shape
    shared = mixing(rounds) @ mixing(rounds).T * variance
    for s in range(rounds):
        for t in range(s, rounds):
            deviation = sqrt((shared[s, s] * shared[t, t] + shared[s, t] ** 2) / count)
            assert_z(float((noises[s] * noises[t]).mean()) - shared[s, t], deviation, rounds**2)
    assert [plan.prefix_variance(t) for t in range(rounds)] == pytest.approx(
        np.diag(shared) * plan.variance / variance
    )


def noises_of_the_key_holder(rounds: int = 7) -> tuple[NDArray[np.float64], PrefixTree]:
    plan = tree(rounds=rounds, dimension=20_000, participations=rounds)
    chain = KeyHolderChain(plan, source(), PrivacyLedger())
    silence = torch.zeros(plan.dimension, dtype=torch.int64)
    return np.stack([chain.release(silence, range(5)).numpy() for _ in range(rounds)]).astype(
        float
    ), plan


def test_prefix_sums_have_the_claimed_variance_and_nodes_their_own_noise() -> None:
    found, plan = noises_of_the_key_holder()
    covariances(found, plan, plan.variance)


@pytest.mark.parametrize("kind", ["skellam", "discrete_gaussian"])
def test_clients_shares_add_up_to_more_than_is_certain(kind: Any) -> None:
    plan = by_clients(rounds=5, dimension=20_000, kind=kind)
    chains, opened = (
        [ClientChain(plan, source(), client) for client in range(3)],
        SumChain(plan, PrivacyLedger()),
    )
    silence = torch.zeros(plan.dimension, dtype=torch.int64)
    prefix = [
        opened.release(sum((c.contribute(silence) for c in chains), silence), range(3)).numpy()
        for _ in range(5)
    ]
    covariances(np.stack(prefix).astype(float), plan, plan.variance * 3 / 2)


class DrawnAgain(_Noise):
    """Broken: each prefix sum gets fresh noise for all of its nodes, so that their common part
    averages out over releases.
    """

    def step(self, round_number: int) -> Tensor:
        stream = self._source.stream(client=0, round=round_number, purpose="again")
        draws = [
            torch.from_numpy(self._law.sample(stream, self._tree.dimension))
            for _ in nodes_in_prefix(round_number)
        ]
        now = torch.stack(draws).sum(0)
        before, self.sent = getattr(self, "sent", torch.zeros_like(now)), now
        return now - before


class OneForAll(_Noise):
    """Broken: one draw is every node's noise."""

    def step(self, round_number: int) -> Tensor:
        if round_number == 0:
            self.drawn = super().step(0)
        return self.drawn * ((round_number + 1).bit_count() - round_number.bit_count())


@pytest.mark.parametrize("broken", [DrawnAgain, OneForAll])
def test_a_node_that_is_noised_again_or_like_another_is_caught(
    broken: type[_Noise], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secure_fl.experimental.tree_chains._Noise", broken)
    found, plan = noises_of_the_key_holder()
    with pytest.raises(AssertionError, match="deviations from 0"):
        covariances(found, plan, plan.variance)


def test_sums_come_out_exactly_beside_the_noise() -> None:
    """The same stream without data gives the noise; what is left are the prefix sums."""
    vectors = torch.randint(-20, 20, (8, 3), generator=torch.Generator().manual_seed(0))
    loud, quiet = (KeyHolderChain(tree(), source(), PrivacyLedger()) for _ in range(2))
    for t in range(8):
        difference = loud.release(vectors[t], ()) - quiet.release(
            torch.zeros(3, dtype=torch.int64), ()
        )
        assert torch.equal(difference, vectors[: t + 1].sum(0))


# Who may add it, and for how long


def test_correlated_noise_is_valid_only_where_nobody_can_go_missing() -> None:
    assert "excludes the key holder" in require_correlated_noise(
        adder="key_holder", full_participation=False
    )
    assert "lost client" in require_correlated_noise(adder="clients", full_participation=True)
    for adder, full in (("clients", False), ("server", True)):
        with pytest.raises(PrivacyError, match="drops out"):
            require_correlated_noise(adder=adder, full_participation=full)
    for options in ({"participations": 7}, {"separation": 2}, {"adder": "server"}):
        with pytest.raises(PrivacyError, match="drops out"):
            by_clients(**options)


def test_a_lost_client_ends_the_chain_for_ever() -> None:
    plan = by_clients()
    client, opened, vector = (
        ClientChain(plan, source(), 0),
        SumChain(plan, PrivacyLedger()),
        torch.zeros(3, dtype=torch.int64),
    )
    opened.release(vector, [0, 1, 2])
    with pytest.raises(PrivacyError, match="takes its noise along"):
        opened.release(vector, [0, 2])
    assert opened.ended
    with pytest.raises(PrivacyError, match="has ended"):
        opened.release(vector, [0, 1, 2])
    client.contribute(vector)
    client.end()
    with pytest.raises(PrivacyError, match="has ended"):
        client.contribute(vector)


def test_the_key_holder_refuses_rounds_that_are_not_charged() -> None:
    chain, vector = (
        KeyHolderChain(tree(participations=2, separation=2), source(), PrivacyLedger()),
        torch.zeros(3, dtype=torch.int64),
    )
    chain.release(vector, [0, 1])
    for participants, problem in (([0], "more often"), ([5], "roster"), ([-1], "roster")):
        with pytest.raises(PrivacyError, match=problem):
            chain.release(vector, participants)
    assert chain.round == 1, "nothing was released"
    chain.release(vector, [2])
    chain.release(vector, [0])
    chain.release(vector, [])
    with pytest.raises(PrivacyError, match="more often"):
        chain.release(vector, [0, 3])
    chain.release(vector, [3])


def test_a_chain_releases_each_round_once_and_is_neither_copied_nor_stored() -> None:
    secret, ledger, vector = source(), PrivacyLedger(), torch.zeros(3, dtype=torch.int64)
    chain = KeyHolderChain(tree(rounds=2), secret, ledger)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(PrivacyError, match="drawn once"):
            attempt(chain)
    chain.release(vector, [0])
    with pytest.raises(PrivacyError, match="begun before"):
        KeyHolderChain(tree(rounds=2), source(1), ledger)
    chain.release(vector, [0])
    with pytest.raises(PrivacyError, match="all its rounds"):
        chain.release(vector, [1])
    with pytest.raises(PrivacyError, match="already taken"):
        KeyHolderChain(tree(rounds=2), secret, PrivacyLedger()).release(vector, [0])


def test_vectors_that_do_not_fit_are_refused_and_nothing_is_drawn() -> None:
    chain, client = (
        KeyHolderChain(tree(), source(), PrivacyLedger()),
        ClientChain(by_clients(), source(), 0),
    )
    for vector in (torch.zeros(3), torch.zeros(2, dtype=torch.int64)):
        for attempt in (lambda v: chain.release(v, [0]), client.contribute):
            with pytest.raises(PrivacyError, match="not a round's vector"):
                attempt(vector)
    for vector in (
        torch.tensor([64, 1, 0]),
        torch.tensor([-(2**63), 0, 0]),
        torch.tensor([2**32, 0, 0]),
    ):
        with pytest.raises(PrivacyError, match="longer than charged"):
            client.contribute(vector)
    assert chain.round == client.round == 0
    client.contribute(torch.tensor([0, -64, 0]))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": ""}, "name"), ({"dimension": 0}, "dimension"), ({"levels": 0},
         "levels"), ({"participations": 0}, "participations"),
        ({"rounds": 0}, "rounds"), ({"separation": 0}, "separation"), ({"noise_multiplier": 0.0},
         "noise_multiplier"), ({"roster": 0}, "roster"),
        ({"kind": "laplace"}, "kind"), ({"noise_multiplier": 0.01}, "levels"), ({"levels": 2**20},
         "levels"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(PrivacyError, match=field):
        tree(**options)


def test_parties_do_not_stand_in_for_each_other() -> None:
    for attempt in (
        lambda: KeyHolderChain(by_clients(), source(), PrivacyLedger()),
        lambda: SumChain(tree(), PrivacyLedger()),
    ):
        with pytest.raises(PrivacyError, match="another party"):
            attempt()
    with pytest.raises(PrivacyError, match="another party"):
        ClientChain(tree(), source(), 0)
    with pytest.raises(PrivacyError, match="one must be honest"):
        by_clients(colluders=3)


# Accounting


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
