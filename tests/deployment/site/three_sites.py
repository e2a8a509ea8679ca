"""Three sites of two clients each, made in a test as people make them: coordinator, key cards,
invitations.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from deployment.made_sites import small_config
from helpers import make_images

from secure_fl.config import FederationConfig, SourceConfig
from secure_fl.deployment.coordinator import Coordinator
from secure_fl.deployment.planning import Study
from secure_fl.deployment.server_folder import ServerFolder
from secure_fl.deployment.serving import largest_message, serve
from secure_fl.deployment.settings import Deployment
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.site.joining import join
from secure_fl.deployment.site.making import Made, make_site
from secure_fl.deployment.site.settings import SiteSettings
from secure_fl.engines.session.link import Watch
from secure_fl.engines.session.serving import SessionServer

PEOPLE = ("person-01", "person-02")
SITES = {f"hospital-{number}": PEOPLE for number in (1, 2, 3)}
POLICY = """
[privacy]
epsilon = 80.0
[sums]
cohort = 3
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def write_images(path: Path, first: int, people: Sequence[str] = PEOPLE, size: int = 36) -> Path:
    """Examples of a site's clients in one file of arrays."""
    parts = [make_images(size, seed=first + number) for number in range(len(people))]
    x, y = (np.concatenate([getattr(part, name).numpy() for part in parts]) for name in "xy")
    np.savez(path, x=x, y=y, client=np.repeat(np.asarray(people), size))
    return path


def site_settings(name: str, data: Path, **more: Any) -> SiteSettings:
    source = SourceConfig(name="npz", path=str(data))
    return SiteSettings(**{"name": name, "data": {"sources": [source.model_dump()]}, **more})


@dataclass
class Made3:
    """A coordinator, and sites that have joined."""

    root: Path
    coordinator: Coordinator
    sites: dict[str, Made] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        return self.coordinator.identity.member.fingerprint

    def folder(self, name: str) -> SiteFolder:
        return SiteFolder(self.root / name)

    def invitation(self, name: str) -> Path:
        return self.coordinator.invitation_of(name)

    def sign(self, **more: Any) -> None:
        cards = [made.folder.key_card.read_bytes() for made in self.sites.values()]
        self.coordinator.publish(self.coordinator.draft(cards, **more))

    def join(self, name: str) -> None:
        join(self.folder(name), self.invitation(name).read_bytes(), self.fingerprint)


def make_three(
    root: Path,
    config: FederationConfig | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    joined: bool = True,
) -> Made3:
    config = config or small_config()
    port = {"server": {"host": "localhost", "port": free_port(), "bind": "127.0.0.1"}}
    waits = {"deadlines": {"join": 300, "answer": 120, "train": 300, "linger": 10}}
    found = Deployment(**{"launch": "direct", **port, **waits, **(settings or {})})
    made = Made3(root, Coordinator.new(root / "coordinator", found, config, Study()))
    for number, (name, people) in enumerate(SITES.items()):
        data = write_images(root / f"{name}.npz", 10 * number, people)
        made.sites[name] = make_site(root / name, site_settings(name, data), config)
        made.folder(name).policy_file.write_text(POLICY)
    if config.security.key_holder == "authority":
        holder = SiteSettings(name="holder", role="authority")
        made.sites["holder"] = make_site(root / "holder", holder)
    made.sign()
    for name in made.sites if joined else ():
        made.join(name)
    return made


class Serving:
    """The server in a thread, until it is over or stopped."""

    def __init__(self, made: Made3) -> None:
        self.folder = ServerFolder.open(made.coordinator.server)
        self._stop = threading.Event()
        self.word: str | None = None
        settings = self.folder.settings
        self._link = SessionServer(
            settings.server.bind,
            settings.server.port,
            self.folder.tls,
            self.folder.admitted,
            most=largest_message(self.folder),
            federation=settings.name,
        )
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self.word = serve(self.folder, self._link, Watch(), until=self._stop.is_set)
        finally:
            self._link.close()

    def wait(self, seconds: float) -> str | None:
        self._thread.join(seconds)
        return self.word

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
