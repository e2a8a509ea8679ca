"""OpenFHE threshold sums (BGV, depth 0, noise flooding): no single party holds the key. Optional.

The wheels import on Python 3.10 and 3.12 only; elsewhere `unavailable()` says so. OpenFHE's Python binding takes lists.
Use BGV: BFV of release 1.6.1 decrypts wrongly, without a word, for plaintext moduli of 55 bits and more.

Guarantee: all parties together open a sum; fewer cannot, under RLWE with the library's 128-bit set.
Assumes: honest-but-curious parties that add the flooding noise the library prescribes.
Not covered: drop-outs between the sum and its opening (n of n); a party that sends a wrong share.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_fl.errors import DependencyError
from secure_fl.secure_sum.parameters import BATCHING_PRIME

Slots = NDArray[np.uint64]


def unavailable() -> str:
    """Why OpenFHE cannot be used here; empty where it can."""
    try:
        importlib.import_module("openfhe")
    except ImportError as error:
        return f"openfhe does not import here ({type(error).__name__}): its wheels are built for Python 3.10 and 3.12"
    return ""


class ThresholdBgv:
    """All parties of a threshold sum in one process: the interface to compare with, and an oracle for tests.

    Args:
        parties: at least two; all must help to open.

    Raises:
        DependencyError: OpenFHE does not import here.
    """

    def __init__(self, parties: int) -> None:
        if problem := unavailable():
            raise DependencyError(problem, field="openfhe", value="not importable", remedy="use bfv+masked, or Python 3.10 or 3.12")
        self._api: Any = importlib.import_module("openfhe")
        api = self._api
        settings = api.CCParamsBGVRNS()
        settings.SetMultiplicativeDepth(0)
        settings.SetSecurityLevel(api.SecurityLevel.HEStd_128_classic)
        settings.SetPlaintextModulus(BATCHING_PRIME)
        settings.SetMultipartyMode(api.NOISE_FLOODING_MULTIPARTY)
        settings.SetRingDim(8192)
        self._context: Any = api.GenCryptoContext(settings)
        for feature in (api.PKE, api.KEYSWITCH, api.LEVELEDSHE, api.ADVANCEDSHE, api.MULTIPARTY):
            self._context.Enable(feature)
        keys = [self._context.KeyGen()]
        for _ in range(parties - 1):
            keys.append(self._context.MultipartyKeyGen(keys[-1].publicKey))
        self._secrets: list[Any] = [key.secretKey for key in keys]
        self._public: Any = keys[-1].publicKey

    def sum_and_open(self, vectors: list[Slots]) -> Slots:
        """Encrypt each vector under the joint key, add, and open with every party's share -> uint64 `[n]` modulo t."""
        context, half = self._context, BATCHING_PRIME // 2
        size, width = vectors[0].size, context.GetRingDimension()
        opened: list[NDArray[np.int64]] = []
        for start in range(0, size, width):
            pieces = (vector[start : start + width].astype(np.int64) for vector in vectors)
            centred = (np.where(piece > half, piece - BATCHING_PRIME, piece).tolist() for piece in pieces)
            total = functools.reduce(context.EvalAdd, (context.Encrypt(self._public, context.MakePackedPlaintext(row)) for row in centred))
            shares = [context.MultipartyDecryptLead([total], self._secrets[0])[0]]
            shares += [context.MultipartyDecryptMain([total], secret)[0] for secret in self._secrets[1:]]
            count = min(width, size - start)
            opened.append(np.asarray(context.MultipartyDecryptFusion(shares).GetPackedValue()[:count], np.int64))
        return np.mod(np.concatenate(opened), BATCHING_PRIME).astype(np.uint64)
