"""Checking a run, and making one longer, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.conftest import Command

SMALL = """
name = "small"
[[data.sources]]
name = "digits"
limit = 300
[partition]
clients = 6
groups = 2
[model]
features = 16
[pretrain]
rounds = 2
local_epochs = 1
batch_size = 32
[pools]
count = 2
rounds = 2
local_epochs = 1
warmup_rounds = 1
[evaluate]
probe_epochs = 2
knn = 20
[security]
protection = "masked"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("check")
    (made / "small.toml").write_text(SMALL)
    return made


@pytest.mark.parametrize("columns", [pytest.param(40, marks=pytest.mark.slow), 80])
def test_a_check_says_what_a_run_takes_and_keeps_to_the_page(
    folder: Path, command: Command, columns: int
) -> None:
    told = command("check", "small.toml", cwd=folder, COLUMNS=str(columns)).stdout
    assert max(map(len, told.splitlines())) <= columns
    for part in ("pretrain", "sketch", "cluster", "estimates", "ok:", "memory"):
        assert part in told
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["pools.participation=0.3"], "pools.participation"),
        (["partition.clients=2"], "partition.clients"),
        (["protection=bfv"], "did you mean security.protection?"),
        (["pretrain.mode=load", "pretrain.load_from=nowhere"], "holds no run"),
        (["privacy.unit=example", "privacy.noise=0.3", "privacy.epsilon=2.0"], "privacy.noise"),
        (
            [
                "privacy.unit=client",
                "pools.start=pretrained",
                "privacy.epsilon=0.01",
                "privacy.min_clients=4",
            ],
            "privacy.epsilon",
        ),
    ],
)
def test_what_would_fail_is_refused_by_check_and_run_alike(
    folder: Path, command: Command, settings: list[str], message: str
) -> None:
    chosen = [part for setting in settings for part in ("--set", setting)]
    assert (
        message
        in command("run", "small.toml", "--out", "refused", *chosen, cwd=folder, code=2).stderr
    )
    assert not (folder / "refused").exists()
    if message == "privacy.noise":
        assert message in command("check", "small.toml", *chosen, cwd=folder, code=2).stderr


def test_a_run_says_what_it_takes_and_can_be_made_longer(folder: Path, command: Command) -> None:
    told = command(
        "run", "small.toml", "--out", "run", "--set", "pretrain.batch_size=200", cwd=folder
    )
    assert "about to send" in told.stdout
    assert "note: pretrain.batch_size = 200" in told.stderr
    longer = command("run", "--resume", "run", "--set", "pools.rounds=3", cwd=folder)
    assert "cluster 3/3" in longer.stdout
    assert (
        json.loads((folder / "run" / "summary.json").read_text())["costs"]["cluster"]["rounds"] == 3
    )
    refused = command(
        "run",
        "--resume",
        "run",
        "--set",
        "pools.rounds=4",
        "--set",
        "pools.lr=0.3",
        cwd=folder,
        code=2,
    ).stderr
    assert "differs in pools.lr" in refused
    assert (
        "3 rounds are done"
        in command("run", "--resume", "run", "--set", "pools.rounds=2", cwd=folder, code=2).stderr
    )
    assert "--resume FOLDER --set pools.rounds=20" in " ".join(
        command("run", "--help").stdout.split()
    )
