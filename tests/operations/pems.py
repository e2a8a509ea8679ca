"""Certificates that are good for some days."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from secure_fl.engines.session.tls import TlsFiles


def tls_files(folder: Path, days: int) -> TlsFiles:
    """One end's files, of which nobody has the key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    files = TlsFiles(folder / "authority.pem", folder / "own.pem", folder / "own.key")
    for path in (files.authority, files.certificate):
        path.write_bytes(made.public_bytes(Encoding.PEM))
    return files
