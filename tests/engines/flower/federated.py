"""A coordinator's folder, and three sites with their keys, of a small private federation."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployment.made_sites import SITES, small_config

from secure_fl.crypto.identities import Identity
from secure_fl.deployment.certificates import new_request
from secure_fl.deployment.coordinator import Coordinator
from secure_fl.deployment.invitation import Invitation
from secure_fl.deployment.key_card import KeyCard
from secure_fl.deployment.planning import Study
from secure_fl.deployment.server_folder import ServerFolder
from secure_fl.deployment.settings import Deployment
from secure_fl.engines.flower.control import new_node_key
from secure_fl.files import make_folder, write_atomically


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Federated:
    """The folders.

    Args:
        path: of all.
        transport: of the federation.
        tables: of the configuration, where they differ.
    """

    path: Path
    transport: str
    tables: dict[str, Any] = field(default_factory=dict)
    deadlines: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = Deployment(
            launch="flower",
            transport=self.transport,
            server={"port": free_port(), "bind": "127.0.0.1"},
            superlink={"port": free_port(), "bind": "127.0.0.1"},
            deadlines={"linger": 30.0, **self.deadlines},
        )
        made = Coordinator.new(self.path, settings, small_config(**self.tables), Study())
        cards = [self._site(name, numbers) for name, numbers in SITES.items()]
        made.publish(made.draft(cards))
        for name in SITES:
            invitation = Invitation.open(made.invitation_of(name).read_bytes())
            folder = self.site(name)
            write_atomically(folder / "authority.pem", invitation.authority)
            write_atomically(folder / "site.pem", invitation.certificate)
            write_atomically(folder / "invitation", made.invitation_of(name).read_bytes())

    @property
    def server(self) -> ServerFolder:
        return ServerFolder.open(self.path / "server")

    def site(self, name: str) -> Path:
        return self.path / "sites" / name

    def _site(self, name: str, numbers: tuple[int, ...]) -> bytes:
        folder = self.site(name)
        make_folder(folder)
        people = [Identity.generate(f"client-{number:04d}") for number in numbers]
        for one in people:
            one.save(folder / "identities" / one.name)
        request, key = new_request(name)
        write_atomically(folder / "site.key", key)
        private, public = new_node_key()
        write_atomically(folder / "node", private)
        write_atomically(folder / "node.pub", public)
        write_atomically(folder / "parties.json", json.dumps([one.name for one in people]))
        told = {one.name: 36 for one in people}
        card = KeyCard(
            name, tuple(one.card() for one in people), request, public, (1, 8, 8), 3, told
        )
        return card.encode(people)
