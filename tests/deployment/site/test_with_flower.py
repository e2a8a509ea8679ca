"""Three sites that Flower launches: its own SuperLink and SuperNodes, the commands as people type
them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment.site.site_process import SiteProcess, command, environment
from deployment.site.three_sites import Made3, free_port, make_three

pytest.importorskip("flwr")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def made(tmp_path: Path) -> Made3:
    link = {"host": "localhost", "port": free_port(), "bind": "127.0.0.1"}
    return make_three(tmp_path, settings={"launch": "flower", "superlink": link})


@pytest.fixture
def sites(made: Made3) -> Iterator[list[SiteProcess]]:
    """They are there before the SuperLink knows their keys."""
    found = [SiteProcess(made.root / name) for name in made.sites]
    yield found
    for site in found:
        site.end()
    line = command("federate", "stop", made.coordinator.path)
    subprocess.run(line, env=environment(), check=False, capture_output=True, timeout=60)


def test_sites_that_flower_launches(made: Made3, sites: list[SiteProcess]) -> None:
    line = command("federate", "start", made.coordinator.path)
    done = subprocess.run(
        line, env=environment(), check=False, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [site.wait(60) for site in sites] == [0, 0, 0]
    folders = [made.folder(name) for name in made.sites]
    models = {(each.model / "model" / "pools.safetensors").read_bytes() for each in folders}
    assert len(models) == 1
