"""A small authority for tests, and what it makes out to machines."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from secure_fl.engines.session.tls import Peer, TlsFiles
from secure_fl.files import write_atomically


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass
class Authority:
    """Makes certificates into a folder of its own.

    Attributes:
        folder: where files go.
    """

    folder: Path
    _key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        whole = x509.BasicConstraints(ca=True, path_length=0)
        made = self._builder(_named("authority"), self._key, days=1).add_extension(whole, True)
        write_atomically(self.folder / "ca.pem", self._signed(made))

    def files(self, name: str, *, hosts: tuple[str, ...] = (), days: float = 1.0) -> TlsFiles:
        """Files of a machine; made anew, and in place of those before, at every call.

        Args:
            name: of the machine.
            hosts: addresses that it may be dialled by: of a server.
            days: until it expires; negative where it has.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._builder(_named(name), key, days)
        usage = x509.ExtendedKeyUsageOID
        purpose = usage.SERVER_AUTH if hosts else usage.CLIENT_AUTH
        made = made.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if hosts:
            names = [_general(host) for host in hosts]
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        files = TlsFiles(*(self.folder / end for end in ("ca.pem", f"{name}.pem", f"{name}.key")))
        write_atomically(files.key, _pem(key))
        write_atomically(files.certificate, self._signed(made))
        return files

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, days: float
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(_named("authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    def _signed(self, made: x509.CertificateBuilder) -> bytes:
        return made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def digest(files: TlsFiles) -> str:
    """Of a machine's certificate as it is now."""
    return Peer.of(files.certificate.read_bytes()).digest
