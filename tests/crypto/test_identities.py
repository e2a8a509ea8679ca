"""Identities, rosters and their files: nothing secret is readable by others, shown, or accepted
when changed.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from he.helpers import people
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.public_keys import check_signing_key
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.roster_memory import RosterMemory
from secure_fl.crypto.sealing import SEALED_OVERHEAD, open_sealed, open_with, seal_to, seal_with
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


def test_passphrases(tmp_path: Path) -> None:
    path, plain = tmp_path / "one", tmp_path / "two"
    write_secret(path, SECRET, passphrase="open sesame")
    write_secret(plain, SECRET)
    assert SECRET not in path.read_bytes()
    assert read_secret(path, passphrase="open sesame") == SECRET
    for file, phrase in ((path, "wrong"), (path, None), (path, ""), (plain, "open sesame")):
        with pytest.raises(SecureSumError) as caught:
            read_secret(file, passphrase=phrase)
        assert "sesame" not in str(caught.value)
    with pytest.raises(SecureSumError):
        write_secret(tmp_path / "three", SECRET, passphrase="")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(SecureSumError, match="damaged"):
        read_secret(path, passphrase="open sesame")


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


def test_rosters_are_signed() -> None:
    crowd = people()
    data = crowd.roster.sign(crowd.coordinator)
    assert Roster.open(data, crowd.coordinator.member) == crowd.roster
    assert Roster.open(data, crowd.coordinator.member).digest == crowd.roster.digest
    changed = json.loads(data)
    changed["roster"]["rotation_rounds"] = 1000
    floats = json.loads(data)
    floats["roster"]["revision"] = True
    signed = crowd.coordinator.sign(b"roster", canonical(floats["roster"])).hex()
    for bad, signer, reason in (
        (data, crowd.server.member, Reason.WRONG_SIGNATURE),
        (canonical(changed), crowd.coordinator.member, Reason.WRONG_SIGNATURE),
        (data[:-1], crowd.coordinator.member, Reason.MALFORMED),
        (
            canonical({"roster": floats["roster"], "signature": signed}),
            crowd.coordinator.member,
            Reason.MALFORMED,
        ),
    ):
        with pytest.raises(RefusedError) as caught:
            Roster.open(bad, signer)
        assert caught.value.reason is reason


def test_every_fact_is_in_the_digest() -> None:
    crowd = people()
    base = crowd.roster
    others = [
        Roster("banks", base.members, base.rotation_rounds),
        Roster("hospitals", base.members[1:], base.rotation_rounds),
        Roster("hospitals", base.members, 5),
        Roster("hospitals", base.members, 4, 2),
        Roster("hospitals", base.members, 4, 1, ("00" * 32,)),
    ]
    assert len({roster.digest for roster in [base, *others]}) == 6
    assert Roster("hospitals", tuple(reversed(base.members)), 4).digest == base.digest
    assert base.names() == ("clinic-0", "clinic-1", "clinic-2")


def test_revocation_and_roll_back() -> None:
    crowd = people()
    later = crowd.roster.revoke("clinic-1")
    later.follows(crowd.roster.mark)
    assert "clinic-1" not in later.names()
    assert later.digest != crowd.roster.digest
    with pytest.raises(RefusedError) as caught:
        later.add([crowd.clients[1].card()])
    assert caught.value.reason is Reason.REVOKED_CLIENT
    again = later.add([Identity.generate("clinic-1").card()])
    again.follows(later.mark)
    assert again.revision == 3
    forgetful = Roster("hospitals", crowd.roster.members, 4, 9)
    for new, reason in (
        (crowd.roster, Reason.ROLLED_BACK),
        (forgetful, Reason.REVOKED_CLIENT),
        (Roster("banks", later.members, 4, 9, later.revoked), Reason.WRONG_FEDERATION),
    ):
        with pytest.raises(RefusedError) as caught:
            new.follows(later.mark)
        assert caught.value.reason is reason


def test_the_newest_roster_seen_is_remembered_beside_the_identity(tmp_path: Path) -> None:
    """An older roster brings nobody back, and no revision comes in two versions, whichever
    process looks.
    """
    crowd = people()
    boss, path = crowd.coordinator, tmp_path / "clinic-0.identity"
    crowd.clients[0].save(path)
    first, later = crowd.roster, crowd.roster.revoke("clinic-1")
    assert RosterMemory(path).open(first.sign(boss), boss.member) == first
    assert RosterMemory(path).open(first.sign(boss), boss.member) == first
    assert RosterMemory(path).open(later.sign(boss), boss.member) == later
    another = replace(first, members=first.members[:-1]).add([Identity.generate("clinic-9").card()])
    assert another.revision == later.revision
    again = replace(
        later, members=(*later.members, crowd.clients[1].member), revision=5, revoked=()
    )
    for roster, reason in (
        (first, Reason.ROLLED_BACK),
        (another, Reason.ROLLED_BACK),
        (again, Reason.REVOKED_CLIENT),
    ):
        with pytest.raises(RefusedError) as caught:
            RosterMemory(path).open(roster.sign(boss), boss.member)
        assert caught.value.reason is reason
    assert RosterMemory(path).accept(Roster("banks", later.members)).revision == 1, (
        "other federations count for themselves"
    )
    memory = RosterMemory(path).path
    assert stat.S_IMODE(memory.stat().st_mode) == 0o600
    for damage in (
        b"",
        b"{}",
        memory.read_bytes()[:-3],
        b'{"federations":{"hospitals":{}},"format":"secure-fl seen rosters 1"}',
    ):
        memory.write_bytes(damage)
        with pytest.raises(SecureSumError, match="damaged"):
            RosterMemory(path).accept(later)
    assert not (tmp_path / "ben.identity.rosters").exists()


def test_no_other_name_of_an_identity_has_a_memory_of_its_own(tmp_path: Path) -> None:
    """A slip, a link or a card in its place would find nothing remembered, and so take an older
    roster for the newest.
    """
    crowd = people()
    path, old = tmp_path / "ada.identity", crowd.roster
    crowd.clients[0].save(path, passphrase="long enough")
    RosterMemory(path).accept(old.revoke("clinic-1"))
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "ada.card").write_bytes(crowd.clients[0].card())
    (tmp_path / "folder").mkdir()
    for name in ("ada.identit", "link", "ada.card", "folder"):
        with pytest.raises(SecureSumError):
            RosterMemory(tmp_path / name).accept(old)
    assert [found.name for found in tmp_path.glob("*.rosters")] == ["ada.identity.rosters"]
    (tmp_path / "ada.identity.rosters").rename(tmp_path / "away")
    (tmp_path / "ada.identity.rosters").symlink_to("nowhere")
    with pytest.raises(SecureSumError, match="cannot be read"):
        RosterMemory(path).accept(old)


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


def test_rosters_that_contradict_themselves_are_refused() -> None:
    crowd = people()
    one, two = crowd.clients[0].member, crowd.clients[1].member
    for members in (
        (one, one),
        (one, Member("x", "client", one.sign, two.agree)),
        (one, Member("x", "client", two.sign, one.agree)),
    ):
        with pytest.raises(SecureSumError, match="share one"):
            Roster("hospitals", members)
    with pytest.raises(SecureSumError):
        Roster("hospitals", (one,), rotation_rounds=0)
    with pytest.raises(RefusedError):
        Member("x", "client", b"short", one.agree)


def test_sealed_boxes() -> None:
    reader, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    public = reader.public_key().public_bytes_raw()
    box = seal_to(public, SECRET, b"for this")
    assert len(box) == len(SECRET) + SEALED_OVERHEAD
    assert open_sealed(reader, box, b"for this") == SECRET
    assert seal_to(public, SECRET, b"for this") != box
    flipped = box[:-1] + bytes([box[-1] ^ 1])
    for key, data, context, reason in (
        (other, box, b"for this", Reason.WRONG_KEY),
        (reader, box, b"for that", Reason.WRONG_KEY),
        (reader, flipped, b"for this", Reason.WRONG_KEY),
        (reader, bytes(32) + box[32:], b"for this", Reason.WRONG_KEY),
        (reader, box[:47], b"for this", Reason.TRUNCATED),
    ):
        with pytest.raises(RefusedError) as caught:
            open_sealed(key, data, context)
        assert caught.value.reason is reason
        assert SECRET.decode() not in str(caught.value)
    for low_order in (bytes(32), bytes([1]) + bytes(31), b"short"):
        with pytest.raises(RefusedError):
            seal_to(low_order, SECRET, b"")


def test_shared_boxes() -> None:
    key = os.urandom(32)
    box = seal_with(key, SECRET, b"models 3")
    assert open_with(key, box, b"models 3") == SECRET
    assert len({seal_with(key, SECRET, b"")[:32] for _ in range(50)}) == 50, "no salt twice"
    assert len({seal_with(key, SECRET, b"")[32:] for _ in range(50)}) == 50, (
        "the salt makes another key: the nonce is always zero"
    )
    for wrong, data, context in (
        (os.urandom(32), box, b"models 3"),
        (key, box, b"models 4"),
        (key, box[:40], b"models 3"),
        (b"short", box, b"models 3"),
    ):
        with pytest.raises(RefusedError):
            open_with(wrong, data, context)


@given(st.binary(max_size=300))
def test_documents_never_crash_the_reader(data: bytes) -> None:
    for read in (Member.from_card, lambda raw: Roster.open(raw, WHO.member)):
        with pytest.raises(SecureSumError):
            read(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=8,
    )
)
def test_signed_nonsense_never_crashes_the_reader(value: object) -> None:
    """Even a coordinator that signs nonsense brings out a typed error only."""
    for document in (
        {"members": value},
        dict.fromkeys(
            ("format", "federation", "revision", "rotation_rounds", "members", "revoked"), value
        ),
    ):
        signature = WHO.sign(b"roster", canonical(document)).hex()
        with pytest.raises(SecureSumError):
            Roster.open(canonical({"roster": document, "signature": signature}), WHO.member)


WHO = Identity.generate("boss", "coordinator")
