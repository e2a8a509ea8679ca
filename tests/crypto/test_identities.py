"""Identities, their cards and their files: nothing secret is readable by others, shown, or accepted
when changed.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.public_keys import check_signing_key
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.secret_files import read_secret, write_secret
from secure_fl.crypto.strict_json import canonical
from secure_fl.errors import SecureSumError

SECRET = b"a secret that must not be seen"


P = 2**255 - 19


ORDER_8 = {
    "agree": "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "sign": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
}
"""Points of order 8 on either curve."""


def test_files_are_private_whole_and_never_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "one"
    old = os.umask(0)
    try:
        write_secret(path, SECRET)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert read_secret(path) == SECRET
    with pytest.raises(SecureSumError, match="exists"):
        write_secret(path, b"other")
    assert read_secret(path) == SECRET
    write_secret(path, b"other", overwrite=True)
    assert read_secret(path) == b"other"
    assert [file.name for file in path.parent.iterdir()] == ["one"], "no temporary file is left"


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one"
    write_secret(path, SECRET)

    def no_space(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(SecureSumError, match="No space"):
        write_secret(path, b"other", overwrite=True)
    assert path.read_bytes() == SECRET
    assert [file.name for file in tmp_path.iterdir()] == ["one"]


def test_files_that_others_may_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one"
    write_secret(path, SECRET)
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(SecureSumError, match="others may read"):
            read_secret(path)
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    for wrong in (tmp_path / "link", tmp_path / "missing", tmp_path):
        with pytest.raises(SecureSumError):
            read_secret(wrong)


@pytest.mark.parametrize("phrase", [None, "long and good"])
def test_identities_survive_their_files(tmp_path: Path, phrase: str | None) -> None:
    identity, path = Identity.generate("clinic-7"), tmp_path / "id"
    identity.save(path, passphrase=phrase)
    again = Identity.load(path, passphrase=phrase)
    assert again.member == identity.member
    again.member.verify(b"x", b"data", identity.sign(b"x", b"data"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (b"ENCRYPTED PRIVATE KEY" in path.read_bytes()) == (phrase is not None)
    with pytest.raises(SecureSumError) as caught:
        Identity.load(path, passphrase="another")
    assert "another" not in str(caught.value)
    with pytest.raises(SecureSumError):
        identity.save(path)
    if phrase:
        with pytest.raises(SecureSumError):
            Identity.load(path)


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    identity, path = Identity.generate("clinic-7"), tmp_path / "id"
    identity.save(path)
    assert repr(identity) == "Identity(name='clinic-7', role='client')"
    pem = json.loads(path.read_bytes())["sign"].split("\n")[1]
    assert pem not in f"{identity!r}{identity}{identity.member}{identity.card()!r}"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SecureSumError) as caught:
        Identity.load(path)
    assert pem not in str(caught.value)
    assert caught.value.__cause__ is None


def test_signatures_are_bound_to_their_purpose() -> None:
    identity = Identity.generate("a")
    signature = identity.sign(b"roster", b"data")
    identity.member.verify(b"roster", b"data", signature)
    for purpose, data, mark in (
        (b"card", b"data", signature),
        (b"roster", b"datb", signature),
        (b"roster", b"data", b"short"),
    ):
        with pytest.raises(RefusedError) as caught:
            identity.member.verify(purpose, data, mark)
        assert caught.value.reason is Reason.WRONG_SIGNATURE


def test_cards() -> None:
    identity = Identity.generate("a")
    assert Member.from_card(identity.card()) == identity.member
    stolen = json.loads(identity.card())
    stolen["card"]["agree"] = Identity.generate("b").member.agree.hex()
    for bad, reason in (
        (canonical(stolen), Reason.WRONG_SIGNATURE),
        (identity.card() + b" ", Reason.MALFORMED),
        (b"{}", Reason.MALFORMED),
        (b"[" * 100_000, Reason.MALFORMED),
        (identity.card().replace(b'"client"', b'"king"'), Reason.MALFORMED),
    ):
        with pytest.raises(RefusedError) as caught:
            Member.from_card(bad)
        assert caught.value.reason is reason
    for name in ("", "a b", "../x", "x" * 65, "-a", "a\n"):
        with pytest.raises(SecureSumError):
            Identity.generate(name)
    with pytest.raises(SecureSumError):
        Identity.generate("a", "king")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["agree", "sign"])
def test_keys_of_small_order_are_on_no_card_and_no_roster(kind: str) -> None:
    """The identity point verifies one signature for every message; a low-order X25519 key shares
    one secret with everybody.
    """
    good = Identity.generate("ada").member
    small = [
        (1).to_bytes(32, "little"),
        (0).to_bytes(32, "little"),
        (P - 1).to_bytes(32, "little"),
        (P + 1).to_bytes(32, "little"),
    ]
    small += [b"\xff" * 32, (1 + 2**255).to_bytes(32, "little"), b"", bytes(31)]
    small += [bytes.fromhex(ORDER_8[kind])]
    for key in small:
        with pytest.raises(RefusedError) as caught:
            replace(good, **{kind: key})
        assert caught.value.reason is Reason.WRONG_KEY
        document = {**good.document(), kind: key.hex()}
        with pytest.raises(RefusedError):
            Member.from_document(document)
    assert replace(good, **{kind: getattr(Identity.generate("ben").member, kind)})


def test_keys_of_no_point_sign_nothing() -> None:
    refused = 0
    for number in range(2, 200):
        try:
            check_signing_key(number.to_bytes(32, "little"), "x")
        except RefusedError:
            refused += 1
    assert 60 < refused < 140, "half of all numbers are no y of the curve"


@given(st.binary(max_size=300))
def test_documents_never_crash_the_reader(data: bytes) -> None:
    for read in (Member.from_card, lambda raw: Roster.open(raw, WHO.member)):
        with pytest.raises(SecureSumError):
            read(data)


WHO = Identity.generate("boss", "coordinator")
