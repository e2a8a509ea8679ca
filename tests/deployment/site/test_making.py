"""A site's folder, and what goes into it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from deployment.site.three_sites import PEOPLE, site_settings, write_images

from secure_fl.crypto.identities import Member
from secure_fl.deployment.key_card import KeyCard
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.site.making import make_site, renew
from secure_fl.deployment.site.settings import SiteSettings
from secure_fl.errors import ConfigError, DeploymentError, FileError, RunFolderError, SecureSumError
from secure_fl.federation.policy.policy import Policy

NAMES = tuple(f"hospital-1.{who}" for who in PEOPLE)


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    data = write_images(tmp_path / "data.npz", 0)
    return make_site(tmp_path / "site", site_settings("hospital-1", data)).folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_and_its_keys_are_the_owners_alone(folder: SiteFolder) -> None:
    assert all(
        mode(each) == 0o700 for each in [folder.path, *folder.path.iterdir()] if each.is_dir()
    )
    assert len(folder.secrets) == 4
    assert {mode(each) for each in folder.secrets} == {0o600}
    assert SiteFolder.open(folder.path).policy == Policy()
    assert SiteFolder.open(folder.path).settings == folder.settings


def test_the_key_card_names_every_client_and_tells_no_number_unasked(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data.npz", 0)
    for told, counts in ((False, {}), (True, dict.fromkeys(NAMES, 36))):
        path = tmp_path / f"site-{told}"
        made = make_site(path, site_settings("hospital-1", data), tell_examples=told)
        card = KeyCard.open(made.folder.key_card.read_bytes())
        assert (card.site, card.parties, card.shape, card.classes) == (
            "hospital-1",
            NAMES,
            (1, 8, 8),
            3,
        )
        assert card.examples == counts
        assert card.fingerprint == made.card.fingerprint
        known = [one.member for one in made.folder.identities.values()]
        assert [Member.from_card(one) for one in card.cards] == known
        assert card.node == made.folder.node_public.read_bytes()


def test_an_authority_has_no_data(tmp_path: Path) -> None:
    made = make_site(tmp_path / "holder", SiteSettings(name="holder", role="authority"))
    assert [member.role for member in made.card.members] == ["authority"]
    assert (made.card.shape, made.card.classes) == ((), 0)


def test_nothing_is_made_where_something_is_or_where_data_cannot_be_read(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data.npz", 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    with pytest.raises(RunFolderError, match="already holds"):
        make_site(tmp_path / "full", site_settings("hospital-1", data))
    bad = write_images(tmp_path / "names.npz", 0, ("Jane Doe", "person-02"))
    with pytest.raises(DeploymentError, match="no plain name"):
        make_site(tmp_path / "site", site_settings("hospital-1", bad))
    assert not (tmp_path / "site").exists()


def test_an_open_folder_and_an_open_key_are_refused(folder: SiteFolder) -> None:
    folder.path.chmod(0o750)
    with pytest.raises(FileError, match="others may enter"):
        SiteFolder.open(folder.path)
    folder.path.chmod(0o700)
    for secret in folder.secrets:
        secret.chmod(0o644)
        with pytest.raises(SecureSumError, match="others may read"):
            SiteFolder.open(folder.path)
        secret.chmod(0o600)
    SiteFolder.open(folder.path)


def test_a_folder_without_a_site_or_with_damaged_settings(
    folder: SiteFolder, tmp_path: Path
) -> None:
    with pytest.raises(RunFolderError, match="holds no site"):
        SiteFolder.open(tmp_path)
    folder.settings_file.write_text("name = 3\n")
    with pytest.raises(ConfigError, match="name"):
        SiteFolder.open(folder.path)


def test_renewal_keeps_the_key_in_use_until_a_certificate_comes(folder: SiteFolder) -> None:
    before = folder.tls.key.read_bytes()
    card = KeyCard.open(folder.key_card.read_bytes())
    newer = renew(folder)
    assert folder.tls.key.read_bytes() == before
    assert mode(folder.next_key) == 0o600
    assert newer.request != card.request
    assert (newer.cards, newer.node, newer.shape) == (card.cards, card.node, card.shape)
    assert KeyCard.open(folder.key_card.read_bytes()) == newer
