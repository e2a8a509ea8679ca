"""What one process of a toy federation does: its parties on a link, and the fault it is to have.

A process is told by JSON: its folder, its name, the port that it dials, and `faults`, of which a
fault is [kind, phase]:

    unsaid   it dies when its first message of this phase is about to be handed over
    said     it dies when that has left
    unheard  it dies when a message of this phase has arrived, and no party was told
    cut      the way is cut before its first message of this phase is handed over; it lives on
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federation.parties.kills import Federation, Kind
from federation.parties.toy_federation import Toy

from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import RefusedError
from secure_fl.engines.session.dialling import SessionClient
from secure_fl.engines.session.driver import Driver
from secure_fl.engines.session.link import Arrived, Event, Link
from secure_fl.engines.session.serving import SessionServer
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.federation.parties.attempt import Deadlines
from secure_fl.federation.parties.party import Message
from secure_fl.federation.wire import route

SERVER = "server"


@dataclass(frozen=True)
class Facts:
    """What a process is told.

    Attributes:
        folder: of the federation.
        name: of the process: the server, or a site.
        protection: of the sums.
        key_holder: of them.
        sites: names of parties by site.
        port: that a site dials.
        faults: to come, one after the other.
        noise: whether answers have noise.
        settle: as of `Driver.run`.
        deadline: seconds for what is trained; 0 for what servers wait else.
        wrap: `module:function` that puts something between the link and the parties.
    """

    folder: str
    name: str
    protection: str
    key_holder: str
    sites: dict[str, list[str]]
    port: int = 0
    faults: list[list[str]] = field(default_factory=list)
    noise: bool = False
    settle: float = 0.0
    deadline: float = 0.0
    wrap: str = ""

    @property
    def federation(self) -> Federation:
        folder = Path(self.folder)
        clients = sum(name.startswith("client") for names in self.sites.values() for name in names)
        kind = Kind(self.protection, self.key_holder, Toy(clients, 2))
        people = {path.name: Identity.load(path) for path in (folder / "people").iterdir()}
        return Federation(folder, kind, people=people, noise=self.noise)


def phase_of(data: bytes | memoryview) -> str:
    """The name of a message's phase."""
    try:
        return route(data).phase.name
    except RefusedError:
        return ""


class Faulty:
    """A link on which faults happen in their order."""

    def __init__(self, link: Link, facts: Facts) -> None:
        self._link, self._facts = link, facts
        self.faults = [(kind, phase) for kind, phase in facts.faults]

    @property
    def peers(self) -> frozenset[str]:
        return self._link.peers

    def send(self, sender: str, message: Message) -> None:
        phase = phase_of(message.data)
        if phase == "UPLOAD":
            self._note(sender, message.data)
        if self._due("unsaid", phase):
            self._die()
        if self._due("cut", phase):
            _ask(self._facts, "cut")
            self.faults = self.faults[1:]
        self._link.send(sender, message)
        if self._due("said", phase):
            time.sleep(0.05)
            self._die()

    def receive(self, seconds: float) -> Event | None:
        event = self._link.receive(seconds)
        if isinstance(event, Arrived) and self._due("unheard", phase_of(event.data)):
            self._die()
        return event

    def close(self) -> None:
        self._link.close()

    def _note(self, sender: str, data: bytes | memoryview) -> None:
        """What is released is put on record, for all lives of the process."""
        line = f"{sender} {route(data).round} {hashlib.sha256(data).hexdigest()}\n"
        with (Path(self._facts.folder) / "uploads").open("a") as file:
            file.write(line)

    def _due(self, kind: str, phase: str) -> bool:
        return bool(self.faults) and self.faults[0] == (kind, phase)

    @staticmethod
    def _die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def _ask(facts: Facts, what: str) -> None:
    """Have the test do something, and wait until it is done."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(Path(facts.folder) / "asked"))
        asked.sendall(f"{what} {facts.name}\n".encode())
        asked.recv(1)


def live(told: dict[str, Any]) -> bool:
    """One life of a process; whether the federation ended in it."""
    facts, folder = Facts(**told), Path(told["folder"])
    made, name = facts.federation, facts.name
    paths = [folder / "tls" / end for end in ("ca.pem", f"{name}.pem", f"{name}.key")]
    files = TlsFiles(*paths)
    if name == SERVER:
        parties: list[Any] = [made.server()]
        if facts.deadline:
            parties[0]._deadlines = Deadlines(train=facts.deadline)
        seats = facts.sites
        server = SessionServer("127.0.0.1", 0, files, lambda site, _: seats.get(site), most=1 << 26)
        _write(folder / "port", server.port)
        link: Link = server
    else:
        names = facts.sites[name]
        parties = [made.keeper() if one == "authority" else made.client(one) for one in names]
        link = SessionClient(f"127.0.0.1:{facts.port}", files, name, names)
    link = Faulty(_wrapped(link, facts, made), facts)
    driver = Driver(parties, link)
    linger = 30.0 if name == SERVER else 0.0
    ended = driver.run(linger=linger, settle=facts.settle)
    link.close()
    _write(folder / f"{name}.json", _outcome(parties, link.faults))
    return ended


def _wrapped(link: Link, facts: Facts, made: Federation) -> Link:
    if not facts.wrap:
        return link
    from importlib import import_module

    module, function = facts.wrap.split(":")
    wrapped: Link = getattr(import_module(module), function)(link, facts, made)
    return wrapped


def _outcome(parties: list[Any], faults: list[tuple[str, str]]) -> dict[str, Any]:
    """Of a process that came to the end."""
    refused = sum((Counter(party.refusals.counts) for party in parties), Counter[str]())
    found: dict[str, Any] = {"refused": dict(refused), "faults": faults, "pools": {}}
    for party in parties:
        if party.name == SERVER:
            found["failed"] = "" if party.failed is None else str(party.failed)
        elif party.name != "authority" and party.state is not None:
            found["pools"][party.name] = party.state.tensors["pools"].tolist()
    return found


def _write(path: Path, value: Any) -> None:
    partly = path.with_suffix(".part")
    partly.write_text(json.dumps(value))
    partly.replace(path)
