"""A toy federation in processes of its own: the server and sites, over TLS on this machine."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from engines.session.certificates import Authority
from engines.session.lives import SERVER, Facts
from engines.session.nursery import Nursery
from engines.session.proxy import Proxy
from federation.parties.kills import Federation
from federation.parties.toy_federation import identities

from secure_fl.crypto.identities import Identity

CLIENTS = 4
LONGEST = 90.0
SITES = {"north": ["client-0000", "client-0001"], "south": ["client-0002", "client-0003"]}


@dataclass
class Processes:
    """One federation, from its beginning to its end.

    Attributes:
        folder: empty.
        nursery: where processes come from.
        protection: of the sums.
        key_holder: of them.
        faults: of a process by its name; see `lives`.
        wrap: as of `Facts`, by process.
        noise, deadline: as of `Facts`.
        people: of the federation.
        deaths: how often each process was killed.
    """

    folder: Path
    nursery: Nursery
    protection: str = "masked"
    key_holder: str = "clients"
    faults: dict[str, list[list[str]]] = field(default_factory=dict)
    wrap: dict[str, str] = field(default_factory=dict)
    noise: bool = False
    deadline: float = 0.0
    people: dict[str, Identity] | None = None
    deaths: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.people = self.people or identities(CLIENTS)
        for name, one in self.people.items():
            one.save(self.folder / "people" / name)
        keeper = {"keeper": ["authority"]} if self.key_holder == "authority" else {}
        self.sites = SITES | keeper
        authority = Authority(self.folder / "tls")
        authority.files(SERVER, hosts=("127.0.0.1",))
        for site in self.sites:
            authority.files(site)
        self.proxies = {site: Proxy(self._port) for site in self.sites}
        self._left = {name: list(faults) for name, faults in self.faults.items()}
        self._running = dict[str, int]()
        self._asked = socket.socket(socket.AF_UNIX)
        self._asked.bind(str(self.folder / "asked"))
        self._asked.listen()
        threading.Thread(target=self._answer, daemon=True).start()

    def run(self) -> Processes:
        """To the end; who is killed on the way is started again."""
        until = time.monotonic() + LONGEST
        try:
            self._start(SERVER)
            while not self._port():
                assert time.monotonic() < until, self.logs()
                time.sleep(0.01)
            for site in self.sites:
                self._start(site)
            while self._running:
                assert time.monotonic() < until, f"{set(self._running)} never ended: {self.logs()}"
                for name, number in list(self._running.items()):
                    self._look_after(name, self.nursery.ended(number))
                time.sleep(0.02)
        finally:
            self.close()
        return self

    def close(self) -> None:
        """End all of it."""
        for proxy in self.proxies.values():
            proxy.close()
        self._asked.close()

    def outcome(self, name: str) -> dict[str, Any]:
        """What a process wrote in the end."""
        found: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        return found

    def pools(self) -> dict[str, torch.Tensor]:
        """By client."""
        found = [self.outcome(site)["pools"] for site in self.sites]
        return {
            name: torch.tensor(pools, dtype=torch.float64)
            for each in found
            for name, pools in each.items()
        }

    def uploads(self) -> dict[tuple[str, str], set[str]]:
        """Digests of what each client ever sent in each round."""
        found: dict[tuple[str, str], set[str]] = {}
        for line in (self.folder / "uploads").read_text().splitlines():
            sender, number, digest = line.split()
            found.setdefault((sender, number), set()).add(digest)
        return found

    @property
    def federation(self) -> Federation:
        """To read its folders with."""
        return self._facts(SERVER).federation

    def logs(self) -> str:
        """What processes wrote to standard error."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def _look_after(self, name: str, status: int | None) -> None:
        if status is None:
            return
        del self._running[name]
        if status == -signal.SIGKILL:
            self.deaths[name] += 1
            self._left[name] = self._left[name][1:]
            self._start(name)
        else:
            assert status == 0, f"{name} ended with {status}: {self.logs()}"

    def _start(self, name: str) -> None:
        self._running[name] = self.nursery.start(asdict(self._facts(name)))

    def _facts(self, name: str) -> Facts:
        kind = (self.protection, self.key_holder)
        return Facts(
            str(self.folder),
            name,
            *kind,
            self.sites,
            port=self.proxies[name].port if name in self.proxies else 0,
            faults=self._left.get(name, []),
            settle=6.0 if self.deaths[SERVER] else 0.0,
            noise=self.noise,
            deadline=self.deadline,
            wrap=self.wrap.get(name, ""),
        )

    def _port(self) -> int:
        try:
            return int((self.folder / "port").read_text())
        except FileNotFoundError:
            return 0

    def _answer(self) -> None:
        """Cut the ways that processes ask to be cut."""
        with suppress(OSError):
            while True:
                asker = self._asked.accept()[0]
                with asker:
                    what, name = asker.recv(100).decode().split()
                    assert what == "cut"
                    names = self.sites if name == SERVER else [name]
                    for one in names:
                        self.proxies[one].cut()
                    asker.sendall(b".")
