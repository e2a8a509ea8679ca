"""Keys of the homomorphic backends as values: made once, shown as fingerprints only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.he.parameters import KeyHolder, ParameterSet
from secure_fl.he.seal_bridge import SealBridge


@dataclass(frozen=True)
class _Key:
    """A key as its words.

    Args:
        parameters: the set it was made for.
        data: its words, little-endian; never shown.

    Raises:
        RefusedError: `wrong-key`: not the length of such a key.
    """

    kind: ClassVar[str]
    polynomials: ClassVar[int]
    parameters: ParameterSet
    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        words = self.polynomials * self.parameters.degree * len(self.parameters.primes)
        if len(self.data) != 8 * words:
            found, remedy = f"{len(self.data)} bytes", "use the key of this parameter set"
            problem = f"{8 * words} bytes are needed"
            raise RefusedError(Reason.WRONG_KEY, problem, f"{self.kind} key", found, remedy)

    @property
    def fingerprint(self) -> bytes:
        """32 bytes over key and parameters; safe to publish: keys have thousands of bits."""
        named = self.parameters.digest + b"|" + self.kind.encode() + b"|"
        return hashlib.sha256(b"secure-fl key fingerprint 1|" + named + self.data).digest()

    @property
    def words(self) -> NDArray[np.uint64]:
        """The words, as SEAL's objects are made of them."""
        return np.frombuffer(self.data, np.uint64)


class SecretKey(_Key):
    """A secret key; whoever has it reads every ciphertext made for it."""

    kind, polynomials = "secret", 1


class PublicKey(_Key):
    """A public key, of which only the authority has the other half."""

    kind, polynomials = "public", 2


@dataclass(frozen=True)
class HolderKey:
    """What the key holder keeps: the secret key and, for `authority`, the public one."""

    secret: SecretKey
    public: PublicKey | None = None

    @property
    def parameters(self) -> ParameterSet:
        """The parameter set that the key was made for."""
        return self.secret.parameters

    @property
    def key_holder(self) -> KeyHolder:
        """Who keeps the secret half: `clients` or `authority`."""
        return "clients" if self.public is None else "authority"

    @property
    def fingerprint(self) -> bytes:
        """Of what clients encrypt with: the secret key under `clients`, else the public one."""
        return self.secret.fingerprint if self.public is None else self.public.fingerprint

    @classmethod
    def generate(cls, bridge: SealBridge, key_holder: KeyHolder) -> HolderKey:
        """A fresh key from SEAL's generator, which the operating system seeds."""
        maker = bridge.api.KeyGenerator(bridge.context)
        secret = SecretKey(bridge.parameters, bridge.secret_words(maker.secret_key()).tobytes())
        if key_holder == "clients":
            return cls(secret)
        public = bridge.api.PublicKey()
        maker.create_public_key(public)
        return cls(secret, PublicKey(bridge.parameters, bridge.public_words(public).tobytes()))
