"""The server's half of the encrypted backends: adds ciphertexts, subtracts plaintexts, and holds
no key.

Words are added without reduction in numpy and reduced once: 64 words of 58 bits fit into 64.
Ciphertexts that came with a seed for one half are grown by SEAL, whose generator needs no key, and
added by SEAL.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.he.ciphertexts import BodyWriter, CipherVector, Kind, read_body
from secure_fl.he.parameters import ParameterSet
from secure_fl.he.seal_bridge import SealBridge

Words = NDArray[np.uint64]


@dataclass
class CipherSum:
    """A running sum: its memory does not depend on how many uploads it has taken.

    Args:
        numbers: how many numbers each upload holds.
        words: `[c, 2, N]`, not yet reduced; memory is taken when they are first written.
        pending: uploads added since the last reduction, the reduced sum counting as one.
        added: uploads in the sum.
        grown: the sum of uploads that came with seeds, SEAL's ciphertexts.
        seeds: all that were seen.
    """

    numbers: int
    words: Words
    pending: int = 1
    added: int = 0
    grown: list[Any] = field(default_factory=list, repr=False)
    seeds: set[bytes] = field(default_factory=set, repr=False)


class KeylessServer:
    """Adds what it cannot read.

    Guarantee: it is given a parameter set and a fingerprint only; there is no key in the process
    for it to use.
    Assumes: envelopes were checked before a body comes here. SEAL adds ciphertexts under different
    keys without a word, and ciphertexts are malleable; the fingerprint in the body stops mistakes,
    signatures stop strangers.
    Not covered: a malicious server can add what it likes to a sum (BFV and CKKS are malleable).

    Args:
        parameters: the federation's set.
        fingerprint: 32 bytes of the key in force.
        bridge: a context of these parameters that is there already.
    """

    def __init__(
        self, parameters: ParameterSet, fingerprint: bytes, bridge: SealBridge | None = None
    ) -> None:
        self.parameters = parameters
        self.fingerprint = fingerprint
        self._bridge = bridge or SealBridge(parameters)
        self._evaluator = self._bridge.api.Evaluator(self._bridge.context)

    def new_sum(self, numbers: int) -> CipherSum:
        """An empty sum of vectors of `numbers` numbers."""
        shape = (self.parameters.ciphertexts(numbers), 2, self.parameters.degree)
        return CipherSum(numbers, np.zeros(shape, np.uint64))

    def add(self, total: CipherSum, body: bytes) -> None:
        """`read` and `add_vector`: a refused upload leaves the sum as it was."""
        self.add_vector(total, self.read(total, body))

    def read(
        self, total: CipherSum, body: bytes | memoryview, *, cut: bool = False
    ) -> CipherVector:
        """Parse and check one upload, cut or not, which `add_vector` may then add to this sum.
        Raises RefusedError: as `read_body`, and `replayed` for a seed that this sum has seen.
        """
        kinds = (Kind.CUT_SEEDED, Kind.CUT_FULL) if cut else (Kind.SEEDED, Kind.FULL)
        vector = read_body(body, self.parameters, self.fingerprint, total.numbers, kinds)
        fresh = set(vector.seeds)
        if len(fresh) < len(vector.seeds) or fresh & total.seeds:
            problem, remedy = "a seed is used twice", "encrypt every vector anew"
            raise RefusedError(Reason.REPLAYED, problem, "ciphertext", len(vector.seeds), remedy)
        return vector

    def add_vector(self, total: CipherSum, vector: CipherVector) -> None:
        """Add what `read` checked for this sum."""
        if vector.seeds:
            self._grow(total, vector)
        else:
            self._make_room(total)
            for mine, row in zip(total.words, vector.rows(), strict=True):
                mine += row
            total.pending += 1
        total.added += 1

    def finish(self, total: CipherSum) -> bytes:
        """The sum for the key holder. Raises RefusedError: nothing was added."""
        if not total.added:
            remedy = "add at least one upload"
            raise RefusedError(Reason.WRONG_LENGTH, "nothing to open", "sum", 0, remedy)
        self.words(total)
        writer = BodyWriter(self.parameters, self.fingerprint, Kind.SUM, total.numbers)
        for words in total.words:
            writer.put(words)
        return bytes(writer.close())

    def words(self, total: CipherSum) -> Words:
        """The sum as it is, `[c, 2, N]`, reduced; more may be added to it afterwards."""
        self._make_room(total)
        for row, ciphertext in enumerate(total.grown):
            total.words[row] += self._bridge.cipher_words(ciphertext)
        total.grown = []
        self._reduce(total)
        return total.words

    def take_up(self, total: CipherSum, words: Words, added: int) -> None:
        """Go on with the words of so many uploads. Their seeds are not known: it takes no more.
        Raises RefusedError: `wrong-length`, or `out-of-range` for a word that is not reduced.
        """
        if words.size != total.words.size:
            remedy = "take this round's"
            raise RefusedError(Reason.WRONG_LENGTH, "another sum", "sum", words.size, remedy)
        if words.size and int(words.max()) >= self.parameters.modulus:
            problem, remedy = "a word is not reduced", "take it as it was kept"
            raise RefusedError(Reason.OUT_OF_RANGE, problem, "sum", "(hidden)", remedy)
        total.words, total.pending = words.reshape(total.words.shape), 1
        total.added, total.grown = added, []

    def _grow(self, total: CipherSum, vector: CipherVector) -> None:
        for row, (words, seed) in enumerate(zip(vector.rows(), vector.seeds, strict=True)):
            ciphertext = self._bridge.expanded(words[0], seed)
            if row == len(total.grown):
                total.grown.append(ciphertext)
            else:
                self._evaluator.add_inplace(total.grown[row], ciphertext)
        total.seeds.update(vector.seeds)

    def _make_room(self, total: CipherSum) -> None:
        if total.pending == self.parameters.lazy_additions:
            self._reduce(total)

    def _reduce(self, total: CipherSum) -> None:
        np.remainder(total.words, np.uint64(self.parameters.modulus), out=total.words)
        total.pending = 1
