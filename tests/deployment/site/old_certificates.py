"""Certificates that have run out, or end soon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from secure_fl.deployment.coordinator import Coordinator
from secure_fl.deployment.site.folder import SiteFolder


def of_days(coordinator: Coordinator, folder: SiteFolder, begin: float, end: float) -> bytes:
    """A certificate of a site's key, good from and until so many days from now."""
    now = datetime.now(UTC)
    authority = x509.load_pem_x509_certificate(coordinator.authority.pem)
    signer = load_pem_private_key((coordinator.own / "ca" / "authority.key").read_bytes(), None)
    own = load_pem_private_key(folder.tls.key.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, folder.name)])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(authority.subject)
    built = built.public_key(own.public_key()).serial_number(x509.random_serial_number())
    built = built.not_valid_before(now + timedelta(days=begin))
    made = built.not_valid_after(now + timedelta(days=end)).sign(signer, hashes.SHA384())
    return made.public_bytes(Encoding.PEM)


def expired(coordinator: Coordinator, folder: SiteFolder) -> bytes:
    return of_days(coordinator, folder, -30, -2)
