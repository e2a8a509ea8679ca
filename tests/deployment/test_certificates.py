"""The federation's own certificate authority."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secure_fl.crypto.refusals import RefusedError
from secure_fl.deployment.certificates import (
    CA_DAYS,
    END_DAYS,
    CertificateAuthority,
    check_certificate,
    check_request,
    days_left,
    digest_of,
    new_request,
    read_certificate,
)
from secure_fl.errors import ConfigError, SecureSumError


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.new(tmp_path_factory.mktemp("ca"), "trial")


def names(pem: bytes) -> x509.SubjectAlternativeName:
    found = read_certificate(pem).extensions
    return found.get_extension_for_class(x509.SubjectAlternativeName).value


def test_the_authority_issues_machines_and_no_authorities(authority: CertificateAuthority) -> None:
    limits = read_certificate(authority.pem).extensions.get_extension_for_class(
        x509.BasicConstraints
    )
    assert limits.critical
    assert (limits.value.ca, limits.value.path_length) == (True, 0)
    pem, key = authority.server(["fl.example.org", "192.0.2.7", "::1"])
    assert load_pem_private_key(key, None).public_key() == read_certificate(pem).public_key()
    assert names(pem).get_values_for_type(x509.DNSName) == ["fl.example.org"]
    assert [str(each) for each in names(pem).get_values_for_type(x509.IPAddress)] == [
        "192.0.2.7",
        "::1",
    ]
    site = authority.site("north", new_request("north")[0])
    for made, purpose in (
        (pem, ExtendedKeyUsageOID.SERVER_AUTH),
        (site, ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        extensions = read_certificate(made).extensions
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
        assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
    check_certificate(site, authority.pem, "north")


def test_certificates_end_when_they_are_said_to(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    request = new_request("north")[0]
    assert days_left(authority.pem) == CA_DAYS - 1
    assert days_left(authority.site("north", request)) == END_DAYS - 1
    assert days_left(authority.site("north", request, days=30)) == 29
    later = datetime.now(UTC) + timedelta(days=40)
    assert days_left(authority.site("north", request, days=30), later) < 0
    short = CertificateAuthority.new(tmp_path, "short", days=10)
    assert days_left(short.site("north", request)) == 9
    with pytest.raises(ConfigError, match="not a number of days"):
        authority.site("north", request, days=0)


def test_what_an_expired_authority_would_issue_is_refused(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    from secure_fl.deployment import certificates

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(days=CA_DAYS + 1)

    monkeypatch.setattr(certificates, "datetime", Later)
    with pytest.raises(ConfigError, match="has expired"):
        authority.server(["localhost"])


def test_the_key_is_private_and_encrypted_where_a_passphrase_is_given(tmp_path: Path) -> None:
    made = CertificateAuthority.new(tmp_path, "trial", passphrase="long enough")
    path = tmp_path / "authority.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in path.read_bytes()
    again = CertificateAuthority.open(tmp_path, passphrase="long enough")
    assert (again.pem, again.federation) == (made.pem, "trial")
    for wrong in (None, "other"):
        with pytest.raises(SecureSumError, match="passphrase"):
            CertificateAuthority.open(tmp_path, passphrase=wrong)
    with pytest.raises(SecureSumError, match="exists"):
        CertificateAuthority.new(tmp_path, "trial")
    CertificateAuthority.new(tmp_path / "other", "trial")
    (tmp_path / "authority.pem").write_bytes((tmp_path / "other" / "authority.pem").read_bytes())
    with pytest.raises(RefusedError, match="another key"):
        CertificateAuthority.open(tmp_path, passphrase="long enough")


def signed_request(name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_requests_are_checked(authority: CertificateAuthority) -> None:
    request = new_request("north")[0]
    check_request(request, "north")
    with pytest.raises(RefusedError, match="unknown-client"):
        authority.site("south", request)
    weak = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for key in (weak, ec.generate_private_key(ec.SECP256K1())):
        with pytest.raises(RefusedError, match="wrong-key"):
            authority.site("north", signed_request("north", key))
    other = x509.load_pem_x509_csr(new_request("north")[0])
    mixed = bytearray(x509.load_pem_x509_csr(request).public_bytes(Encoding.DER))
    theirs = other.public_bytes(Encoding.DER)
    mixed[-40:] = theirs[-40:]  # in the signature
    try:
        pem = x509.load_der_x509_csr(bytes(mixed)).public_bytes(Encoding.PEM)
    except ValueError:
        pem = b"not even a request"
    with pytest.raises(RefusedError, match=r"wrong-signature|malformed"):
        authority.site("north", pem)
    for data in (b"", b"-----BEGIN", request + b"\n", authority.pem):
        with pytest.raises(RefusedError, match="malformed"):
            authority.site("north", data)


def test_certificates_of_others_are_refused(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    pem = authority.site("north", new_request("north")[0])
    stranger = CertificateAuthority.new(tmp_path, "trial")
    with pytest.raises(RefusedError, match="not issued"):
        check_certificate(pem, stranger.pem, "north")
    with pytest.raises(RefusedError, match="somebody else"):
        check_certificate(pem, authority.pem, "south")
    assert digest_of(pem) != digest_of(stranger.pem)
    assert len(digest_of(pem)) == 64


@pytest.mark.parametrize("host", ["", "two words", "host:9443", "https://x", "a/b"])
def test_a_host_that_is_none_is_refused(authority: CertificateAuthority, host: str) -> None:
    with pytest.raises(ConfigError, match="neither a name nor an address"):
        authority.server([host])
