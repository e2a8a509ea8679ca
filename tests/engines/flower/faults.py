"""What is to happen in a phase of a federation over Flower: asked for by a site's own process,
which sees phases; done by the test, which has the processes.

`faults.json` in a site's folder has [how, phase, whom] for each: when this site `said` (just before
it does) or `heard` (just before a party does) its first message of the phase, `site` dies, or the
test kills `server` or `superlink` while the site waits. What has happened is taken out of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from secure_fl.crypto.refusals import RefusedError
from secure_fl.engines.session.link import Arrived, Event, Link
from secure_fl.federation.parties.party import Message
from secure_fl.federation.wire import route
from secure_fl.files import write_json

FAULTS, UPLOADS, ASKED = "faults.json", "uploads", "asked"
PHASES = [
    *(("heard", "PLAN"), ("heard", "MAKE"), ("said", "KEYS"), ("said", "SECRET")),
    *(("heard", "BEGIN"), ("said", "ADVERTISE"), ("said", "SHARE"), ("said", "UPLOAD")),
    *(("said", "AGREE"), ("said", "OPEN_COUNTS"), ("said", "OPEN_POOLS"), ("said", "APPLY")),
    ("heard", "END"),
]
"""Every phase in which a site whose client makes the keys says or hears something."""


class Faulty:
    """A site's link."""

    def __init__(self, link: Link, folder: Path) -> None:
        self._link, self._folder, self._file = link, folder, folder / FAULTS
        self._left: list[list[str]] = []
        if self._file.is_file():
            self._left = json.loads(self._file.read_text())

    @property
    def peers(self) -> frozenset[str]:
        return self._link.peers

    def send(self, sender: str, message: Message) -> None:
        if (phase := _phase(message.data)) == "UPLOAD":
            digest = hashlib.sha256(message.data).hexdigest()
            with (self._folder / UPLOADS).open("a") as file:
                file.write(f"{sender} {route(message.data).round} {digest}\n")
        self._happen("said", phase)
        self._link.send(sender, message)

    def receive(self, seconds: float) -> Event | None:
        event = self._link.receive(seconds)
        if isinstance(event, Arrived):
            self._happen("heard", _phase(event.data))
        return event

    def close(self) -> None:
        self._link.close()

    def _happen(self, how: str, phase: str) -> None:
        found = [one for one in self._left if one[:2] == [how, phase]]
        if not found:
            return
        self._left.remove(found[0])
        write_json(self._file, self._left)
        if found[0][2] == "site":
            os.kill(os.getpid(), signal.SIGKILL)
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(self._folder.parent / ASKED))
            asked.sendall(f"{found[0][2]} {phase}\n".encode())
            asked.recv(1)


class Asked:
    """The test's end: does what sites ask for.

    Args:
        folder: of all sites.
        work: does it, by whom it befalls; the site waits meanwhile.
    """

    def __init__(self, folder: Path, work: Callable[[str], None]) -> None:
        self._work, self._socket = work, socket.socket(socket.AF_UNIX)
        self._socket.bind(str(folder / ASKED))
        self._socket.listen()
        self.done = list[str]()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                what = connection.recv(64).decode().strip()
                self._work(what.split()[0])
                self.done.append(what)


def plan_faults(folder: Path, whom: str) -> None:
    """One in every phase."""
    write_json(folder / FAULTS, [[how, phase, whom] for how, phase in PHASES])


def uploads(folders: list[Path]) -> dict[tuple[str, str], set[str]]:
    """Digests of what each client sent in each round, in whatever life."""
    found: dict[tuple[str, str], set[str]] = {}
    for folder in folders:
        for line in (folder / UPLOADS).read_text().splitlines():
            name, number, digest = line.split()
            found.setdefault((name, number), set()).add(digest)
    return found


def _phase(data: Any) -> str:
    try:
        return route(data).phase.name
    except RefusedError:
        return ""
