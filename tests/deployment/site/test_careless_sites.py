"""A site's folder in careless hands: files that are lost, commands that were cut short, examples
that were changed on the way.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from deployment.federations import commanded
from deployment.site.three_sites import Made3, make_three, site_settings, write_images
from deployment.test_cut_short import Cut, cut_after

from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.site.joining import join
from secure_fl.deployment.site.making import finish_install, make_site, renew
from secure_fl.deployment.site.parties import SiteParties
from secure_fl.errors import DeploymentError, FileError
from secure_fl.federation.parties.party_folder import HEAD
from secure_fl.files import remove

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def made(tmp_path: Path) -> Made3:
    return make_three(tmp_path)


@pytest.fixture
def folder(made: Made3) -> SiteFolder:
    return SiteFolder.open(made.folder("hospital-1").path)


def test_a_lost_card_of_the_coordinator_is_named(folder: SiteFolder) -> None:
    remove(folder.coordinator_card)
    for command in ("check", "run"):
        code, said = commanded("site", command, folder.path)
        assert (code, "coordinator.card: is gone" in said) == (2, True)


def test_no_key_card_is_written_without_a_party(folder: SiteFolder) -> None:
    before = folder.key_card.read_bytes()
    remove(folder.identity_file("hospital-1.person-02"))
    code, said = commanded("site", "renew", folder.path)
    assert (code, "hospital-1.person-02" in said) == (1, True)
    assert folder.key_card.read_bytes() == before
    assert not folder.next_key.exists()


def test_a_damaged_new_key_is_named(made: Made3, folder: SiteFolder) -> None:
    renew(folder)
    folder.next_key.write_bytes(b"no key")
    with pytest.raises(FileError, match="holds no private key"):
        join(folder, made.invitation("hospital-1").read_bytes())


def test_a_renewal_after_an_install_that_was_cut_loses_no_key(
    made: Made3, folder: SiteFolder
) -> None:
    """Killed when the new key was in place, and the new certificate not yet taken away."""
    renew(folder)
    path = made.coordinator.renew_site("hospital-1", folder.key_card.read_bytes())
    join(folder, path.read_bytes())
    folder.next_certificate.write_bytes(folder.tls.certificate.read_bytes())
    renew(folder)
    finish_install(folder)
    folder.tls.read()  # key and certificate belong together
    assert folder.next_key.exists()


def test_a_site_that_was_cut_short_is_none_or_whole(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data.npz", 0)
    for writes in range(20):
        path = tmp_path / str(writes)
        with pytest.MonkeyPatch.context() as patch:
            cut_after(patch, writes)
            try:
                make_site(path, site_settings("hospital-1", data))
            except Cut:
                assert not (path / "site.toml").exists()
                continue
        renew(SiteFolder.open(path))
        return


def test_a_client_goes_on_with_the_examples_that_it_began_with(folder: SiteFolder) -> None:
    _, roster, plan = folder.federation()
    path = Path(folder.settings.data.sources[0].path or "")
    arrays = dict(np.load(path))

    def life() -> None:
        SiteParties(SiteFolder.open(folder.path), roster, plan).close()

    life()
    np.savez(path, **arrays | {"x": arrays["x"][::-1].copy()})
    life()  # no plan was accepted yet
    head = folder.party(plan, "hospital-1.person-01") / HEAD
    head.touch()
    np.savez(path, **arrays)
    with pytest.raises(DeploymentError, match="other examples than it began with"):
        life()
    assert commanded("site", "run", folder.path)[0] == 1
