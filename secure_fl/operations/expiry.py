"""How long certificates are still good for."""

from __future__ import annotations

import datetime
from pathlib import Path

from secure_fl.engines.session.tls import TlsFiles
from secure_fl.errors import FileError
from secure_fl.files import read_bytes

_LONGEST = 1 << 20


def days_left(path: Path, now: datetime.datetime | None = None) -> float:
    """Days until the first certificate of a file expires; less than none where one has. Raises
    FileError: it cannot be read, or holds no certificate.
    """
    from cryptography.x509 import load_pem_x509_certificates

    try:
        found = load_pem_x509_certificates(read_bytes(path, most=_LONGEST))
    except ValueError:
        raise FileError.of_file("holds no certificate", path, "name a PEM file") from None
    now = now or datetime.datetime.now(datetime.UTC)
    return min((each.not_valid_after_utc - now).total_seconds() for each in found) / 86400


def expiries(tls: TlsFiles | None) -> dict[str, float]:
    """Days left of one end's certificates, as far as they can be read: `own`, `authority`."""
    named = {} if tls is None else {"own": tls.certificate, "authority": tls.authority}
    found = dict[str, float]()
    for name, path in named.items():
        try:
            found[name] = days_left(path)
        except FileError:
            continue  # a file that is being replaced, or gone: no number is better than an old one
    return found
