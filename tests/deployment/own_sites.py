"""Sites of a test's own: parties made of invitations, and a stream for each site, in one thread:
what is computed follows from a process' one generator of random numbers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deployment.made_sites import MadeSite
from federation.parties.site_processes import examples

from secure_fl.crypto.identities import Member
from secure_fl.crypto.roster import Roster
from secure_fl.deployment.invitation import Invitation
from secure_fl.engines.session.dialling import SessionClient
from secure_fl.engines.session.driver import Driver
from secure_fl.engines.session.link import Back, Event
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.federation.parties.client_store import KeptClient
from secure_fl.federation.parties.party import Message
from secure_fl.federation.parties.party_folder import PartyFolder
from secure_fl.federation.policy.policy import Policy
from secure_fl.federation.site import LocalSite

POLICY = Policy(
    privacy={"unit": ["example"], "epsilon": 80.0, "delta": 1e-5},
    sums={"cohort": 3, "key_holder": ["clients", "authority"]},
)


def tls_of(folder: Path, invitation: Invitation, key: bytes) -> TlsFiles:
    folder.mkdir(parents=True, exist_ok=True)
    files = TlsFiles(folder / "authority.pem", folder / "site.pem", folder / "site.key")
    files.authority.write_bytes(invitation.authority)
    files.certificate.write_bytes(invitation.certificate)
    files.key.write_bytes(key)
    files.key.chmod(0o600)
    return files


def clients_of(folder: Path, site: MadeSite, invitation: Invitation) -> list[KeptClient]:
    roster = Roster.open(invitation.roster, Member.from_card(invitation.coordinator))
    made = []
    for person in site.people:
        own = PartyFolder(folder / person.name, person, roster.federation)
        number = roster.names("client").index(person.name)
        local = LocalSite(own.path, person.name, roster, examples(number), POLICY)
        made.append(KeptClient(person, roster, local.site, own))
    return made


class Streams:
    """A link of several sites, each on its own stream."""

    def __init__(self, links: Mapping[str, SessionClient], whose: Mapping[str, str]) -> None:
        self.links, self._whose, self._up = dict(links), whose, False

    @property
    def peers(self) -> frozenset[str]:
        return frozenset(site for site, link in self.links.items() if link.peers)

    def send(self, sender: str, message: Message) -> None:
        self.links[self._whose[sender]].send(sender, message)

    def receive(self, seconds: float) -> Event | None:
        until = time.monotonic() + seconds
        while True:
            for link in self.links.values():
                event = link.receive(0.01)
                if event is not None and self._whole(event):
                    return event
            if time.monotonic() >= until:
                return None

    def _whole(self, event: Event) -> bool:
        """Whether it is to be told: at first parties say that they are there once, to all."""
        first = isinstance(event, Back) and not self._up
        self._up = self._up or len(self.peers) == len(self.links)
        return not first or self._up

    def close(self) -> None:
        for link in self.links.values():
            link.close()


class Sites:
    """Sites from their invitations to the end of the federation.

    Args:
        folder: has a folder for each.
        invited: sites and what the coordinator sent to them.
    """

    def __init__(self, folder: Path, invited: Sequence[tuple[MadeSite, bytes]]) -> None:
        self.tls, self.parties, links = dict[str, TlsFiles](), list[KeptClient](), {}
        whose = {name: site.name for site, _ in invited for name in site.card.parties}
        for site, data in invited:
            invitation = Invitation.open(data)
            tls = tls_of(folder / site.name / "tls", invitation, site.key)
            self.parties += clients_of(folder / site.name, site, invitation)
            server = f"{invitation.settings.server.host}:{invitation.settings.server.port}"
            names, called = site.card.parties, invitation.settings.name
            links[site.name] = SessionClient(server, tls, site.name, names, federation=called)
            self.tls[site.name] = tls
        self.link = Streams(links, whose)
        self.driver = Driver(self.parties, self.link)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.driver.run(until=self._stopped.is_set)

    @property
    def over(self) -> bool:
        return self.driver.over

    def join(self, seconds: float = 60.0) -> None:
        self._thread.join(seconds)

    def close(self) -> None:
        self._stopped.set()
        self.join(30)
        self.link.close()
        for party in self.parties:
            party.folder.close()
