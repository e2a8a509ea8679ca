"""CKKS sums of integers, for systems that expect CKKS; no run offers them.

Prefer BFV: it is exact, needs an eighth of the bytes, and has no such trap.

The trap (Li and Micciancio, EUROCRYPT 2021): a raw CKKS decryption is message plus encryption
noise, so ciphertext and decryption together are noiseless equations in the key. Two ciphertexts and
their raw decryptions give the whole key; `tests/experimental/ test_ckks.py` does it in a second.
Here raw decryptions stay inside `CkksHolder.decrypt`: what leaves is an integer, which is a
function of the clients' integers alone. A coordinate that is not close to an integer refuses the
whole vector.

Guarantee: for sums that the server made by adding uploads, what leaves the holder carries no
encryption noise.
Assumes: numbers are integers of at most 2^19 in magnitude when summed (the codec's field), error
below 1/16.
Not covered: a server that adds fractions of its own and learns, one bit a query, whether the holder
refused (rotate keys, and treat a refusal as an alarm); everything that `bfv` does not cover.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.he.cipher_sum import KeylessServer
from secure_fl.he.ciphertexts import Kind, read_body
from secure_fl.he.encryptor import Encryptor
from secure_fl.he.keys import HolderKey, PublicKey, SecretKey
from secure_fl.he.parameters import ParameterSet
from secure_fl.he.seal_bridge import SealBridge
from secure_fl.secure_sum.layout import magnitude

Integers = NDArray[np.int64]

_PRIMES = (1_152_921_504_606_748_673, 1_152_921_504_606_830_593)
CKKS_8192 = ParameterSet("ckks-8192-60.60-32", "ckks", 8192, _PRIMES, scale_bits=32)
"""The one set that this file was measured with: 192 bits, 60-bit ciphertexts, a scale of 2^32."""
LARGEST = 2**19 - 1
"""Largest magnitude of a summed integer: the edge of the codec's 20-bit field."""
GRID_TOLERANCE = 1 / 16
"""Farthest that a decryption may lie from an integer."""
WARNING = (
    "CKKS is an experiment here: it is approximate, needs 8 times the bytes of `bfv`, and a raw "
    "decryption that leaks gives away the secret key (Li and Micciancio 2021); decryptions are "
    "rounded to integers inside the key holder. Prefer `bfv+masked`."
)


class CkksWarning(UserWarning):
    """Says why CKKS is not the default."""


class CkksClient:
    """Encrypts integers, one a slot.

    Args:
        key: `SecretKey` under `clients`, `PublicKey` under `authority`.
    """

    def __init__(self, key: SecretKey | PublicKey) -> None:
        _need_ckks(key.parameters)
        warnings.warn(WARNING, CkksWarning, stacklevel=2)
        self.parameters, self.fingerprint = key.parameters, key.fingerprint
        self.encryptor = Encryptor(key)
        self._encoder: Any = self.encryptor.bridge.api.CKKSEncoder(self.encryptor.bridge.context)

    def encrypt(self, integers: Integers) -> bytes:
        """An upload of these integers: `body`, copied into bytes of its own."""
        return bytes(self.body(integers))

    def body(self, integers: Integers, place: memoryview | None = None) -> memoryview:
        """One vector, freshly encrypted.

        Args:
            integers: int64 `[n]`, at most `LARGEST` in magnitude.
            place: `ciphertexts.body_bytes` bytes to write to; memory of its own when left out.

        Raises:
            SecureSumError: another type, or out of range.
        """
        fits = integers.dtype == np.int64 and integers.ndim == 1 and integers.size > 0
        if not fits or magnitude(integers) > LARGEST:
            problem, remedy = f"must be int64 [n] within ±{LARGEST}", "quantise with the codec"
            raise SecureSumError(problem, "integers", (str(integers.dtype), integers.shape), remedy)
        parameters = self.parameters
        count = parameters.ciphertexts(integers.size)
        rows = np.zeros((count, parameters.capacity))
        rows.reshape(-1)[: integers.size] = integers
        ciphertexts = map(self.encryptor.ciphertext, map(self._plaintext, rows))
        return self.encryptor.body(integers.size, ciphertexts, place)

    def _plaintext(self, row: NDArray[np.float64]) -> Any:
        plaintext = self.encryptor.bridge.api.Plaintext()
        self._encoder.encode(row.tolist(), 2.0**self.parameters.scale_bits, plaintext)
        return plaintext


class CkksServer(KeylessServer):
    """The keyless server of CKKS sums; see `KeylessServer`."""


class CkksHolder:
    """Decrypts sums and gives out integers only.

    Args:
        key: what `HolderKey.generate` or the ceremony gave.
    """

    def __init__(self, key: HolderKey) -> None:
        _need_ckks(key.parameters)
        warnings.warn(WARNING, CkksWarning, stacklevel=2)
        self.parameters, self.fingerprint = key.parameters, key.fingerprint
        self._bridge = SealBridge(key.parameters)
        self._decryptor: Any = self._bridge.api.Decryptor(
            self._bridge.context, self._bridge.secret_key(key.secret.words)
        )
        self._encoder: Any = self._bridge.api.CKKSEncoder(self._bridge.context)

    def decrypt(self, body: bytes, numbers: int) -> Integers:
        """Open a sum that the server finished.

        Returns:
            int64 `[numbers]`.

        Raises:
            RefusedError: as `read_body`; `not-on-grid` where a coordinate is not within 1/16 of an
                integer, which is what a damaged ciphertext, another key or a tampering server
                shows; `out-of-range` beyond the field's edge.
        """
        vector = read_body(body, self.parameters, self.fingerprint, numbers, (Kind.SUM,))
        opened = np.empty((self.parameters.ciphertexts(numbers), self.parameters.capacity))
        for k, words in enumerate(vector.rows()):
            plaintext = self._bridge.api.Plaintext()
            self._decryptor.decrypt(self._bridge.ciphertext(words), plaintext)
            opened[k] = self._encoder.decode_double(plaintext)
        nearest = np.rint(opened)
        if not np.isfinite(opened).all() or float(np.abs(opened - nearest).max()) > GRID_TOLERANCE:
            problem = "a decryption is not close to an integer"
            remedy = "treat it as an alarm: renew the key, and ask who changed the sum"
            raise RefusedError(Reason.NOT_ON_GRID, problem, "sum", f"{numbers} numbers", remedy)
        if float(np.abs(nearest).max()) > LARGEST:
            problem, remedy = f"beyond ±{LARGEST}", "clip or quantise more coarsely"
            raise RefusedError(Reason.OUT_OF_RANGE, problem, "sum", f"{numbers} numbers", remedy)
        return nearest.astype(np.int64).reshape(-1)[:numbers]


def _need_ckks(parameters: ParameterSet) -> None:
    if parameters.scheme != "ckks":
        problem, remedy = "not a CKKS parameter set", "use CKKS_8192"
        raise RefusedError(Reason.WRONG_PARAMETERS, problem, "parameters", parameters.name, remedy)
