"""A site that Flower launches, with Flower's programs played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deployment.site.three_sites import make_three

from secure_fl.deployment.invitation import Invitation
from secure_fl.deployment.settings import Deployment
from secure_fl.deployment.site import by_flower
from secure_fl.deployment.site.by_flower import ByFlower
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.site.ways import Outcome
from secure_fl.engines.flower.door import Question, ask
from secure_fl.errors import DeploymentError

APP = "a" * 64


class Node:
    """In the place of a SuperNode."""

    def __init__(self, *given: Any, app: str) -> None:
        self.given, self.app, self.calls, self.running = given, app, list[str](), False

    def start(self, seconds: float) -> None:
        self.calls.append("start")
        self.running = True

    def stop(self) -> None:
        self.calls.append("stop")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteFolder:
    monkeypatch.setattr(by_flower, "SuperNode", Node)
    monkeypatch.setattr(by_flower, "app_digest", lambda: APP)
    monkeypatch.setattr(by_flower, "session_link", lambda *_: "a link")
    folder = SiteFolder.open(make_three(tmp_path).folder("hospital-1").path)
    folder.pins_file.write_text(folder.pins.model_copy(update={"app": APP}).text())
    return folder


def way_of(folder: SiteFolder, **settings: Any) -> ByFlower:
    invitation: Invitation = folder.invitation
    found = Deployment(**{"superlink": {"host": "link.example.org", "port": 9092}, **settings})
    return ByFlower(folder, replace(invitation, settings=found), ("hospital-1.person-01",), 1 << 20)


def never() -> bool:
    return False


def test_another_app_than_the_pinned_starts_nothing(
    folder: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_flower, "app_digest", lambda: "b" * 64)
    with pytest.raises(DeploymentError, match="another one is pinned"):
        way_of(folder)
    assert not folder.door.exists()


def in_thread(work: Callable[[], object]) -> Callable[[], object]:
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    asked = pool.submit(work)
    pool.shutdown(wait=False)
    return lambda: asked.result(30)


def test_a_site_begins_when_the_app_asks_and_tells_it_the_end(folder: SiteFolder) -> None:
    way = way_of(folder)
    node = way._node
    assert isinstance(node, Node)
    assert node.given[1] == "link.example.org:9092"
    assert node.app == APP
    try:
        answer = in_thread(lambda: ask(folder.path, Question("session", "federation")))
        assert way.begin(never, at_once=False) == "a link"
        way.finish(Outcome("failed", "too-few"))
        told = answer()
        assert isinstance(told, tuple)
        assert told[0].code == "failed"
    finally:
        way.close()
    assert node.calls == ["stop", "start", "stop"]
    assert not folder.door.exists()


def test_a_site_that_is_under_way_dials_at_once_and_one_that_is_stopped_never(
    folder: SiteFolder,
) -> None:
    way = way_of(folder)
    try:
        assert way.begin(lambda: True, at_once=False) is None
        assert way.begin(never, at_once=True) == "a link"
    finally:
        way.close()


def test_messages_come_by_the_door(folder: SiteFolder) -> None:
    way = way_of(folder, transport="messages")
    try:
        link = way.begin(never, at_once=False)
        assert type(link).__name__ == "DoorLink"
        assert link is not None
        link.close()
    finally:
        way.close()


def test_a_supernode_that_ended_is_started_again(
    folder: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends by itself where its key is not enrolled yet; nothing is tried all the while."""
    way, now = way_of(folder), [0.0]
    monkeypatch.setattr(by_flower.time, "monotonic", lambda: now[0])
    node = way._node
    assert isinstance(node, Node)
    started = list[int]()
    for seconds in (0, 1, 5, 11, 12, 30):
        now[0], node.running = float(seconds), False
        way.tend()
        started.append(node.calls.count("start"))
    way.close()
    assert started == [1, 1, 1, 2, 2, 3]
