"""A site's folder, for its owner only.

    site.toml, policy.toml   settings, and what the site accepts; the owner edits them
    identities/              a private identity for each party, and the newest roster each has seen
    tls/                     key and certificate of this machine, and the federation's authority
    node/                    key of its Flower node
    key-card                 what is sent to the coordinator
    federation/              what the coordinator sent: the invitation, and its identity card
    pins.toml                digests of the plan, roster and app that may run here
    parties/PLAN/NAME/       what each party keeps, from which it goes on after a kill
    model/, result.json      what was trained, and how this site's clients fare with it
    status.json, site.log    public facts on how far it is

Guarantee: a folder that others may enter, or a key that others may read, is refused by name.
Assumes: the account that runs the site is the site's own.
Not covered: whoever administers this machine.
"""

from __future__ import annotations

import stat
from functools import cached_property
from pathlib import Path

from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.secret_files import read_secret
from secure_fl.deployment.invitation import MOST_INVITATION, Invitation
from secure_fl.deployment.site.pins import Pins
from secure_fl.deployment.site.settings import SiteSettings
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.errors import FileError, RunFolderError
from secure_fl.federation.plan import Plan
from secure_fl.federation.policy.policy import Policy
from secure_fl.files import is_file, listed, read_bytes

_IDENTITY = ".identity"


class SiteFolder:
    """Paths, and what is read from them.

    Args:
        path: of the folder; `open` checks that it is a site's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings_file, self.policy_file = path / "site.toml", path / "policy.toml"
        self.pins_file, self.key_card = path / "pins.toml", path / "key-card"
        self.identities_folder, self.parties = path / "identities", path / "parties"
        tls = path / "tls"
        self.tls = TlsFiles(tls / "authority.pem", tls / "site.pem", tls / "site.key")
        self.request, self.next_key = tls / "site.csr", tls / "next.key"
        self.next_certificate = tls / "next.pem"
        self.node_key, self.node_public = path / "node" / "node", path / "node" / "node.pub"
        self.invitation_file = path / "federation" / "invitation"
        self.coordinator_card = path / "federation" / "coordinator.card"
        self.status, self.result, self.model = (
            path / "status.json",
            path / "result.json",
            path / "model",
        )
        self.door = path / "door"

    @classmethod
    def open(cls, path: Path) -> SiteFolder:
        """An existing site's folder.

        Raises:
            RunFolderError: there is no site.
            FileError: others may enter the folder.
            SecureSumError: others may read a key.
            ConfigError: `site.toml` is damaged.
        """
        folder = cls(path)
        if not is_file(folder.settings_file):
            remedy = "name the folder that `secure-fl site init` made"
            raise RunFolderError("holds no site", "site folder", str(path), remedy)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            remedy = f"chmod 700 {path}; and ask who has been in it"
            raise FileError("others may enter this folder", "site folder", oct(mode), remedy)
        for secret in folder.secrets:
            read_secret(secret)
        _ = folder.settings
        return folder

    @cached_property
    def settings(self) -> SiteSettings:
        """What the site says of itself."""
        return SiteSettings.load(self.settings_file)

    @property
    def name(self) -> str:
        """The site's."""
        return self.settings.name

    @property
    def secrets(self) -> list[Path]:
        """Keys that are there, which must be their owner's alone."""
        keys = [self.tls.key, self.next_key, self.node_key]
        found = [each for each in listed(self.identities_folder) if each.suffix == _IDENTITY]
        return [*found, *(key for key in keys if is_file(key))]

    @cached_property
    def identities(self) -> dict[str, Identity]:
        """Of its parties, by name. Raises SecureSumError: one is damaged, or others may read it."""
        paths = [each for each in listed(self.identities_folder) if each.suffix == _IDENTITY]
        return {one.name: one for one in map(Identity.load, paths)}

    def identity_file(self, name: str) -> Path:
        """Of one party."""
        return self.identities_folder / f"{name}{_IDENTITY}"

    @property
    def policy(self) -> Policy:
        """What the site accepts, as the file says now. Raises ConfigError."""
        return Policy.load(self.policy_file)

    @property
    def joined(self) -> bool:
        """Whether an invitation was taken."""
        return is_file(self.invitation_file)

    @property
    def coordinator(self) -> Member | None:
        """Who was confirmed when the first invitation came."""
        if not is_file(self.coordinator_card):
            return None
        return Member.from_card(read_bytes(self.coordinator_card))

    @property
    def invitation(self) -> Invitation:
        """What was taken last, its signature checked again. Raises RunFolderError: none was, or it
        is not known by whom; RefusedError: it is damaged.
        """
        if not self.joined:
            remedy = "send the key card to the coordinator, and `secure-fl site join` what comes"
            raise RunFolderError("has not joined", "site folder", str(self.path), remedy)
        data, coordinator = read_bytes(self.invitation_file, most=MOST_INVITATION), self.coordinator
        if coordinator is None:
            remedy = "`secure-fl site join` the invitation again, with --coordinator"
            raise RunFolderError.of_file("is gone", self.coordinator_card, remedy)
        return Invitation.open(data, coordinator)

    @property
    def pins(self) -> Pins:
        """What may run here, as the file says now. Raises ConfigError."""
        return Pins.load(self.pins_file)

    def federation(self) -> tuple[Invitation, Roster, Plan]:
        """The invitation, and the roster and plan in it. Raises as `invitation`."""
        invitation, coordinator = self.invitation, self.coordinator
        assert coordinator is not None  # else no invitation was taken
        roster = Roster.open(invitation.roster, coordinator)
        return invitation, roster, Plan.open(invitation.plan, roster)

    def party(self, plan: Plan, name: str) -> Path:
        """Where a party keeps what it has of a plan."""
        return self.party_under(plan.digest, name)

    def party_under(self, digest: bytes, name: str) -> Path:
        """The same, by the plan's digest."""
        return self.parties / digest.hex()[:16] / name
