"""Chains of correlated noise at work: the noise has the law that is claimed, who may add it and for
how long, and that broken variants are caught.
"""

from __future__ import annotations

import copy
import pickle
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from experimental.trees import by_clients, mixing, source, tree
from numpy.typing import NDArray
from privacy.randomness import assert_z
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.experimental.correlated import PrefixTree, nodes_in_prefix
from secure_fl.experimental.tree_chains import ClientChain, KeyHolderChain, SumChain, _Noise
from secure_fl.privacy.ledger import PrivacyLedger


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


# Who may add noise, and for how long


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
