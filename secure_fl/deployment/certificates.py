"""A federation's own small certificate authority, for mutual TLS between its machines.

    authority.pem   its certificate, which every machine trusts for this federation and nothing else
    authority.key   its private key, which stays with the coordinator

**Guarantee**: whoever holds a certificate that this authority issued to a site had the private key
that belongs to it, and the coordinator said that it is that site's. A certificate of the server is
good for servers alone, one of a site for clients alone; neither issues others.

**Assumes**: ECDSA on P-256 and P-384; the coordinator knows whose requests it signs (key cards are
compared outside of this software); clocks are right to a day.

**Not covered**: theft of a machine's key before its certificate ends (`federate revoke`: the server
asks its list of seats too); the messages, which parties sign and seal themselves.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secure_fl.crypto.identities import check_name
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.secret_files import read_secret, write_secret
from secure_fl.crypto.strict_json import malformed
from secure_fl.errors import ConfigError, FileError, SecureSumError
from secure_fl.files import PUBLIC, read_bytes, write_atomically

CA_DAYS, END_DAYS = 1096, 397
"""How long certificates are good for, unless something else is asked."""
MOST_PEM = 1 << 16
_SKEW = timedelta(days=1)
"""Certificates are good from a day before, for clocks that are slow."""
_AUTHORITY = "certificate authority"


@dataclass(frozen=True)
class CertificateAuthority:
    """Issues certificates of one federation; made by `new` or `open`.

    Attributes:
        federation: its name, in every certificate.
        pem: its certificate.
    """

    federation: str
    pem: bytes
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def new(
        cls, folder: Path, federation: str, *, passphrase: str | None = None, days: int = CA_DAYS
    ) -> CertificateAuthority:
        """A new authority, in files of this folder.

        Args:
            folder: private to the coordinator.
            federation: its name.
            passphrase: encrypts the key's file.
            days: how long it is good for; nothing that it issues is for longer.

        Raises:
            SecureSumError: there is one already, or the passphrase is empty.
            ConfigError: `days` is no number of days.
            FileError: the folder cannot be written.
        """
        key = ec.generate_private_key(ec.SECP384R1())
        name, until = _name(federation, _AUTHORITY), _until(days)
        built = _builder(name, name, key.public_key(), until)
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        built = built.add_extension(_usage(issues=True), critical=True)
        made = built.sign(key, hashes.SHA384())
        write_secret(folder / "authority.key", _private(key, passphrase))
        pem = made.public_bytes(Encoding.PEM)
        write_atomically(folder / "authority.pem", pem, mode=PUBLIC)
        return cls(federation, pem, key)

    @classmethod
    def open(cls, folder: Path, *, passphrase: str | None = None) -> CertificateAuthority:
        """The authority in this folder.

        Raises:
            SecureSumError: no such key, others may read it, or the passphrase is wrong or missing.
            RefusedError: `malformed`: the certificate is none; `wrong-key`: it is of another key.
            FileError: the certificate cannot be read.
        """
        path = folder / "authority.key"
        secret = None if passphrase is None else passphrase.encode()
        try:
            key = load_pem_private_key(read_secret(path), secret)
        except (ValueError, TypeError):
            problem = "wrong passphrase or damaged file"
            remedy = "give the passphrase exactly where the file has one"
            raise SecureSumError(problem, "authority.key", str(path), remedy) from None
        pem = read_bytes(folder / "authority.pem", most=MOST_PEM)
        found = read_certificate(pem)
        if (
            not isinstance(key, ec.EllipticCurvePrivateKey)
            or found.public_key() != key.public_key()
        ):
            remedy = "put back authority.pem and authority.key as they were made together"
            problem = "the certificate is of another key"
            raise RefusedError(Reason.WRONG_KEY, problem, "authority.pem", str(folder), remedy)
        return cls(_attribute(found.subject, NameOID.ORGANIZATION_NAME), pem, key)

    def server(self, hosts: Sequence[str], *, days: int = END_DAYS) -> tuple[bytes, bytes]:
        """A server's certificate and its new private key, both PEM.

        Args:
            hosts: names and addresses under which sites reach it.
            days: how long it is good for, at most as long as the authority itself.

        Raises:
            ConfigError: a host that is neither, or `days` is no number of days.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_host(host) for host in dict.fromkeys(hosts)])
        purpose = ExtendedKeyUsageOID.SERVER_AUTH
        pem = self._issued("server", key.public_key(), purpose, days, names)
        return pem, _private(key, None)

    def site(self, name: str, request: bytes, *, days: int = END_DAYS) -> bytes:
        """A site's certificate, PEM, for the key that its request is of.

        Args:
            name: the site's, which the request must be made out to.
            request: PEM, as of `new_request`.
            days: how long it is good for, at most as long as the authority itself.

        Raises:
            RefusedError: as of `check_request`.
            ConfigError: `days` is no number of days.
        """
        key = check_request(request, name)
        return self._issued(name, key, ExtendedKeyUsageOID.CLIENT_AUTH, days)

    def _issued(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        purpose: x509.ObjectIdentifier,
        days: int,
        hosts: x509.SubjectAlternativeName | None = None,
    ) -> bytes:
        own = read_certificate(self.pem)
        until = min(_until(days), own.not_valid_after_utc)
        if own.not_valid_after_utc <= datetime.now(UTC):
            remedy = "begin a new federation folder: `secure-fl federate init`"
            raise ConfigError("has expired", "authority.pem", str(own.not_valid_after_utc), remedy)
        built = _builder(_name(self.federation, name), own.subject, key, until)
        built = built.add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        built = built.add_extension(_usage(issues=False), critical=True)
        built = built.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        built = built.add_extension(issuer, critical=False)
        if hosts is not None:
            built = built.add_extension(hosts, critical=False)
        return built.sign(self._key, hashes.SHA384()).public_bytes(Encoding.PEM)


def check_hosts(hosts: Sequence[str]) -> None:
    """Refuse what is neither a name nor an address. Raises ConfigError."""
    for host in hosts:
        _host(host)


def good_for(path: Path, hosts: Sequence[str]) -> bool:
    """Whether there is a server's certificate that is made out to all of these names and addresses.
    Raises ConfigError: a host is none.
    """
    wanted = {_host(host) for host in hosts}
    try:
        found = read_certificate(read_bytes(path, most=MOST_PEM)).extensions
        return wanted <= set(found.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (FileError, RefusedError, x509.ExtensionNotFound):
        return False


def new_request(name: str) -> tuple[bytes, bytes]:
    """A site's request for a certificate, and its new private key, which stays there; both PEM.
    Raises SecureSumError: not a plain name.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, check_name(name, "site"))])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), _private(key, None)


def check_request(request: bytes, name: str) -> ec.EllipticCurvePublicKey:
    """The public key of a request for a certificate.

    Raises:
        RefusedError: `malformed`: no request, or more than one says; `wrong-signature`: not signed
            by its own key; `wrong-key`: no key on P-256 or P-384; `unknown-client`: made out to
            somebody else.
    """
    try:
        if len(request) > MOST_PEM:
            raise ValueError
        found = x509.load_pem_x509_csr(request)
        key, signed = found.public_key(), found.is_signature_valid
        same = found.public_bytes(Encoding.PEM) == request
    except Exception:  # whatever a parser of foreign bytes raises
        raise malformed("certificate request", "not a PEM request in its one spelling") from None
    if not same:
        raise malformed("certificate request", "not a PEM request in its one spelling")
    remedy = "make a new one: `secure-fl site` does"
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        problem = "its key is not on P-256 or P-384"
        raise RefusedError(Reason.WRONG_KEY, problem, "certificate request", name, remedy)
    if not signed:
        problem = "not signed by its own key"
        raise RefusedError(Reason.WRONG_SIGNATURE, problem, "certificate request", name, remedy)
    if _attribute(found.subject, NameOID.COMMON_NAME) != name:
        problem = "made out to somebody else"
        raise RefusedError(Reason.UNKNOWN_CLIENT, problem, "certificate request", name, remedy)
    return key


def check_certificate(pem: bytes, authority: bytes, name: str) -> None:
    """Check that an authority issued this certificate to that name. Raises RefusedError:
    `malformed`, `wrong-signature` or `unknown-client`.
    """
    found = read_certificate(pem)
    remedy = "ask the coordinator for a certificate"
    try:
        found.verify_directly_issued_by(read_certificate(authority))
    except (InvalidSignature, ValueError, TypeError):
        problem = "not issued by this federation's authority"
        raise RefusedError(Reason.WRONG_SIGNATURE, problem, "certificate", name, remedy) from None
    if _attribute(found.subject, NameOID.COMMON_NAME) != name:
        problem = "made out to somebody else"
        raise RefusedError(Reason.UNKNOWN_CLIENT, problem, "certificate", name, remedy)


def read_certificate(pem: bytes) -> x509.Certificate:
    """One certificate. Raises RefusedError: `malformed`: something else, or more than one."""
    try:
        found = x509.load_pem_x509_certificate(pem if len(pem) <= MOST_PEM else b"")
        found.public_key()  # a damaged one is found when it is asked for
        same = found.public_bytes(Encoding.PEM) == pem
    except Exception:  # whatever a parser of foreign bytes raises
        same = False
    if not same:
        raise malformed("certificate", "not one PEM certificate in its one spelling")
    return found


def digest_of(pem: bytes) -> str:
    """SHA-256 of a certificate in DER, 64 hex digits: what seats name it by. Raises RefusedError:
    `malformed`.
    """
    return hashlib.sha256(read_certificate(pem).public_bytes(Encoding.DER)).hexdigest()


def ends(pem: bytes) -> datetime:
    """When a certificate ends, in UTC. Raises RefusedError: `malformed`."""
    return read_certificate(pem).not_valid_after_utc


def days_left(pem: bytes, now: datetime | None = None) -> int:
    """Whole days until a certificate ends; negative once it has. Raises RefusedError: `malformed`.

    Args:
        now: in UTC; by this machine's clock where none is given.
    """
    return (ends(pem) - (now or datetime.now(UTC))).days


_CURVES = ("secp256r1", "secp384r1")


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - _SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issues,
        key_cert_sign=issues,
        crl_sign=issues,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(federation: str, name: str) -> x509.Name:
    whose = x509.NameAttribute(NameOID.ORGANIZATION_NAME, federation)
    return x509.Name([whose, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _attribute(name: x509.Name, kind: x509.ObjectIdentifier) -> str:
    """The one value of that kind; empty where there is none, or several."""
    found = [each.value for each in name.get_attributes_for_oid(kind)]
    return found[0] if len(found) == 1 and isinstance(found[0], str) else ""


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        if not host or not all(letter.isalnum() or letter in "-." for letter in host):
            raise ValueError
        return x509.DNSName(host)
    except ValueError:
        remedy = "a name such as fl.example.org, or an address such as 192.0.2.7, without a port"
        raise ConfigError("neither a name nor an address", "host", host, remedy) from None


def _until(days: int) -> datetime:
    if not 0 < days < 36500:
        remedy = f"such as {END_DAYS}"
        raise ConfigError("not a number of days", "days", days, remedy)
    return datetime.now(UTC) + timedelta(days=days)


def _private(key: ec.EllipticCurvePrivateKey, passphrase: str | None) -> bytes:
    if passphrase == "":
        remedy = "give one, or none at all for an unencrypted file"
        raise SecureSumError("empty", "passphrase", "", remedy)
    how: KeySerializationEncryption = (
        NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
