"""Federations over Flower's own programs, with TLS and node keys: both transports, through kills.

Each takes minutes: Flower starts a process for every message.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deployment.made_sites import SITES
from engines.flower.deployed import Deployed, started, until
from engines.flower.federated import Federated
from engines.flower.site_program import clients

from secure_fl.deployment.invitation import Invitation
from secure_fl.engines.queue import Here, Queue

pytest.importorskip("flwr")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NOISELESS = {"privacy": {"unit": "none"}, "pools": {"start": "random", "rounds": 2}}
"""The sketches' noise is off too, so that all ends of one plan are the same."""
TRANSPORTS = ("session", "messages")


def embedded(made: Federated) -> dict[str, str]:
    """Each client's last state when all parties of the same folders are in this process."""
    sites = [made.site(name) for name in SITES]
    invitations = [Invitation.open((site / "invitation").read_bytes()) for site in sites]
    people = [one for pair in zip(sites, invitations, strict=True) for one in clients(*pair)]
    server = made.server.party()
    Queue([Here([server]), Here(people)], "server").run()
    assert server.failed is None
    return {one.name: one.state.digest.hex() if one.state else "" for one in people}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The last state of an uninterrupted federation of this plan."""
    made = Federated(tmp_path_factory.mktemp("embedded"), "session", NOISELESS)
    found = set(embedded(made).values())
    assert len(found) == 1
    return found.pop()


def same(results: dict[str, Any], expected: str) -> None:
    assert {one["state"] for one in results.values()} == {expected}
    assert len(results) == 6


def once(deployed: Deployed) -> None:
    """No round was released twice: each place of the program was opened once."""
    sums = [line["facts"]["round"] for line in deployed.record() if line["kind"] == "sum"]
    places = [line["facts"]["place"] for line in deployed.record() if line["kind"] == "state"]
    assert len(sums) == len(set(sums))
    assert len(places) == len({tuple(place) for place in places}) == len(sums)


def opened(deployed: Deployed, count: int) -> None:
    """Wait until so many rounds were opened."""
    until(lambda: sum(line["kind"] == "sum" for line in deployed.record()) >= count, 900.0)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_results_equal_the_embedded_engines(tmp_path: Path, transport: str, expected: str) -> None:
    with started(Federated(tmp_path, transport, NOISELESS)) as deployed:
        run = deployed.link.submit()
        assert deployed.ended(run, 900.0) == "finished:completed"
        same(deployed.results(), expected)
        once(deployed)


def kill_server(deployed: Deployed, run: str) -> str:
    """The server app is killed, and another run goes on."""
    for number in apps("server"):
        os.kill(number, signal.SIGKILL)
    assert deployed.ended(run, 300.0) == "finished:failed"
    return deployed.link.submit()


def kill_superlink(deployed: Deployed, run: str) -> str:
    """The SuperLink is killed and started again; its run has failed, and another goes on."""
    note = json.loads((deployed.made.path / "server" / "superlink" / "superlink.json").read_text())
    os.kill(note["process"], signal.SIGKILL)
    until(lambda: not deployed.link.running, 30.0)
    deployed.link.start()
    assert deployed.ended(run, 300.0).startswith("finished")
    return deployed.link.submit()


def kill_site(deployed: Deployed, run: str) -> str:
    """A site's process is killed, and started again."""
    deployed.kill_site("east")
    deployed.start_site("east")
    return run


def kill_machine(deployed: Deployed, run: str) -> str:
    """A site's process and its node are killed, and started again."""
    deployed.kill_site("north")
    deployed.nodes["north"].stop()
    deployed.nodes["north"].start()
    deployed.start_site("north")
    return run


def apps(kind: str) -> list[int]:
    """Processes of our executor's kind that belong to this test's SuperLink."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            mine = os.environ["SECURE_FL_STATE"] in (path.parent / "environ").read_text("latin-1")
        except OSError:
            continue
        if mine and b"secure_fl.engines.flower.executor" in words and kind.encode() in words:
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("kill", [kill_server, kill_superlink, kill_site, kill_machine])
def test_kills_change_no_result(
    tmp_path: Path, transport: str, kill: Callable[[Deployed, str], str], expected: str
) -> None:
    with started(Federated(tmp_path, transport, NOISELESS)) as deployed:
        run = deployed.link.submit()
        opened(deployed, 1)
        run = kill(deployed, run)
        assert deployed.ended(run, 1200.0) == "finished:completed"
        same(deployed.results(), expected)
        once(deployed)


def test_a_federation_that_fails_is_a_failed_run(tmp_path: Path) -> None:
    few = {**NOISELESS, "pretrain": {"rounds": 1}}
    made = Federated(tmp_path, "session", few, {"join": 5.0, "linger": 1.0})
    deployed = Deployed(made)
    try:
        deployed.link.start()
        run = deployed.link.submit()
        assert deployed.ended(run) == "finished:failed"
        told = json.loads((tmp_path / "server" / "flower-run.json").read_text())
        assert told == {"run": run, "word": "too-few"}
    finally:
        deployed.stop()
