"""Runs that pages are made of."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

import pytest
from helpers import tiny_config
from report.pages import run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pools and one global model in the open, and a private run under masks."""
    place = tmp_path_factory.mktemp("runs")
    private = {"unit": "example", "noise": 4.0, "epsilon": 60.0}
    configs = {
        "pools": tiny_config(pretrain={"rounds": 1}),
        "global": tiny_config(pretrain={"rounds": 1}, pools={"count": 1}),
        "private": tiny_config(
            pretrain={"rounds": 1},
            pools={"rounds": 2},
            security={"protection": "masked"},
            partition={"clients": 6},
            privacy=private,
            data={"classes": 3},
        ).model_copy(update={"name": "ward"}),
    }
    return {name: run(place / name, config) for name, config in configs.items()}


@pytest.fixture
def copies(runs: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The same, to be edited."""
    return {
        name: Path(copytree(folder, tmp_path / "copies" / name)) for name, folder in runs.items()
    }
