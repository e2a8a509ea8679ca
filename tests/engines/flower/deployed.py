"""A federation over Flower on this machine: a SuperLink, and three sites with a node each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployment.made_sites import SITES
from engines.flower.federated import Federated

from secure_fl.engines.flower.launching import SuperLink, SuperNode
from secure_fl.errors import EngineError

PROGRAM = Path(__file__).parent / "site_program.py"
TESTS = Path(__file__).parents[2]


@dataclass
class Deployed:
    """The processes; `started` ends them all."""

    made: Federated
    sites: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        server = self.made.server
        folder = self.made.path / "server" / "superlink"
        self.link = SuperLink(folder, server.settings.superlink, server.tls)
        self.nodes = {name: self._node(name) for name in SITES}

    def _node(self, name: str) -> SuperNode:
        site, port = self.made.site(name), self.made.server.settings.superlink.port
        at = f"localhost:{port}"
        return SuperNode(site / "flower", at, site / "authority.pem", site / "node", site)

    def start(self, without: Sequence[str] = ()) -> None:
        self.link.start()
        for name, node in self.nodes.items():
            self.link.register(self.made.site(name) / "node.pub")
            node.start()
            if name not in without:
                self.start_site(name)

    def start_site(self, name: str) -> None:
        site = self.made.site(name)
        paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
        log = (site / "site.log").open("ab")
        self.sites[name] = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(site)],
            env=os.environ | {"PYTHONPATH": paths},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()

    def kill_site(self, name: str) -> None:
        self.sites[name].send_signal(signal.SIGKILL)
        self.sites[name].wait()

    def stop(self) -> None:
        for site in self.sites.values():
            site.kill()
            site.wait()
        for node in self.nodes.values():
            node.stop()
        self.link.stop()

    def ended(self, run: str, seconds: float = 400.0) -> str:
        """How a run ended."""

        def finished() -> str:
            with suppress(EngineError):  # a SuperLink on a busy machine may take its time
                state = self.link.state(run)
                return state if state.startswith("finished") else ""
            return ""

        return str(until(finished, seconds))

    def results(self, seconds: float = 60.0) -> dict[str, Any]:
        """Of all clients, when all sites have ended."""
        for site in self.sites.values():
            assert site.wait(seconds) == 0
        paths = [self.made.site(name) / "result.json" for name in SITES]
        return {name: one for path in paths for name, one in json.loads(path.read_text()).items()}

    def record(self) -> list[dict[str, Any]]:
        """The transcript's entries so far."""
        path = self.made.server.record / "transcript.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def until(found: Callable[[], Any], seconds: float) -> Any:
    """What is found within so many seconds."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(1.0)
    return value


@contextmanager
def started(made: Federated, without: Sequence[str] = ()) -> Iterator[Deployed]:
    """All processes, but for those of sites that come later."""
    deployed = Deployed(made)
    try:
        deployed.start(without)
        yield deployed
    finally:
        deployed.stop()
