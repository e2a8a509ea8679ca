"""Ends of sessions on this machine, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from engines.session.certificates import Authority, digest

from secure_fl.engines.session.dialling import SessionClient
from secure_fl.engines.session.link import Arrived, Event, Link
from secure_fl.engines.session.serving import SessionServer
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.federation.parties.party import Message

HOSTS = ("localhost", "127.0.0.1")
PATIENCE = 20.0
MOST = 1 << 26
E = TypeVar("E", bound=Event)


def until(link: Link, kind: type[E], seconds: float = PATIENCE) -> E:
    """The next event of a kind; all others before it are let go of."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        event = link.receive(0.1)
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__}")


def heard(link: Link, seconds: float = PATIENCE) -> bytes:
    """The next message."""
    return bytes(until(link, Arrived, seconds).data)


def true(found: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether it becomes true in time."""
    ends = time.monotonic() + seconds
    while not (now := found()) and time.monotonic() < ends:
        time.sleep(0.02)
    return now


class Ends(ExitStack):
    """A server, sites, and the authority that they trust; all are closed in the end.

    Attributes:
        authority: of the certificates.
        seats: names of parties by site and digest of its certificate.
        port: that the server got first, and keeps.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.authority = Authority(folder / "tls")
        self.files = self.authority.files("server", hosts=HOSTS)
        self.seats: dict[tuple[str, str], Sequence[str]] = {}
        self.port = 0

    def server(self, **more: Any) -> SessionServer:
        """A server."""
        more = {"most": MOST, "federation": "toy"} | more
        made = SessionServer("127.0.0.1", self.port, self.files, self.admitted, **more)
        self.port = made.port
        self.callback(made.close)
        return made

    def seat(self, site: str, *parties: str) -> TlsFiles:
        """A new certificate, on the list."""
        files = self.authority.files(site)
        self.seats[site, digest(files)] = parties or (f"{site}-party",)
        return files

    def site(
        self, name: str, *parties: str, files: TlsFiles | None = None, port: int = 0, **more: Any
    ) -> SessionClient:
        """A site with a seat, or with these files."""
        files = files or self.seat(name, *parties)
        address, names = f"127.0.0.1:{port or self.port}", parties or (f"{name}-party",)
        made = SessionClient(address, files, name, names, **{"federation": "toy"} | more)
        self.callback(made.close)
        return made

    def admitted(self, name: str, found: str) -> Sequence[str] | None:
        return self.seats.get((name, found))


def say(link: Link, to: str, data: bytes) -> None:
    """Hand a message over."""
    link.send("somebody", Message(to, data))
