"""Rosters: signed as a whole, in one order, never older than the newest one seen, and refused when
they contradict themselves.
"""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from he.helpers import people
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.roster_memory import RosterMemory
from secure_fl.crypto.strict_json import canonical
from secure_fl.errors import SecureSumError


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
