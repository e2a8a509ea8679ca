"""SuperLink, server and a site are killed in every phase of a federation over Flower: final models
are those of one that nobody disturbed, and nobody released anything twice.

Each takes many minutes: Flower starts a process for every message, and a run after every kill.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from deployment.made_sites import SITES
from engines.flower.deployed import Deployed, started, until
from engines.flower.faults import FAULTS, PHASES, Asked, plan_faults, uploads
from engines.flower.federated import Federated
from engines.flower.test_over_flower import NOISELESS, apps, embedded, once, same

from secure_fl.errors import EngineError
from secure_fl.files import write_json

pytest.importorskip("flwr")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

MAKER = "north"
"""The site whose client is asked for the keys: it sees every phase."""
LATE, JOIN = "south", 120.0
"""A site that comes when the first round is at its end, and the seconds for which it is waited."""
COMES_LATE = ["said", "APPLY", LATE]
WITHOUT_LATE = {**NOISELESS, "security": {"threshold": 4}}
"""Settings under which the other sites are enough."""
TRIALS = [
    (way, whom) for way in ("session", "messages") for whom in ("site", "server", "superlink")
]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The last state of an uninterrupted federation of this plan."""
    made = Federated(tmp_path_factory.mktemp("embedded"), "session", NOISELESS)
    [found] = set(embedded(made).values())
    return found


@pytest.fixture(scope="module")
def expected_late(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The last state of a federation that one site has come late to, and that nobody disturbed."""
    made = Federated(tmp_path_factory.mktemp("late"), "session", WITHOUT_LATE, {"join": JOIN})
    write_json(made.site(MAKER) / FAULTS, [COMES_LATE])
    with started(made, without=[LATE]) as deployed:
        killing = Killing(deployed)
        Asked(made.path / "sites", killing.kill)
        assert killing.to_the_end(1500.0) == "finished:completed"
        [found] = {one["state"] for one in deployed.results(120.0).values()}
        return str(found)


class Killing:
    """Kills what belongs to a deployment, and has it go on: sites and runs that have ended so are
    started again until it is over.
    """

    def __init__(self, deployed: Deployed) -> None:
        self._deployed, self._over = deployed, threading.Event()
        self.deaths = 0
        self.run = deployed.link.submit()

    def kill(self, whom: str) -> None:
        """Whom a site asks to be killed; where it asks for the site that is late, that comes."""
        if whom == LATE:
            self._deployed.start_site(LATE)
            until(lambda: set(SITES[LATE]) <= joined(self._deployed), 300.0)
            return
        if whom == "server":
            [number] = until(lambda: apps("server"), 60.0)
        else:  # the server goes on without it for a while: it may be on its way up again
            until(lambda: self._deployed.link.healthy, 120.0)
            note = self._deployed.made.path / "server" / "superlink" / "superlink.json"
            number = json.loads(note.read_text())["process"]
        os.kill(number, signal.SIGKILL)
        self.deaths += 1

    def to_the_end(self, seconds: float) -> str:
        """How the last run ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._raise_sites()
            with suppress(EngineError):  # it was killed just now, or is busy
                if not self._deployed.link.running:
                    self._deployed.link.start()
                state = str(self._deployed.link.state(self.run))
                if state == "finished:completed":
                    return state
                if state.startswith("finished"):
                    self.run = self._deployed.link.submit()
            time.sleep(0.5)
        return "too late"

    def _raise_sites(self) -> None:
        for name, process in list(self._deployed.sites.items()):
            if process.poll() == -signal.SIGKILL:
                self.deaths += 1
                self._deployed.start_site(name)


def waits_of(transport: str) -> dict[str, float]:
    # over messages a site that was killed at the end takes a minute to come back
    linger = 30.0 if transport == "session" else 300.0
    return {"answer": 300.0, "train": 900.0, "linger": linger}


def joined(deployed: Deployed) -> set[int]:
    """Clients that have joined, by number."""
    entries = [line["facts"] for line in deployed.record() if line["kind"] == "joined"]
    return {int(facts["client"].removeprefix("client-")) for facts in entries}


@pytest.mark.parametrize(("transport", "whom"), TRIALS)
def test_a_kill_in_every_phase_changes_nothing(
    tmp_path: Path, transport: str, whom: str, expected: str
) -> None:
    made = Federated(tmp_path, transport, NOISELESS, waits_of(transport))
    plan_faults(made.site(MAKER), whom)
    with started(made) as deployed:
        killing = Killing(deployed)
        asked = Asked(tmp_path / "sites", killing.kill)
        assert killing.to_the_end(3000.0) == "finished:completed"
        same(deployed.results(120.0), expected)
        once(deployed)
        left = json.loads((made.site(MAKER) / FAULTS).read_text())
        assert (left, killing.deaths) == ([], len(PHASES)), asked.done
        released = uploads([made.site(name) for name in SITES])
        assert all(len(digests) == 1 for digests in released.values())
        assert {name for name, _ in released} == {f"client-{number:04d}" for number in range(6)}


@pytest.mark.parametrize(("transport", "whom"), TRIALS)
def test_a_kill_while_the_state_is_fetched_changes_nothing(
    tmp_path: Path, transport: str, whom: str, expected_late: str
) -> None:
    """A site that has missed a round asks for the state, and is given it, sealed by another."""
    waits = {**waits_of(transport), "join": JOIN}
    made = Federated(tmp_path, transport, WITHOUT_LATE, waits)
    write_json(made.site(MAKER) / FAULTS, [COMES_LATE])
    write_json(made.site(LATE) / FAULTS, [["said", "WANT", whom], ["heard", "STATE", whom]])
    with started(made, without=[LATE]) as deployed:
        killing = Killing(deployed)
        asked = Asked(tmp_path / "sites", killing.kill)
        assert killing.to_the_end(3000.0) == "finished:completed"
        same(deployed.results(120.0), expected_late)
        once(deployed)
        assert (json.loads((made.site(LATE) / FAULTS).read_text()), killing.deaths) == ([], 2), (
            asked
        )
        rounds = [line["facts"] for line in deployed.record() if line["kind"] == "sum"]
        assert [len(one["survivors"]) for one in rounds] == [4, 6, 6]
        assert all(len(found) == 1 for found in uploads([made.site(n) for n in SITES]).values())
