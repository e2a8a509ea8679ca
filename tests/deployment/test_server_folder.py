"""The server's folder: what is damaged is refused by name, and a federation keeps its plan."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from deployment.federations import Trial, commanded, signed_trial

from secure_fl.deployment.running import to_resume, to_start
from secure_fl.deployment.seats import Seats
from secure_fl.deployment.server_folder import ServerFolder
from secure_fl.deployment.serving import largest_message, serve
from secure_fl.deployment.status import Status
from secure_fl.engines.session.link import Event, Watch
from secure_fl.errors import DeploymentError, RunFolderError, SecureFLError
from secure_fl.federation.parties.party import Message, failure_word


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return signed_trial(tmp_path / "fl", linger=0.1, join=30.0)


def failed(folder: ServerFolder) -> None:
    """Nobody comes."""
    party = folder.party()
    party.tick(0.0)
    party.tick(1e6)
    assert failure_word(party.failed) == "too-few"
    party.folder.close()


class Nobody:
    """A link on which nothing happens."""

    peers = frozenset[str]()

    def send(self, sender: str, message: Message) -> None:
        raise AssertionError

    def receive(self, seconds: float) -> Event | None:
        return None

    def close(self) -> None:
        return None


@pytest.mark.parametrize(
    "name",
    ["seats.json", "plan", "roster", "coordinator.card", "server.identity", "federation.toml"],
)
def test_a_damaged_file_is_refused(trial: Trial, name: str) -> None:
    path = trial.made.server / name
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    whole_lines = [b"".join(lines[:number]) for number in range(1, len(lines))]
    for changed in (b"", data[: len(data) // 2], *whole_lines, b"\xff" + data, data + b"}"):
        path.write_bytes(changed)
        with pytest.raises(SecureFLError) as error:
            ServerFolder.open(trial.made.server)
        assert error.value.remedy
    path.unlink()
    with pytest.raises(SecureFLError):
        ServerFolder.open(trial.made.server)


def test_damaged_seats_let_nobody_in(trial: Trial) -> None:
    folder = ServerFolder.open(trial.made.server)
    seat = folder.seats()["north"]
    assert folder.admitted("north", seat.certificate) == ("client-0000", "client-0001")
    assert folder.admitted("east", seat.certificate) is None
    assert folder.admitted("nobody", seat.certificate) is None
    path = trial.made.server / "seats.json"
    found = json.loads(path.read_text())
    for changed in (
        {**found, "format": "another"},
        {**found, "more": 1},
        {**found, "seats": {"north": {"parties": "client-0000"}}},
        {**found, "seats": {**found["seats"], "east": {**found["seats"]["east"], "revoked": True}}},
        {**found, "check": "0" * 64},
    ):
        path.write_text(json.dumps(changed))
        with pytest.raises(RunFolderError, match=r"seats.json"):
            folder.seats()
        assert folder.admitted("north", seat.certificate) is None


def test_a_federation_keeps_the_plan_that_it_began_with(trial: Trial) -> None:
    path, made = trial.made.server, trial.made
    with pytest.raises(DeploymentError, match="none was begun"):
        to_resume(path)
    folder = to_start(path)
    folder.begin()
    assert to_start(path).opened == to_resume(path).opened == folder.opened
    made.publish(made.draft(again=True))
    assert ServerFolder.open(path).opened == folder.opened
    assert to_resume(path).opened == folder.opened
    with pytest.raises(DeploymentError, match="under an older plan"):
        to_start(path)
    newer = to_start(path, anew=True)
    assert newer.opened != folder.opened
    assert newer.record != folder.record


def test_what_is_over_is_neither_started_nor_resumed(trial: Trial) -> None:
    path = trial.made.server
    failed(to_start(path))
    for again in (to_start, to_resume):
        with pytest.raises(DeploymentError, match="is over: too-few"):
            again(path)
    assert to_resume(path, late=True).begun
    status = Status.of(ServerFolder.open(path))
    assert (status.outcome, status.under_way, status.server) == ("too-few", False, None)
    trial.made.publish(trial.made.draft(again=True))
    assert not to_start(path).begun


def test_one_server_has_a_folder(trial: Trial) -> None:
    folder = ServerFolder.open(trial.made.server)
    party = folder.party()
    with pytest.raises(RunFolderError, match="is in use by process") as error:
        serve(folder, Nobody(), Watch())
    assert error.value.remedy
    party.folder.close()
    assert serve(folder, Nobody(), Watch(), until=lambda: True) == "interrupted"


def test_serving_gives_the_reason_of_a_failure(tmp_path: Path) -> None:
    folder = ServerFolder.open(signed_trial(tmp_path, join=0.5, linger=0.1).made.server)
    assert serve(folder, Nobody(), Watch()) == "too-few"
    assert not (folder.path / "present.json").exists()


def test_damaged_progress_is_found(trial: Trial) -> None:
    folder = to_start(trial.made.server)
    assert folder.progress() is None
    failed(folder)
    path = folder.record / "progress"
    data = path.read_bytes()
    for changed in (b"", data[:-1], data[:40] + b"x" + data[41:]):
        path.write_bytes(changed)
        with pytest.raises(RunFolderError, match="damaged"):
            folder.progress()
    (trial.made.server / "begun").write_text("not a digest")
    with pytest.raises(SecureFLError):
        ServerFolder.open(trial.made.server)


def test_a_damaged_transcript_is_refused(trial: Trial) -> None:
    folder = to_start(trial.made.server)
    failed(folder)
    path = folder.record / "transcript.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"plan"', b'"plam"', 1))
    for look in (folder.party, lambda: Status.of(folder)):
        with pytest.raises(SecureFLError, match="transcript"):
            look()


def test_no_message_is_longer_than_is_said(trial: Trial) -> None:
    folder = ServerFolder.open(trial.made.server)
    most = largest_message(folder)
    assert most % (1 << 20) == 0
    assert max(len(folder.plan), folder.opened.largest_state) < most < 1 << 28


def test_who_is_gone_stays_so_while_the_file_is_copied(tmp_path: Path) -> None:
    """Else it would be waited for, and called, because of one read that came too early."""
    trial = signed_trial(tmp_path / "fl")
    seats = trial.made.seats
    seats.revoke("north")
    north, server = frozenset(seats.read()["north"].parties), Seats(seats.path)
    assert server.away() == north
    whole = seats.path.read_bytes()
    for part in (b"", whole[: len(whole) // 2]):
        seats.path.write_bytes(part)
        assert server.away() == north
    seats.path.write_bytes(whole)
    seats.write(seats.read() | {"north": replace(seats.read()["north"], revoked=False)})
    assert server.away() == frozenset()


def test_a_folder_copied_into_the_one_that_was_there_is_not_taken_for_it(trial: Trial) -> None:
    """It has no record, and would begin its plan a second time."""
    shutil.copytree(trial.made.server, trial.made.server / "server")
    for command in ("status", "start", "resume", "close", "stop"):
        code, said = commanded("federate", command, trial.made.server)
        assert (code, "copied into another" in " ".join(said.split())) == (1, True)


def test_a_federation_is_closed_under_its_own_plan_alone(trial: Trial) -> None:
    folder = ServerFolder.open(trial.made.server)
    assert commanded("federate", "close", trial.path)[0] == 1, "none was begun"
    folder.party().folder.close()
    assert not folder.closing()
    code, said = commanded("federate", "close", trial.path)
    assert (code, "--after" in said, folder.closing()) == (0, True, True)
    again = ("federate", "sign", trial.path, "--again")
    code, said = commanded(*again, "--after", folder.record)
    assert (code, "has not ended" in said) == (1, True)
    assert commanded(*again)[0] == 0
    assert not ServerFolder.open(trial.made.server, newest=True).closing()
    (folder.path / "closing").write_text("nonsense")
    assert not folder.closing()
