"""What a site believes of an invitation, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from deployment.made_sites import small_config
from deployment.site.three_sites import Made3, make_three

from secure_fl.config_file import dump_config
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.deployment.invitation import Invitation
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.site.joining import join
from secure_fl.deployment.site.making import finish_install, renew
from secure_fl.errors import DeploymentError, RunFolderError, SecureSumError

SITE = "hospital-1"


@pytest.fixture
def made(tmp_path: Path) -> Made3:
    return make_three(tmp_path, joined=False)


@pytest.fixture
def folder(made: Made3) -> SiteFolder:
    return SiteFolder.open(made.root / SITE)


def signed(made: Made3, **changed: object) -> bytes:
    """An invitation with something else in it, signed by the right coordinator."""
    invitation = Invitation.open(made.invitation(SITE).read_bytes())
    return replace(invitation, **changed).sign(made.coordinator.identity)  # type: ignore[arg-type]


def test_a_fingerprint_is_needed_once_and_pinned_from_then_on(
    made: Made3, folder: SiteFolder
) -> None:
    data = made.invitation(SITE).read_bytes()
    with pytest.raises(DeploymentError, match="nobody has confirmed"):
        join(folder, data)
    with pytest.raises(DeploymentError, match="is signed by"):
        join(folder, data, "0" * 64)
    assert not folder.joined
    with pytest.raises(RunFolderError, match="has not joined"):
        folder.federation()
    spaced = " ".join([made.fingerprint[:32].upper(), made.fingerprint[32:]])
    joined = join(folder, data, spaced)
    assert set(joined.changed) == {"plan", "roster"}
    assert folder.tls.certificate.read_bytes() == joined.invitation.certificate
    assert folder.coordinator == made.coordinator.identity.member
    assert not join(folder, data).changed


def test_another_coordinators_invitation_is_refused_later(made: Made3, folder: SiteFolder) -> None:
    made.join(SITE)
    other = Identity.generate("coordinator", "coordinator")
    invitation = Invitation.open(made.invitation(SITE).read_bytes())
    roster = Roster.open(invitation.roster, made.coordinator.identity.member)
    members = [each for each in roster.members if each.role != "coordinator"]
    forged = replace(roster, members=(*members, other.member))
    plan = replace(folder.federation()[2], roster=forged.digest)
    parts = {"roster": forged.sign(other), "plan": plan.sign(other, forged)}
    data = replace(invitation, coordinator=other.card(), **parts).sign(other)
    with pytest.raises(RefusedError, match="wrong-key"):
        join(folder, data)


def test_another_sites_invitation_is_refused(made: Made3, folder: SiteFolder) -> None:
    with pytest.raises(DeploymentError, match="for another site"):
        join(folder, made.invitation("hospital-2").read_bytes(), made.fingerprint)


def test_damaged_bytes_are_refused(made: Made3, folder: SiteFolder) -> None:
    data = bytearray(made.invitation(SITE).read_bytes())
    data[len(data) // 2] ^= 1
    with pytest.raises((RefusedError, SecureSumError)):
        join(folder, bytes(data), made.fingerprint)
    with pytest.raises(RefusedError, match="malformed"):
        join(folder, b"nothing", made.fingerprint)
    assert not folder.joined


def test_a_certificate_of_another_key_is_refused(made: Made3, folder: SiteFolder) -> None:
    data = made.invitation(SITE).read_bytes()
    folder.tls.key.write_bytes(made.folder("hospital-2").tls.key.read_bytes())
    with pytest.raises(DeploymentError, match="of another key"):
        join(folder, data, made.fingerprint)
    assert not folder.joined


def test_an_expired_certificate_is_refused(made: Made3, folder: SiteFolder) -> None:
    from deployment.site.old_certificates import expired

    data = signed(made, certificate=expired(made.coordinator, folder))
    with pytest.raises(DeploymentError, match="has run out"):
        join(folder, data, made.fingerprint)


def test_own_cards_must_be_on_the_roster_unchanged(made: Made3, folder: SiteFolder) -> None:
    name = f"{SITE}.person-01"
    folder.identity_file(name).unlink()
    Identity.generate(name).save(folder.identity_file(name))
    with pytest.raises(DeploymentError, match="not this site's key"):
        join(folder, made.invitation(SITE).read_bytes(), made.fingerprint)
    folder = SiteFolder(folder.path)
    folder.identity_file(name).unlink()
    with pytest.raises(DeploymentError, match="other parties"):
        join(folder, made.invitation(SITE).read_bytes(), made.fingerprint)


def test_an_older_roster_is_never_taken(made: Made3, folder: SiteFolder) -> None:
    old = made.invitation(SITE).read_bytes()
    made.sign(again=True)
    join(folder, made.invitation(SITE).read_bytes(), made.fingerprint)
    with pytest.raises(RefusedError, match="rolled-back"):
        join(folder, old, replace=True)


def test_another_plan_than_the_pinned_needs_a_word(made: Made3, folder: SiteFolder) -> None:
    made.join(SITE)
    before = folder.pins
    config = small_config(pools={"rounds": 2, "count": 2, "warmup_rounds": 0})
    (made.coordinator.own / "config.toml").write_text(dump_config(config))
    made.sign()
    data = made.invitation(SITE).read_bytes()
    with pytest.raises(DeploymentError, match=r"another plan.*pools\.rounds: 1 before, 2 now"):
        join(folder, data)
    assert folder.pins == before
    joined = join(folder, data, replace=True)
    assert joined.changed == ("plan",)
    changed, anew = joined.differences
    assert (changed, "begins anew" in anew) == ("pools.rounds: 1 before, 2 now", True)
    assert join(folder, data).differences == ()
    invitation, roster, plan = folder.federation()
    assert folder.pins.objection(plan, roster) is None
    assert before.objection(plan, roster) is not None
    assert invitation.site == SITE


def test_a_renewed_certificate_is_installed_and_an_install_is_finished(
    made: Made3, folder: SiteFolder
) -> None:
    made.join(SITE)
    old = folder.tls.read()
    renew(folder)
    new_key = folder.next_key.read_bytes()
    assert not join(folder, made.invitation(SITE).read_bytes()).changed  # the old one, once more
    assert folder.tls.read() == old
    made.coordinator.renew_site(SITE, folder.key_card.read_bytes())
    assert not join(folder, made.invitation(SITE).read_bytes()).changed
    assert folder.tls.read().key == new_key
    assert folder.tls.read().certificate != old.certificate
    assert not folder.next_key.exists()
    # a kill between the two files
    folder.next_key.write_bytes(new_key)
    folder.next_key.chmod(0o600)
    folder.next_certificate.write_bytes(folder.tls.certificate.read_bytes())
    folder.tls.certificate.write_bytes(old.certificate)
    finish_install(folder)
    assert folder.tls.read().key == new_key
    assert not folder.next_certificate.exists()
