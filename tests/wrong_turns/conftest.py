"""Runs that are over, that were cut short, and folders that are none."""

from __future__ import annotations

import pytest
from helpers import StopAfter
from wrong_turns.finished_runs import Runs, federation


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    done = federation().run(folder / "done")
    with pytest.raises(KeyboardInterrupt):
        federation(callbacks=[StopAfter(1)]).run(folder / "half")
    bare = federation(pools={"enabled": False}, pretrain={"rounds": 1}).run(folder / "bare")
    (folder / "full").mkdir()
    (folder / "empty").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")
    (folder / "file").write_text("mine")
    return Runs(folder, done, bare)
