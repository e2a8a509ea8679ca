"""Keys of the homomorphic backends as values: made once, shown as fingerprints only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.he.parameters import KeyHolder, ParameterSet
from secure_fl.he.seal_bridge import SealBridge


@dataclass(frozen=True)
class SecretKey:
    """A secret key; whoever has it reads every ciphertext made for it.

    Args:
        parameters: the set it was made for.
        data: its words, little-endian; never shown.
    """

    parameters: ParameterSet
    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check(
            len(self.data), 8 * self.parameters.degree * len(self.parameters.primes), "secret key"
        )

    @property
    def fingerprint(self) -> bytes:
        """32 bytes that commit to the key and its parameters; safe to publish, since the key has
        thousands of bits of entropy.
        """
        return _fingerprint(self.parameters, b"secret", self.data)


@dataclass(frozen=True)
class PublicKey:
    """A public key, of which only the authority has the other half.

    Args:
        parameters: the set it was made for.
        data: its words, little-endian.
    """

    parameters: ParameterSet
    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check(
            len(self.data), 16 * self.parameters.degree * len(self.parameters.primes), "public key"
        )

    @property
    def fingerprint(self) -> bytes:
        """32 bytes that name the key and its parameters."""
        return _fingerprint(self.parameters, b"public", self.data)


@dataclass(frozen=True)
class HolderKey:
    """What the key holder keeps: the secret key and, for `authority`, the public key it
    gives out.
    """

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
        """Of what clients encrypt with: the secret key under `clients`, the public key
        under `authority`.
        """
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


def seal_secret(bridge: SealBridge, key: SecretKey) -> object:
    """SEAL's object for a secret key."""
    return bridge.secret_key(np.frombuffer(key.data, np.uint64))


def seal_public(bridge: SealBridge, key: PublicKey) -> object:
    """SEAL's object for a public key."""
    return bridge.public_key(np.frombuffer(key.data, np.uint64))


def _check(found: int, expected: int, name: str) -> None:
    if found != expected:
        problem, remedy = f"{expected} bytes are needed", "use the key of this parameter set"
        raise RefusedError(Reason.WRONG_KEY, problem, name, f"{found} bytes", remedy)


def _fingerprint(parameters: ParameterSet, kind: bytes, data: bytes) -> bytes:
    return hashlib.sha256(
        b"secure-fl key fingerprint 1|" + parameters.digest + b"|" + kind + b"|" + data
    ).digest()
