"""Who is who: an Ed25519 key that signs and an X25519 key that secrets are sealed to.

Guarantee: a card proves that its two keys belong together and to whoever holds the signing key.
Assumes: the roster's signer checked, outside this software, that the card is the person's
or machine's.
Not covered: theft of the key file (revoke it), the computer it lies on.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization import load_pem_private_key as _load_pem

from secure_fl.crypto.public_keys import check_agreement_key, check_signing_key
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.sealing import open_sealed
from secure_fl.crypto.secret_files import read_secret, write_secret
from secure_fl.crypto.strict_json import canonical, fields, from_hex, malformed, parse_object
from secure_fl.errors import SecureSumError

ROLES = ("client", "server", "authority", "coordinator")
LONGEST_NAME = 64
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}")
_PRIVATE = "secure-fl private identity 1"
_CARD = {"format": str, "name": str, "role": str, "sign": str, "agree": str}


@dataclass(frozen=True)
class Member:
    """The public half of an identity.

    Args:
        name: up to 64 letters, digits, dots, dashes and underscores.
        role: `client`, `server`, `authority` (holds the key) or `coordinator` (signs the roster).
        sign: Ed25519 public key, 32 bytes.
        agree: X25519 public key, 32 bytes.

    Raises:
        SecureSumError: another form of name, or no such role.
        RefusedError: `wrong-key` for keys of low order, of another length or in another spelling
            than their one.
    """

    name: str
    role: str
    sign: bytes
    agree: bytes

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if self.role not in ROLES:
            raise SecureSumError("unknown role", "role", self.role, f"one of {ROLES}")
        check_signing_key(self.sign, self.name)
        check_agreement_key(self.agree, self.name)

    @property
    def fingerprint(self) -> str:
        """64 hex digits that name both keys; what people compare, and what is revoked."""
        return hashlib.sha256(b"secure-fl identity 1|" + self.sign + self.agree).hexdigest()

    def document(self) -> dict[str, Any]:
        """The public half as a JSON object: what cards and rosters hold of a member."""
        return {
            "format": "secure-fl identity 1",
            "name": self.name,
            "role": self.role,
            "sign": self.sign.hex(),
            "agree": self.agree.hex(),
        }

    @classmethod
    def from_document(cls, value: Any) -> Member:
        """From JSON. Raises RefusedError: `malformed` or `wrong-key`."""
        found = fields(value, "identity card", _CARD)
        known = found["format"] == "secure-fl identity 1" and found["role"] in ROLES
        if not known or not _NAME.fullmatch(found["name"]):
            raise malformed("identity card", "unknown format, role or form of name")
        sign, agree = (from_hex(found[key], key, 32) for key in ("sign", "agree"))
        return cls(found["name"], found["role"], sign, agree)

    @classmethod
    def from_card(cls, data: bytes) -> Member:
        """From a signed card. Raises RefusedError: `malformed` or `wrong-signature`."""
        name, types = "identity card", {"card": dict, "signature": str}
        found = fields(parse_object(data, name), name, types)
        member = cls.from_document(found["card"])
        signature = from_hex(found["signature"], "signature", 64)
        member.verify(b"card", canonical(found["card"]), signature)
        return member

    def verify(self, purpose: bytes, data: bytes, signature: bytes) -> None:
        """Check a signature made by `Identity.sign`. Raises RefusedError: `wrong-signature`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.sign).verify(signature, _signed(purpose, data))
        except (InvalidSignature, ValueError):
            remedy = "sign with the key that the roster names"
            raise RefusedError(
                Reason.WRONG_SIGNATURE, "the signature does not fit", "signer", self.name, remedy
            ) from None


@dataclass(frozen=True)
class Identity:
    """The private half; shown by name only."""

    name: str
    role: str
    _sign: Ed25519PrivateKey = field(repr=False)
    _agree: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, name: str, role: str = "client") -> Identity:
        """Fresh keys. Raises SecureSumError: a name or role that is not allowed."""
        identity = cls(name, role, Ed25519PrivateKey.generate(), X25519PrivateKey.generate())
        _ = identity.member
        return identity

    @property
    def member(self) -> Member:
        """The public half of these keys, for a card or a roster."""
        keys = (self._sign.public_key(), self._agree.public_key())
        return Member(self.name, self.role, *(key.public_bytes_raw() for key in keys))

    def card(self) -> bytes:
        """The public half, signed by itself, for the roster's signer."""
        document = self.member.document()
        return canonical(
            {"card": document, "signature": self.sign(b"card", canonical(document)).hex()}
        )

    def sign(self, purpose: bytes, data: bytes) -> bytes:
        """64 bytes over data and purpose, so that one kind of document never passes as another."""
        return self._sign.sign(_signed(purpose, data))

    def open_sealed(self, box: bytes, context: bytes) -> bytes:
        """Open a box that was sealed to this identity; see `sealing.open_sealed`."""
        return open_sealed(self._agree, box, context)

    def save(self, path: Path, *, passphrase: str | None = None, overwrite: bool = False) -> None:
        """Write both keys as PKCS8, encrypted by the passphrase when one is given, in one file of
        mode 0600.

        Raises:
            SecureSumError: the file exists, cannot be written, or the passphrase is empty.
        """
        if passphrase == "":
            remedy = "give one, or none at all for an unencrypted file"
            raise SecureSumError("empty", "passphrase", "", remedy)
        encryption: KeySerializationEncryption = (
            NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
        )
        document = {"format": _PRIVATE, "name": self.name, "role": self.role}
        for purpose, key in (("sign", self._sign), ("agree", self._agree)):
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
            document[purpose] = pem.decode("ascii")
        write_secret(path, canonical(document), overwrite=overwrite)

    @classmethod
    def load(cls, path: Path, *, passphrase: str | None = None) -> Identity:
        """Read what `save` wrote. Raises SecureSumError: missing, readable by others, damaged, or
        the passphrase is missing or wrong.
        """
        found = read_identity(path)
        secret = None if passphrase is None else passphrase.encode()
        try:
            sign, agree = (
                _load_pem(found[key].encode("ascii"), secret) for key in ("sign", "agree")
            )
        except (ValueError, TypeError):
            problem = "wrong passphrase or damaged file"
            remedy = "give the passphrase exactly where the file has one"
            raise SecureSumError(problem, "identity file", str(path), remedy) from None
        if not isinstance(sign, Ed25519PrivateKey) or not isinstance(agree, X25519PrivateKey):
            raise malformed("identity file", "not an identity of this software")
        return cls(check_name(found["name"], "name"), found["role"], sign, agree)


def read_identity(path: Path) -> dict[str, Any]:
    """What a private identity's file says; its keys may be encrypted, and are not tried. Raises
    SecureSumError: missing, a link, readable by others, or something else than a private identity.
    """
    found = fields(parse_object(read_secret(path), "identity file"), "identity file", _CARD)
    if found["format"] != _PRIVATE or found["role"] not in ROLES:
        raise malformed("identity file", "not an identity of this software")
    return found


def check_name(name: str, what: str) -> str:
    """A name that is safe in files, headers and logs. Raises SecureSumError: another form."""
    if not _NAME.fullmatch(name):
        remedy = "up to 64 letters, digits, dots, dashes, underscores"
        raise SecureSumError("not a plain name", what, name, remedy)
    return name


def _signed(purpose: bytes, data: bytes) -> bytes:
    return b"secure-fl signature 1|" + purpose + b"|" + hashlib.sha256(data).digest()
