"""Budgets and ledgers on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.conftest import Command

from secure_fl.privacy.ledger import PrivacyLedger

PRIVATE = """
name = "private"
[partition]
clients = 4
groups = 2
[pretrain]
rounds = 1
local_epochs = 1
[pools]
count = 2
rounds = 2
local_epochs = 1
warmup_rounds = 1
[evaluate]
enabled = false
[security]
protection = "plain"
[privacy]
unit = "example"
noise = 3.0
epsilon = 20.0
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, command: Command) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("private")
    (folder / "private.toml").write_text(PRIVATE)
    told = command("run", folder / "private.toml", "--out", folder / "run").stdout
    return folder, told


def test_a_private_run_says_what_it_may_spend_and_what_it_spent(
    finished: tuple[Path, str], command: Command
) -> None:
    folder, told = finished
    assert "privacy budget: ε = 20, δ = 1e-05, example level, zero-out" in told
    assert "privacy spent: ε = " in told
    assert "  ε " in told
    assert "no differential privacy" not in told
    assert not [word for word in ("accuracy", "pools in use", "loss ") if word in told], (
        "nothing that was measured is printed either"
    )
    page = command("report", folder / "run").stdout
    assert "wrote" in page
    html = (folder / "run" / "report.html").read_text(encoding="utf-8")
    assert "ε" in html
    assert "other clients and the public model" in html


def test_the_ledger_is_recomputed_and_a_changed_one_is_refused(
    finished: tuple[Path, str], command: Command
) -> None:
    folder, _ = finished
    assert "rest on a client's word" in command("privacy", "verify", folder / "run").stdout
    ledger = folder / "run" / "ledger.json"
    kept = ledger.read_text(encoding="utf-8")
    try:
        content = json.loads(kept)
        content["releases"] = content["releases"][1:]
        ledger.write_text(json.dumps(content), encoding="utf-8")
        assert (
            "changed since it was written"
            in command("privacy", "verify", folder / "run", code=2).stderr
        )
    finally:
        ledger.write_text(kept, encoding="utf-8")


def test_a_ledger_that_lost_releases_or_says_less_than_the_summary_is_found(
    finished: tuple[Path, str], command: Command
) -> None:
    folder, _ = finished
    kept = {
        path: path.read_bytes()
        for path in (folder / "run" / "ledger.json", folder / "run" / "summary.json")
    }
    ledger, summary = kept
    whole = PrivacyLedger.load(ledger)
    shorter = PrivacyLedger(whole.budget)
    for entry in json.loads(ledger.read_text())["releases"][:-1]:
        shorter.record(next(release for release in whole.releases if release.key == entry["key"]))
    try:
        shorter.save(ledger)
        told = command("privacy", "verify", folder / "run", code=1).stderr
        assert "has lost releases: metrics.jsonl counts" in told
        assert "has lost releases: the last checkpoint counts" in told
        assert "has lost releases: summary.json counts" in told
        ledger.write_bytes(kept[ledger])
        content = json.loads(kept[summary])
        content["privacy"]["epsilon"] /= 2
        summary.write_text(json.dumps(content))
        assert "summary.json states" in command("privacy", "verify", folder / "run", code=1).stderr
    finally:
        for path, data in kept.items():
            path.write_bytes(data)


def test_a_plan_says_noise_and_rounds_before_any_training(tmp_path: Path, command: Command) -> None:
    (tmp_path / "plan.toml").write_text(PRIVATE)
    told = command("privacy", "plan", tmp_path / "plan.toml").stdout
    assert "pre-training rounds that fit" in told
    assert "3.000" in told
    others = ("privacy.unit=client", "privacy.epsilon=100", "privacy.min_clients=3")
    settings = [f"--set={each}" for each in (*others, "pools.start=pretrained")]
    clients = command("privacy", "plan", tmp_path / "plan.toml", *settings).stdout
    assert "pool of one passes" in clients
    assert "the run would spend" in clients
    assert (
        "no differential privacy to plan"
        in command(
            "privacy", "plan", tmp_path / "plan.toml", "--set", "privacy.unit=none", code=2
        ).stderr
    )


def test_a_plan_counts_what_a_loaded_encoder_brings_along(
    finished: tuple[Path, str], command: Command
) -> None:
    folder, _ = finished
    settings = ["--set", "pretrain.mode=load", "--set", f"pretrain.load_from={folder / 'run'}"]
    told = command("privacy", "plan", folder / "private.toml", *settings).stdout
    spent = json.loads((folder / "run" / "summary.json").read_text())["privacy"]["epsilon"]
    planned = [
        float(line.split()[-2]) for line in told.splitlines() if line.strip().startswith("0 ")
    ]
    assert planned
    assert planned[0] > spent


@pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json", "checkpoints"])
def test_a_finished_run_without_a_record_of_its_ledger_is_found(
    name: str, finished: tuple[Path, str], command: Command
) -> None:
    path = finished[0] / "run" / name
    aside = path.rename(finished[0] / name)
    if name == "summary.json":
        said = json.loads(aside.read_text())
        path.write_text(json.dumps({each: said[each] for each in said if each != "privacy"}))
    try:
        told = " ".join(command("privacy", "verify", finished[0] / "run", code=1).stderr.split())
        assert (
            f"{'the last checkpoint' if name == 'checkpoints' else name} does not count the "
            "ledger's releases" in told
        )
    finally:
        aside.replace(path)
