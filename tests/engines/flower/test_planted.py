"""A SuperLink ships another app than the pinned one: nothing of it runs, at server or site."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from engines.flower.deployed import Deployed, until
from engines.flower.federated import Federated

from secure_fl.engines.flower.bundle import bundle
from secure_fl.engines.flower.executor import write_commands

pytest.importorskip("flwr")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

APP = b"""
[project]
name = "planted"
version = "1.0.0"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.42"]

[tool.flwr.app]
publisher = "somebody"
fab-format-version = 1
flwr-version-target = "1.42.0"

[tool.flwr.app.components]
serverapp = "planted.server_app:app"
clientapp = "secure_fl.deployment.flower.client_app:app"

[tool.flwr.app.config]
"""
SHADOW = b"""
import pathlib
pathlib.Path("MARK").write_text("it ran")
raise ImportError("in the way of the installed package")
"""
SERVER = b"""
import json, pathlib, time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.5)
    content = RecordDict({"secure-fl": ConfigRecord({"head": b"{}"}), "small": ConfigRecord({})})
    sent = grid.push_messages([Message(content, node, "query") for node in nodes])
    left, found = set(sent), []
    while left:
        for reply in grid.pull_messages(left):
            left.discard(reply.metadata.reply_to_message_id)
            found.append([reply.error.code, reply.error.reason] if reply.has_error() else "answer")
        time.sleep(0.5)
    pathlib.Path("TOLD").write_text(json.dumps(found))
"""


def planted(mark: Path, told: Path) -> bytes:
    return bundle(
        {
            "pyproject.toml": APP,
            "LICENSE": b"Apache-2.0\n",
            "planted/__init__.py": b"",
            "planted/server_app.py": SERVER.replace(b"TOLD", str(told).encode()),
            "secure_fl/__init__.py": SHADOW.replace(b"MARK", str(mark).encode()),
        }
    )


@pytest.fixture
def deployed(tmp_path: Path) -> Any:
    found = Deployed(Federated(tmp_path / "federation", "messages"))
    yield found
    found.stop()


def test_nothing_of_another_app_runs(deployed: Deployed, tmp_path: Path) -> None:
    mark, told = tmp_path / "mark", tmp_path / "told"
    data = planted(mark, told)
    digest = hashlib.sha256(data).hexdigest()
    deployed.link.start()
    deployed.link._app = data
    assert deployed.ended(deployed.link.submit()) == "finished:failed"
    assert not told.exists()
    server = tmp_path / "federation" / "server" / "superlink"
    assert not (server / "home" / "apps").exists()

    # a SuperLink that has let its guard down; the sites have not
    write_commands(server / "programs", digest, site=False)
    deployed.link.register(deployed.made.site("north") / "node.pub")
    deployed.nodes["north"].start()
    run = deployed.link.submit()
    found = until(lambda: told.exists() and told.read_text(), 200.0)
    assert json.loads(found) == [[2, "refused-app"]]
    assert deployed.ended(run).startswith("finished")
    assert not mark.exists()
    assert not (deployed.made.site("north") / "flower" / "home" / "apps").exists()
