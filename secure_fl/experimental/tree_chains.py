"""Chains of correlated noise: the parties that add it and open it, round by round. What is claimed,
and why, is in `correlated`.

**Guarantee**: a node's noise is drawn once, from a stream that no other draw uses; every round is
released once and in order; after a lost client, an `end()` or the last round nothing more is; the
whole chain is charged before its first round, once.

**Assumes**: one process holds a chain from its first round to its last; a chain's name is used for
no other chain.

**Not covered**: fields of the secure sum. A round's noise is that of up to ⌊log₂ T⌋ + 1 nodes, and
vectors here are int64.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NoReturn

import torch
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.experimental.correlated import PrefixTree, node_of
from secure_fl.privacy.ledger import PrivacyLedger, Release
from secure_fl.privacy.noise import NoiseSource


class _Chain:
    """Rounds in order, each once, until the last or `end`. Neither copied nor stored."""

    def __init__(self, tree: PrefixTree, adder: str) -> None:
        if tree.adder != adder:
            remedy = f'a tree with adder = "{adder}"'
            raise PrivacyError("another party adds this chain's noise", "adder", tree.adder, remedy)
        self.tree = tree
        self.round = 0
        """The number of the next round, from 0."""
        self.ended = False

    def end(self) -> None:
        """Nothing more can be released from this chain."""
        self.ended = True

    def _check_open(self) -> None:
        if self.ended or self.round >= self.tree.rounds:
            problem = "has ended" if self.ended else "has released all its rounds"
            remedy = "begin a chain of another name; it is charged again"
            raise PrivacyError(f"the chain {problem}", "chain", self.tree.name, remedy)

    def _check_vector(self, vector: Tensor) -> None:
        if vector.dtype != torch.int64 or vector.shape != (self.tree.dimension,):
            problem, remedy = "not a round's vector", f"pass int64 [{self.tree.dimension}]"
            raise PrivacyError(problem, "vector", (str(vector.dtype), tuple(vector.shape)), remedy)

    def _refuse(self, *_: object) -> NoReturn:
        problem = "its noise is secret and drawn once"
        remedy = "begin a new chain after a crash; it is charged again"
        raise PrivacyError(problem, "chain", "copied or stored", remedy)

    __reduce__ = __reduce_ex__ = __getstate__ = __copy__ = __deepcopy__ = _refuse

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.tree.name}, round {self.round}>"


class _Noise:
    """One party's noise: each node's drawn once, and forgotten when a larger one takes it up."""

    def __init__(self, tree: PrefixTree, source: NoiseSource, party: int) -> None:
        self._tree, self._source, self._party, self._law = tree, source, party, tree.noise()
        self._open: list[tuple[int, Tensor]] = []

    def step(self, round_number: int) -> Tensor:
        """What to add in this round, int64 `[d]`."""
        stream = self._source.stream(
            client=self._party, round=round_number, purpose=f"tree/{self._tree.name}"
        )
        drawn = torch.from_numpy(self._law.sample(stream, self._tree.dimension))
        added, start = drawn.clone(), node_of(round_number).start
        while self._open and self._open[-1][0] >= start:
            added -= self._open.pop()[1]
        self._open.append((round_number, drawn))
        return added


class KeyHolderChain(_Chain):
    """The key holder's side: it opens a round's exact sum, adds the noise and gives out the noised
    prefix sum.

    Beginning charges the ledger for the whole chain.

    Raises:
        PrivacyError: the ledger knows the chain, or its budget would be passed; or clients add this
            chain's noise.
    """

    def __init__(
        self,
        tree: PrefixTree,
        source: NoiseSource,
        ledger: PrivacyLedger,
        *,
        phase: str = "pretrain",
    ) -> None:
        super().__init__(tree, "key_holder")
        self._noise = _Noise(tree, source, 0)
        _charge(ledger, tree.release(phase))
        self._prefix = torch.zeros(tree.dimension, dtype=torch.int64)
        self._took: dict[int, list[int]] = {}

    def release(self, total: Tensor, participants: Collection[int]) -> Tensor:
        """The noised prefix sum up to this round, int64 `[d]`.

        Args:
            total: the round's exact sum, int64 `[d]`, of vectors of length at most `levels`.
            participants: whose vectors are in it.

        Raises:
            PrivacyError: the chain is over, the vector does not fit, or somebody would take part
                more often than charged; then nothing is released and the round can be asked for
                again without that client.
        """
        self._check_open()
        self._check_vector(total)
        for client in set(participants):
            self._check_charged(client)
        self._prefix = self._prefix + total + self._noise.step(self.round)
        for client in set(participants):
            self._took.setdefault(client, []).append(self.round)
        self.round += 1
        return self._prefix

    def _check_charged(self, client: int) -> None:
        """Refuse a client whose part in this round the tree does not charge for."""
        tree, before = self.tree, self._took.get(client, [])
        if not 0 <= client < tree.roster:
            remedy = f"clients 0..{tree.roster - 1}"
            raise PrivacyError("not on the roster", "participants", client, remedy)
        too_soon = before and self.round - before[-1] < tree.separation
        if too_soon or len(before) >= tree.participations:
            problem = "would take part more often than is charged"
            remedy = f"at most {tree.participations} rounds, {tree.separation} apart; leave it out"
            raise PrivacyError(problem, "participants", client, remedy)


class ClientChain(_Chain):
    """One client's side: each round's vector plus its share of the noise, once a round."""

    def __init__(self, tree: PrefixTree, source: NoiseSource, client: int) -> None:
        super().__init__(tree, "clients")
        self._noise = _Noise(tree, source, client)

    def contribute(self, integers: Tensor) -> Tensor:
        """What may leave the client in this round, under masks and encryption, int64 `[d]`. Raises
        PrivacyError: the chain is over, or the vector has another shape or is longer than `levels`.
        """
        self._check_open()
        self._check_vector(integers)
        longest = self.tree.levels
        beyond = bool(((integers > longest) | (integers < -longest)).any())
        if beyond or int(integers.square().sum()) > longest**2:
            problem = "the integers are longer than charged"
            raise PrivacyError(problem, "integers", "their norm", "clip before rounding")
        added = self._noise.step(self.round)
        self.round += 1
        return integers + added


class SumChain(_Chain):
    """Whoever opens sums of `ClientChain`s: every client in every round, or never again. Beginning
    charges the ledger for the whole chain.

    Raises:
        PrivacyError: the ledger knows the chain, or its budget would be passed; or the key holder
            adds this chain's noise.
    """

    def __init__(self, tree: PrefixTree, ledger: PrivacyLedger, *, phase: str = "pretrain") -> None:
        super().__init__(tree, "clients")
        _charge(ledger, tree.release(phase))
        self._prefix = torch.zeros(tree.dimension, dtype=torch.int64)

    def check(self, survivors: Iterable[int]) -> None:
        """To be called before a round's sum is opened. Raises PrivacyError: somebody is missing,
        and with them noise of this and earlier rounds; the chain has ended.
        """
        self._check_open()
        if set(survivors) != set(range(self.tree.roster)):
            self.end()
            problem = "a lost client takes its noise along: the chain has ended"
            remedy = "do not open the sum; begin a chain of another name, which is charged again"
            raise PrivacyError(problem, "survivors", "not the roster", remedy)

    def release(self, total: Tensor, survivors: Iterable[int]) -> Tensor:
        """The noised prefix sum up to this round, int64 `[d]`, from the sum of all clients'
        contributions. Raises PrivacyError: as `check`, or the vector does not fit.
        """
        self.check(survivors)
        self._check_vector(total)
        self._prefix = self._prefix + total
        self.round += 1
        return self._prefix


def _charge(ledger: PrivacyLedger, release: Release) -> None:
    """Record a chain that has not begun."""
    if any(known.key == release.key for known in ledger.releases):
        remedy = "give the new chain a name of its own; the old one cannot be resumed"
        raise PrivacyError("the chain was begun before", "name", release.key, remedy)
    if ledger.budget is not None:
        ledger.would_exceed([release])
    ledger.record(release)
