"""The status page says what happened, asks for nothing, and runs nothing."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from operations.pems import tls_files
from operations.watched import ROUNDS, Watched

from secure_fl.errors import DependencyError
from secure_fl.federation.place import Place
from secure_fl.operations import desk
from secure_fl.operations.desk import PAGE, observed
from secure_fl.operations.settings import FILE, OperationsSettings
from secure_fl.operations.view import Peer, View
from secure_fl.operations.waits import Wait

pytest.importorskip("jinja2")

from secure_fl.operations.status_page import AGAIN, StatusPage


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def texts(path: Path) -> str:
    """What a reader sees, in one line."""
    body = path.read_text().partition("<body>")[2]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def test_it_says_what_happened(tmp_path: Path) -> None:
    made = Watched(tmp_path)
    page = StatusPage(tmp_path / PAGE, made.server.view, tls_files(tmp_path, days=20))
    made.server.observers = (page,)
    made.run()
    page.write(made.server.view, ends=True)
    shown = texts(tmp_path / PAGE)
    for said in (
        *("toy", "server", "2 of 2", "north, south", "joined: 4 parties", "done"),
        *("own certificate: 20 days", "pool 0 3", "pool 1 1", "upload", "when this process ended"),
    ):
        assert said in shown, said
    rows = re.findall(r"(\d) toy (\d) 1 4 4 0 opened (?:[\d.]+ s|\d+ min)", shown)
    assert rows == [(str(number), str(number + 1)) for number in reversed(range(ROUNDS))]


def test_it_asks_for_nothing_and_runs_nothing(tmp_path: Path) -> None:
    view = View("server", "<script>alert(1)</script>", 0.0, place=Place(0, 0))
    view.peers["<img src=x onerror=alert(2)>"] = Peer(there=True, since=0.0)
    view.refusals["</table><script>"] = 1
    StatusPage(tmp_path / PAGE, view)
    data = (tmp_path / PAGE).read_text()
    assert "default-src 'none'" in data
    assert "<script" not in data
    assert "<img" not in data
    assert not re.search(r"https?://|//|@import|url\(|<link|<iframe|<form", data)
    assert stat.S_IMODE((tmp_path / PAGE).stat().st_mode) == 0o600


def test_it_names_who_is_waited_for(tmp_path: Path) -> None:
    clock, view = Clock(), View("server", "server", 0.0)
    page = StatusPage(tmp_path / PAGE, view, clock=clock)
    assert "Waits for" not in texts(tmp_path / PAGE)
    view.waits = {"upload": Wait(("north.a", "north.b"), 86_400.0)}
    clock.now += AGAIN
    page.turned(view)
    assert "upload 1970-01-02 00:00:00 UTC 2 north.a, north.b" in texts(tmp_path / PAGE)
    view.over = True
    page.write(view)
    assert "north.a" not in texts(tmp_path / PAGE)


def test_it_is_read_again_while_the_process_lives(tmp_path: Path) -> None:
    view = View("server", "server", 0.0)
    page = StatusPage(tmp_path / PAGE, view)
    again = f'<meta http-equiv="refresh" content="{AGAIN}">'
    assert again in (tmp_path / PAGE).read_text()
    page.write(view, ends=True)
    assert 'http-equiv="refresh"' not in (tmp_path / PAGE).read_text()


def test_it_is_written_anew_when_something_happens_and_not_all_the_time(tmp_path: Path) -> None:
    clock, view = Clock(), View("server", "server", 0.0)
    page = StatusPage(tmp_path / PAGE, view, clock=clock)

    def written() -> bool:
        before = (tmp_path / PAGE).stat().st_ino
        page.turned(view)
        return (tmp_path / PAGE).stat().st_ino != before

    assert not written()
    view.peers["north"] = Peer(there=True, since=0.0)
    page.peer(view, "north", "")
    clock.now += AGAIN / 2
    assert not written()
    clock.now += AGAIN
    assert written()
    assert "north" in texts(tmp_path / PAGE)
    clock.now += AGAIN + 1
    assert not written()
    clock.now += 60
    assert written()


def test_a_federation_that_failed_says_so(tmp_path: Path) -> None:
    view = View("server", "server", 0.0, over=True, failed="too-few")
    StatusPage(tmp_path / PAGE, view)
    assert "failed: too-few" in texts(tmp_path / PAGE)


def test_without_jinja2_a_page_that_is_asked_for_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    on = OperationsSettings(page="on")
    with (
        pytest.raises(DependencyError, match=r"pip install 'secure-fl\[report\]'"),
        observed(tmp_path, role="site", name="north", settings=on),
    ):
        pass
    monkeypatch.setattr(desk, "find_spec", lambda name: None)
    with observed(tmp_path, role="site", name="north", settings=OperationsSettings()):
        assert not (tmp_path / PAGE).exists()


def test_settings_are_read_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('level = "warning"\npage = "off"\n')
    found = OperationsSettings.of(tmp_path, logs="json", level="debug")
    assert (found.level, found.logs, found.page) == ("warning", "json", "off")
    assert OperationsSettings.of(tmp_path / "none").port == 0
