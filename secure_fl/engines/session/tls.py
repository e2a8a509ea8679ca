"""Where one machine's certificate lies. Files are read anew for every connection, so that a renewed
certificate is used without a restart.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from secure_fl.crypto.secret_files import read_secret
from secure_fl.errors import FileError
from secure_fl.files import read_bytes

_LARGEST = 1 << 20


@dataclass(frozen=True)
class Pem:
    """What the files of one end hold, which belongs together."""

    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of one end.

    Attributes:
        authority: certificates of the federation's own authority, which both ends trust alone.
        certificate: of this end.
        key: its private key, readable by its owner alone.
    """

    authority: Path
    certificate: Path
    key: Path

    def read(self) -> Pem:
        """What they hold now.

        Raises:
            FileError: one is missing, holds something else, or key and certificate do not belong
                together, as while they are being replaced.
            SecureSumError: others may read the key.
        """
        authority = read_bytes(self.authority, most=_LARGEST)
        certificate, key = read_bytes(self.certificate, most=_LARGEST), read_secret(self.key)
        with _of(self.authority, "holds no certificate"):
            x509.load_pem_x509_certificates(authority)
        with _of(self.certificate, "holds no certificate"):
            own = x509.load_pem_x509_certificate(certificate).public_key()
        with _of(self.key, "holds no private key without a passphrase"):
            other = load_pem_private_key(key, None).public_key()
        form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        if own.public_bytes(*form) != other.public_bytes(*form):
            remedy = "put certificate and key back that were made together"
            raise FileError.of_file("is not the key of the certificate", self.key, remedy)
        return Pem(authority, certificate, key)


@dataclass(frozen=True)
class Peer:
    """Who a certificate was made out to.

    Attributes:
        name: its common name; empty where it has none, or several.
        digest: SHA-256 of its DER bytes, in hex.
        until: when it expires.
    """

    name: str
    digest: str
    until: datetime.datetime

    @classmethod
    def of(cls, pem: bytes) -> Peer:
        """Of a certificate. Raises ValueError: it is none."""
        one = x509.load_pem_x509_certificate(pem)
        names = one.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        name = str(names[0].value) if len(names) == 1 else ""
        digest = hashlib.sha256(one.public_bytes(Encoding.DER)).hexdigest()
        return cls(name, digest, one.not_valid_after_utc)

    @property
    def expired(self) -> bool:
        """Whether it is past its time, by this machine's clock."""
        return datetime.datetime.now(datetime.UTC) > self.until


class _of:  # noqa: N801 # reads as a word
    """Within it, a file that does not parse is named."""

    def __init__(self, path: Path, problem: str) -> None:
        self._path, self._problem = path, problem

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError | TypeError):
            remedy = "name the PEM file that was made for this machine"
            raise FileError.of_file(self._problem, self._path, remedy) from None
