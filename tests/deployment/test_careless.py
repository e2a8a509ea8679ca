"""A server's folder in careless hands: two commands at once, ports that are taken, kills."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from deployment.federations import commanded, running, signed_trial
from deployment.made_sites import write_cards

from secure_fl.deployment.certificates import good_for
from secure_fl.deployment.presence import present
from secure_fl.deployment.server_folder import ServerFolder
from secure_fl.files import held, make_folder
from secure_fl.lock_holder import this_process

pytest.importorskip("grpc")
pytestmark = pytest.mark.timeout(600)


def test_no_process_is_stopped_that_has_the_number_of_a_killed_server(tmp_path: Path) -> None:
    trial = signed_trial(tmp_path / "fl")
    folder = ServerFolder.open(trial.made.server)
    folder.begin()
    make_folder(folder.record)
    other = subprocess.Popen(["sleep", "60"])
    try:
        note = this_process() | {"process": other.pid, "sites": []}
        (folder.path / "present.json").write_text(json.dumps(note))
        with held(folder.record):  # by a server that begins, in the place of the killed one
            assert commanded("federate", "stop", trial.path)[0] == 4
            assert other.poll() is None
            (folder.path / "present.json").write_text(json.dumps(note | {"process": os.getpid()}))
            found = present(folder.path, folder.record)
            assert found is not None
            assert found.process == os.getpid()
    finally:
        other.kill()
        other.wait()


def test_a_federation_whose_port_is_taken_was_not_begun(tmp_path: Path) -> None:
    trial = signed_trial(tmp_path / "fl")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", trial.made.settings.server.port))
        taken.listen()
        for more in ((), ("--detach",)):
            code, said = commanded("federate", "start", trial.path, *more)
            assert code in (1, 2), said
    assert not ServerFolder.open(trial.made.server).begun
    assert commanded("federate", "sign", trial.path, "--again")[0] == 0
    assert commanded("federate", "resume", trial.path)[0] == 1


def test_a_second_server_takes_nothing_from_the_first(tmp_path: Path) -> None:
    trial = signed_trial(tmp_path / "fl")
    with running(tmp_path / "log", "federate", "start", trial.path) as server:
        server.until("listens on")
        while not ServerFolder.open(trial.made.server).begun:
            assert server.process.poll() is None
        first = ServerFolder.open(trial.made.server).opened.digest
        assert commanded("federate", "sign", trial.path, "--again")[0] == 0
        for more in ((), ("--new",), ("--new", "--detach")):
            code, said = commanded("federate", "start", trial.path, *more)
            assert code == 1, said
        assert ServerFolder.open(trial.made.server).opened.digest == first
        code, said = commanded("federate", "stop", trial.path)
        assert code == 0, said
        assert server.code() == 130, server.said


def test_a_host_that_is_changed_gets_a_certificate_or_is_refused(tmp_path: Path) -> None:
    trial = signed_trial(tmp_path / "fl")
    path, server = trial.made.server / "federation.toml", trial.made.server / "tls" / "server.pem"
    text, before = path.read_text(), trial.invitation("north")
    for host in (" ", "two words", "../elsewhere"):
        path.write_text(text.replace('host = "localhost"', f'host = "{host}"', 1))
        code, said = commanded("federate", "sign", trial.path)
        assert (code, "neither a name nor an address" in said) == (2, True)
        assert trial.invitation("north") == before
    path.write_text(text.replace('host = "localhost"', 'host = "fl.example.org"', 1))
    assert not good_for(server, ["fl.example.org"])
    assert commanded("federate", "sign", trial.path)[0] == 0
    assert good_for(server, ["fl.example.org", "localhost", "127.0.0.1"])
    pem = server.read_bytes()
    assert commanded("federate", "sign", trial.path)[0] == 0
    assert server.read_bytes() == pem, "one that is good stays"


def test_a_site_is_not_renewed_beside_a_damaged_certificate(tmp_path: Path) -> None:
    trial = signed_trial(tmp_path / "fl")
    server, before = trial.made.server / "tls" / "server.pem", trial.invitation("north")
    [card] = write_cards(tmp_path, [trial.sites["north"]])
    server.write_bytes(server.read_bytes()[:100])
    code, said = commanded("federate", "renew", trial.path, "north", card)
    assert code == 2, said
    assert trial.invitation("north") == before
    assert commanded("federate", "renew", trial.path)[0] == 0, "the server's own mends it"
    assert commanded("federate", "renew", trial.path, "north", card)[0] == 0
    assert trial.invitation("north") != before
