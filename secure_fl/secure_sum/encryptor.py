"""A client's half of the encrypted backends: SEAL's encryptor, and the bodies it fills."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.ciphertexts import BodyWriter, Kind, body_bytes
from secure_fl.secure_sum.he_keys import PublicKey, SecretKey, seal_public, seal_secret
from secure_fl.secure_sum.seal_bridge import SealBridge


class Encryptor:
    """Encrypts plaintexts under the key it was given: the shared secret key (seeded, half the bytes) or the authority's public key.

    Args:
        key: `SecretKey` under `clients`, `PublicKey` under `authority`.
    """

    def __init__(self, key: SecretKey | PublicKey) -> None:
        self.bridge, self._parameters, self._fingerprint = SealBridge(key.parameters), key.parameters, key.fingerprint
        self.kind = Kind.SEEDED if isinstance(key, SecretKey) else Kind.FULL
        material = seal_secret(self.bridge, key) if isinstance(key, SecretKey) else seal_public(self.bridge, key)
        self._encryptor: Any = self.bridge.api.Encryptor(self.bridge.context, material)

    def encrypt(self, plaintext: Any) -> Any:
        """A fresh ciphertext as SEAL's object; under a shared key, one that is saved with a seed for its second half."""
        if self.kind is Kind.SEEDED:
            return self._encryptor.encrypt_symmetric(plaintext)
        ciphertext = self.bridge.api.Ciphertext()
        self._encryptor.encrypt(plaintext, ciphertext)
        return ciphertext

    def body_bytes(self, numbers: int) -> int:
        """Length of the body of so many numbers."""
        return body_bytes(self._parameters, numbers, self.kind)

    def body(self, numbers: int, plaintexts: Iterable[Any], place: memoryview | None = None) -> memoryview:
        """The body of a vector of `numbers` numbers, from SEAL's plaintexts in order; written to `place` where one is given.

        Raises:
            SecureSumError: a place of another length, or more or fewer plaintexts than the numbers fill: what nobody wrote stays here.
        """
        writer = BodyWriter(self._parameters, self._fingerprint, self.kind, numbers, place)
        count, row = self._parameters.ciphertexts(numbers), 0
        for plaintext in plaintexts:
            if row < count:
                ciphertext = self.encrypt(plaintext)
                if self.kind is Kind.SEEDED:
                    writer.put(row, *self.bridge.seeded_words(ciphertext))
                else:
                    writer.put(row, self.bridge.cipher_words(ciphertext))
            row += 1
        if row != count:
            remedy = f"{count} whole plaintexts for {numbers} numbers"
            raise SecureSumError("the body is not filled as it must be", field="plaintexts", value=row, remedy=remedy)
        return writer.data
