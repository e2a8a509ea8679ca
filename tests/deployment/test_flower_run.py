"""Starting, following and stopping by a SuperLink that does what it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from deployment.federations import Trial, signed_trial
from deployment.test_server_folder import failed

from secure_fl.deployment import flower_run
from secure_fl.deployment.flower_run import follow_flower, start_flower, stop_flower
from secure_fl.deployment.running import to_start
from secure_fl.deployment.server_folder import ServerFolder
from secure_fl.errors import DeploymentError, EngineError


class FakeLink:
    """A SuperLink of a test's own."""

    log = Path("superlink.log")

    def __init__(self) -> None:
        self.running, self.runs, self.nodes = False, list[str](), dict[str, bytes]()
        self.states, self.halted, self.deaf = dict[str, str](), list[str](), False

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    def register(self, path: Path) -> None:
        self.nodes[path.stem] = path.read_bytes()

    def unregister(self, path: Path) -> None:
        self.nodes.pop(path.stem, None)

    def submit(self) -> str:
        self.runs.append(str(len(self.runs) + 1))
        self.states[self.runs[-1]] = "running"
        return self.runs[-1]

    def state(self, run: str) -> str:
        if self.deaf:
            raise EngineError("gives no answer", "superlink state", run, "look at it")
        return self.states[run]

    def halt(self, run: str) -> None:
        self.halted.append(run)
        self.states[run] = "finished:stopped"


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> FakeLink:
    made = FakeLink()
    monkeypatch.setattr(flower_run, "superlink_of", lambda _: made)
    return made


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return signed_trial(tmp_path / "fl")


def started(trial: Trial) -> ServerFolder:
    folder = to_start(trial.made.server)
    start_flower(folder, lambda _: None)
    return folder


def test_a_start_enrols_every_site_and_submits_one_run(trial: Trial, link: FakeLink) -> None:
    folder = started(trial)
    cards = {name: site.card.node.strip() for name, site in trial.sites.items()}
    assert link.nodes == cards
    assert (link.runs, folder.begun) == (["1"], True)
    with pytest.raises(DeploymentError, match="a run is under way"):
        start_flower(folder, lambda _: None)
    assert link.runs == ["1"]


def test_a_revoked_site_is_struck_off(trial: Trial, link: FakeLink) -> None:
    folder = started(trial)
    trial.made.revoke("east")
    link.states["1"] = "finished:failed"
    start_flower(folder, lambda _: None)
    assert set(link.nodes) == {"north", "south"}
    assert link.runs == ["1", "2"]


def test_our_own_record_says_how_it_ended(trial: Trial, link: FakeLink) -> None:
    """Flower calls a run completed that ended without an error, whatever became of it."""
    folder, said = started(trial), list[str]()
    link.states["1"] = "finished:failed"
    assert follow_flower(folder, said.append, lambda: False) == "finished:failed"
    (folder.path / "flower-run.json").write_text(json.dumps({"run": "1", "word": "io"}))
    assert follow_flower(folder, said.append, lambda: False) == "io"
    (folder.path / "flower-run.json").write_text(json.dumps({"run": "0", "word": "io"}))
    link.states["1"] = "finished:completed"
    assert follow_flower(folder, said.append, lambda: False) == "finished:completed"
    failed(folder)
    assert follow_flower(folder, said.append, lambda: False) == "too-few"
    assert said == ["over, 0 members"]


def test_following_ends_where_it_is_interrupted_or_nobody_answers(
    trial: Trial, link: FakeLink
) -> None:
    folder = started(trial)
    assert follow_flower(folder, print, lambda: True) == "interrupted"
    link.deaf = True
    link.running = False
    with pytest.raises(EngineError) as error:
        follow_flower(folder, print, lambda: False)
    assert "federate resume" in error.value.remedy


def test_stop_ends_the_run_and_the_superlink(trial: Trial, link: FakeLink) -> None:
    folder = to_start(trial.made.server)
    assert stop_flower(folder) is False
    started(trial)
    assert stop_flower(folder) is True
    assert (link.halted, link.running) == (["1"], False)
    assert stop_flower(folder) is False
