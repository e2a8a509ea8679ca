"""A client's half of the encrypted backends: SEAL's encryptor, and the bodies it fills."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_fl.he.ciphertexts import BodyWriter, Kind
from secure_fl.he.keys import PublicKey, SecretKey
from secure_fl.he.seal_bridge import SealBridge

Ciphertext = tuple[Sequence[NDArray[np.uint64]], bytes]
"""c0 and c1, words `[N]` below q; under a shared key c0, and the seed that c1 is grown from."""


class Encryptor:
    """Encrypts plaintexts under the key it was given: the shared secret key (seeded, half the
    bytes) or the authority's public key.

    Args:
        key: `SecretKey` under `clients`, `PublicKey` under `authority`.
    """

    def __init__(self, key: SecretKey | PublicKey) -> None:
        self.bridge = SealBridge(key.parameters)
        self._parameters, self._fingerprint = key.parameters, key.fingerprint
        shared = isinstance(key, SecretKey)
        self.kind = Kind.SEEDED if shared else Kind.FULL
        material = (self.bridge.secret_key if shared else self.bridge.public_key)(key.words)
        self._encryptor: Any = self.bridge.api.Encryptor(self.bridge.context, material)

    def encrypt(self, plaintext: Any = None) -> Any:
        """A fresh encryption of SEAL's plaintext or of zero; with a seed under a shared key."""
        if self.kind is Kind.SEEDED:
            if plaintext is None:
                return self._encryptor.encrypt_zero_symmetric()
            return self._encryptor.encrypt_symmetric(plaintext)
        made = self.bridge.api.Ciphertext()
        if plaintext is None:
            self._encryptor.encrypt_zero(made)
        else:
            self._encryptor.encrypt(plaintext, made)
        return made

    def ciphertext(self, plaintext: Any = None) -> Ciphertext:
        """`encrypt`, as the words that a body holds of it."""
        made = self.encrypt(plaintext)
        if self.kind is Kind.SEEDED:
            words, seed = self.bridge.seeded_words(made)
            return [words], seed
        return list(self.bridge.cipher_words(made)), b""

    def body(
        self,
        numbers: int,
        ciphertexts: Iterable[Ciphertext],
        place: memoryview | None = None,
        *,
        cut: bool = False,
    ) -> memoryview:
        """The body of a vector of `numbers` numbers, from its ciphertexts in order; written to
        `place` where one is given.

        Args:
            numbers: in the vector.
            ciphertexts: which hold them.
            place: `ciphertexts.body_bytes` bytes; memory of its own when left out.
            cut: whether to leave out what numbers of one ciphertext do not need.

        Raises:
            SecureSumError: a place of another length, or more or fewer ciphertexts than the
                numbers fill.
        """
        writer = BodyWriter(
            self._parameters, self._fingerprint, self.kind.cut if cut else self.kind, numbers, place
        )
        for halves, seed in ciphertexts:
            writer.put(halves, seed)
        return writer.close()
