"""One `with` sets everything up, as `operations.toml` asks, and takes it down."""

from __future__ import annotations

import json
import logging
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from secure_fl.errors import ConfigError, FileError
from secure_fl.operations import desk
from secure_fl.operations.desk import PAGE, observed
from secure_fl.operations.settings import FILE, OperationsSettings


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def got(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_everything_is_there_while_it_runs_and_gone_after(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    pytest.importorskip("jinja2")
    port = free_port()
    (tmp_path / FILE).write_text(
        f'logs = "json"\nlog = "{tmp_path / "log"}"\nport = {port}\npage = "on"\n'
    )
    with observed(tmp_path, role="server", name="server") as watch:
        watch.turned()
        watch.back("north")
        assert got(port, "/readyz") == (200, "ok\n")
        assert 'secure_fl_peer_connected{peer="north"} 1.0' in got(port, "/metrics")[1]
        assert 'http-equiv="refresh"' in (tmp_path / PAGE).read_text()
    with pytest.raises(OSError):
        got(port, "/healthz")
    assert "north" in (tmp_path / PAGE).read_text()
    assert 'http-equiv="refresh"' not in (tmp_path / PAGE).read_text()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["began", "connected"]


def test_probes_need_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "find_spec", lambda name: None)
    settings = OperationsSettings(port=free_port(), log=str(tmp_path / "log"))
    with observed(tmp_path, role="site", name="north", settings=settings):
        assert got(settings.port, "/healthz")[0] == 200
        status, said = got(settings.port, "/metrics")
    assert status == 501
    assert "secure-fl[metrics]" in said
    assert "no-metrics" in (tmp_path / "log").read_text()
    assert not (tmp_path / PAGE).exists()


def test_what_cannot_be_set_up_leaves_nothing_behind(tmp_path: Path) -> None:
    before = logging.getLogger().handlers[:]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for text, error, said in (
            ("prot = 9100\n", ConfigError, "port"),
            (f"port = {taken.getsockname()[1]}\n", FileError, "cannot be listened on"),
        ):
            (tmp_path / FILE).write_text(text)
            with (
                pytest.raises(error, match=said),
                observed(tmp_path, role="site", name="north"),
            ):
                pass
    assert logging.getLogger().handlers == before


def test_a_page_that_cannot_be_written_at_the_end_fails_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jinja2")
    from secure_fl.operations.status_page import StatusPage

    settings = OperationsSettings(page="on", log=str(tmp_path / "log"))

    def full(*_: object, **__: object) -> None:
        raise FileError("cannot be written", "status.html", "", "make room")

    with observed(tmp_path, role="site", name="north", settings=settings):
        monkeypatch.setattr(StatusPage, "write", full)
    assert "page-not-written" in (tmp_path / "log").read_text()


def test_a_log_lies_in_the_folder_wherever_the_command_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / FILE).write_text('log = "own.log"\n')
    monkeypatch.chdir(tmp_path)
    with observed(Path("site"), role="site", name="north"):
        pass
    assert (tmp_path / "site" / "own.log").exists()
    assert not (tmp_path / "own.log").exists()
