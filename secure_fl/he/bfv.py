"""BFV through TenSEAL: exact encrypted sums modulo t.

A slot is one coefficient of the plaintext polynomial. Sums need no products, so the batching
transform would buy nothing and costs a Python list of 4096 integers on the way in and out (0.5 and
0.7 ms a ciphertext); noise and security do not depend on it. SEAL encrypts zeros, and scaled
numbers are added to the words of their first halves: what its own `encrypt` does, a quarter
cheaper, and no plaintext enters SEAL.

Guarantee: without the key, uploads hide their contents under RLWE with the parameter set's security
level (IND-CPA).
Assumes: SEAL's encryption and its generator; keys that reached only those they were made for.
Not covered: who sent a ciphertext (`envelope`); what the holder and the server can do together
(they read every upload: masks go below this layer); a server that shifts a sum, or that sends
crafted sums and learns about the key from which ones are refused (take a refusal for an alarm, and
renew the key); timing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.he.cipher_sum import CipherSum, KeylessServer
from secure_fl.he.ciphertexts import Kind, read_body
from secure_fl.he.encryptor import Ciphertext, Encryptor
from secure_fl.he.keys import HolderKey, PublicKey, SecretKey
from secure_fl.he.parameters import BFV_4096, KeyHolder, ParameterSet
from secure_fl.he.seal_bridge import SealBridge

Slots = NDArray[np.uint64]

LEAST_NOISE_BUDGET = 2
"""Bits below which nothing is opened and no set-up is accepted."""
_MEASURED_CLIENTS = 16


class BfvClient:
    """Encrypts with the key it was given: the shared secret key (seeded, half the bytes) or the
    authority's public key.

    Args:
        key: `SecretKey` under `clients`, `PublicKey` under `authority`.
    """

    def __init__(self, key: SecretKey | PublicKey) -> None:
        _need_bfv(key.parameters)
        self.parameters, self.fingerprint = key.parameters, key.fingerprint
        self.encryptor = Encryptor(key)

    def encrypt(self, slots: Slots) -> bytes:
        """One vector, freshly encrypted: two calls never give the same bytes.

        Args:
            slots: uint64 `[n]`, each below t; the last ciphertext is padded with zeros.

        Raises:
            SecureSumError: a slot is not below t, or there is none.
        """
        return bytes(self.body(slots.size, [slots]))

    def body(
        self,
        numbers: int,
        runs: Iterable[Slots],
        place: memoryview | None = None,
        *,
        cut: bool = False,
    ) -> memoryview:
        """A vector that comes run by run, freshly encrypted.

        Args:
            numbers: slots of all runs together.
            runs: uint64 vectors of whole ciphertexts, the last one padded with zeros; a run may be
                reused once the next one is taken.
            place: `ciphertexts.body_bytes` bytes to write to; memory of its own when left out.
            cut: as in `Encryptor.body`.

        Raises:
            SecureSumError: a slot is not below t, or there is none; runs of other lengths, or a
                place of another.
        """
        return self.encryptor.body(
            numbers, (made for run in runs for made in self._ciphertexts(run)), place, cut=cut
        )

    def _ciphertexts(self, run: Slots) -> Iterator[Ciphertext]:
        modulus = np.uint64(self.parameters.modulus)
        for row in _rows(run, self.parameters):
            (first, *second), seed = self.encryptor.ciphertext()
            words = _scaled(row, self.parameters)
            words += first
            yield [np.minimum(words, words - modulus, out=words), *second], seed


class BfvServer(KeylessServer):
    """The keyless server of BFV sums; see `KeylessServer`."""

    def subtract_plain(self, total: CipherSum, slots: Slots) -> bytes:
        """Take known numbers, the summed masks, out of an encrypted sum and finish it.

        Args:
            total: the sum; used up.
            slots: uint64 `[numbers]`, each below t.

        Raises:
            SecureSumError: another length than the sum's, or a number that is not below t.
            RefusedError: nothing was added.
        """
        if slots.size != total.numbers:
            problem = "masks and sum differ in length"
            remedy = "expand the masks to the block's length"
            raise SecureSumError(problem, "masks", (slots.size, total.numbers), remedy)
        self._make_room(total)
        total.words[:, 0] += np.uint64(self.parameters.modulus) - _scaled(
            _rows(slots, self.parameters), self.parameters
        )
        total.pending += 1
        return self.finish(total)


class BfvHolder:
    """Decrypts sums. The only class here that can.

    Args:
        key: what `HolderKey.generate` or the ceremony gave.
    """

    def __init__(self, key: HolderKey) -> None:
        _need_bfv(key.parameters)
        self.parameters, self.fingerprint = key.parameters, key.fingerprint
        self._bridge = SealBridge(key.parameters)
        self._decryptor: Any = self._bridge.api.Decryptor(
            self._bridge.context, self._bridge.secret_key(key.secret.words)
        )

    @cached_property
    def adder(self) -> BfvServer:
        """What adds ciphertexts for this holder itself, in the same context."""
        return BfvServer(self.parameters, self.fingerprint, self._bridge)

    def decrypt(self, body: bytes, numbers: int, *, cut: bool = False) -> Slots:
        """Open a sum that the server finished.

        Args:
            body: from `BfvServer.finish` or `subtract_plain`.
            numbers: how many slots the block has.
            cut: whether uploads were cut; the noise budget, of all coefficients, says nothing then.
                The range of what is opened does.

        Returns:
            uint64 `[numbers]`, each below t.

        Raises:
            RefusedError: as `read_body`; `noise-budget` where any ciphertext has less than two bits
                left, which is also what a damaged ciphertext or one under another key shows.
        """
        slots, budget = self.open(body, numbers)
        if budget < LEAST_NOISE_BUDGET and not cut:
            problem = f"below {LEAST_NOISE_BUDGET} bits: too many uploads, damage, or another key"
            remedy = "fewer clients, or ask the server for the sum again"
            raise RefusedError(Reason.NOISE_BUDGET, problem, "noise budget", budget, remedy)
        return slots

    def open(self, body: bytes, numbers: int) -> tuple[Slots, int]:
        """Slots, and the least noise budget in bits, unchecked: rounds call `decrypt`."""
        vector = read_body(body, self.parameters, self.fingerprint, numbers, (Kind.SUM,))
        slots = np.empty((self.parameters.ciphertexts(numbers), self.parameters.degree), np.uint64)
        budget = self.parameters.word_bits
        for k, words in enumerate(vector.rows()):
            ciphertext = self._bridge.ciphertext(words)
            budget = min(budget, int(self._decryptor.invariant_noise_budget(ciphertext)))
            plaintext = self._bridge.api.Plaintext()
            self._decryptor.decrypt(ciphertext, plaintext)
            slots[k] = self._bridge.plain_words(plaintext)
        return slots.reshape(-1)[:numbers], budget


def measure_noise_budget(parameters: ParameterSet, key_holder: KeyHolder, clients: int) -> float:
    """Bits of noise budget that a sum over `clients` uploads would have left.

    Measured with a fresh key over up to 16 uploads of two ciphertexts each; noise of more clients
    grows with their square root.
    """
    key = HolderKey.generate(SealBridge(parameters), key_holder)
    client = BfvClient(key.public or key.secret)
    server = BfvServer(parameters, client.fingerprint)
    numbers, sampled = 2 * parameters.degree, min(clients, _MEASURED_CLIENTS)
    total = server.new_sum(numbers)
    worst = np.full(numbers, parameters.plain_modulus - 1, np.uint64)
    for _ in range(sampled):
        server.add(total, client.encrypt(worst))
    _, budget = BfvHolder(key).open(server.subtract_plain(total, worst), numbers)
    return budget - math.log2(clients / sampled) / 2


def check_noise_budget(
    parameters: ParameterSet = BFV_4096, key_holder: KeyHolder = "clients", clients: int = 2
) -> float:
    """Measure, and refuse a set-up that would have less than two bits left.

    Returns:
        The budget in bits.

    Raises:
        RefusedError: `noise-budget`.
    """
    _need_bfv(parameters)
    if clients < 1:
        raise SecureSumError("a sum needs a client", "clients", clients, "at least 1")
    budget = measure_noise_budget(parameters, key_holder, clients)
    if budget < LEAST_NOISE_BUDGET:
        remedy = "fewer clients, a smaller plaintext modulus, or another parameter set"
        problem = f"{clients} clients would leave less than {LEAST_NOISE_BUDGET} bits"
        raise RefusedError(Reason.NOISE_BUDGET, problem, "noise budget", round(budget, 1), remedy)
    return budget


def _rows(slots: Slots, parameters: ParameterSet) -> Slots:
    """Slots `[n]` as zero-padded rows `[c, N]`."""
    t = parameters.plain_modulus
    if slots.dtype != np.uint64 or slots.ndim != 1 or not slots.size:
        problem, remedy = "must be uint64 [n], n > 0", "pack fields with the codec"
        raise SecureSumError(problem, "slots", (str(slots.dtype), slots.shape), remedy)
    if int(slots.max()) >= t:
        remedy = "reduce modulo t first"
        raise SecureSumError(f"a slot is not below t = {t}", "slots", f"{slots.size} slots", remedy)
    count = parameters.ciphertexts(slots.size)
    if slots.size == count * parameters.degree:
        return slots.reshape(count, parameters.degree)
    rows = np.zeros(count * parameters.degree, np.uint64)
    rows[: slots.size] = slots
    return rows.reshape(count, parameters.degree)


def _scaled(slots: Slots, parameters: ParameterSet) -> Slots:
    """Numbers m below t as they are added to a first half, below q.

    SEAL's scaling is round(q·m/t); here floor(q/t)·m + rint(m·(q mod t)/t), whose second term
    float64 gives within one unit, which is one unit of noise in 2^13.
    """
    q, t = parameters.modulus, parameters.plain_modulus
    rest = slots * ((q % t) / t)
    scaled = slots * np.uint64(q // t)
    scaled += np.rint(rest, out=rest).astype(np.uint64)
    return scaled


def _need_bfv(parameters: ParameterSet) -> None:
    if parameters.scheme != "bfv":
        problem, remedy = "not a BFV parameter set", "use BFV_4096"
        raise RefusedError(Reason.WRONG_PARAMETERS, problem, "parameters", parameters.name, remedy)
