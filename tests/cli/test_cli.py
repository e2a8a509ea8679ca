"""The command line as its user meets it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli.commands import secure_fl

COMMAND = [sys.executable, "-m", "secure_fl.cli.main"]
TINY = """
name = "tiny"
[partition]
clients = 6
groups = 2
[model]
features = 16
[pretrain]
rounds = 2
local_epochs = 1
[pools]
count = 2
rounds = 3
local_epochs = 1
[evaluate]
probe_epochs = 2
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(TINY)
    secure_fl("run", folder / "tiny.toml", "--out", folder / "run")
    return folder


def test_help_teaches() -> None:
    tour = secure_fl("--help").stdout
    for step in ("doctor", "init", "data", "run", "report", "assign", "export"):
        assert f"secure-fl {step}" in tour or f"  {step}" in tour
    for command in ("run", "data", "init", "export", "assign", "report", "doctor"):
        assert "--help" in secure_fl(command, "--help").stdout
    assert secure_fl("--version").stdout.startswith("secure-fl ")


def test_run_reports_progress_protection_and_results(finished: Path) -> None:
    out = finished / "again"
    text = secure_fl("run", finished / "tiny.toml", "--out", out, "--set", "seed=1").stdout
    for part in (
        "pretrain 1/2",
        "sketch",
        "cluster 3/3",
        "evaluate 1/1",
        "loss",
        "accuracy",
        "pools",
        "left 0:",
        "NOT PROTECTED",
        f"wrote {out}",
        "for the sketches alone",
    ):
        assert part in text
    assert "\x1b[" not in text


def test_what_a_run_says_of_its_sketches_covers_nothing_else(finished: Path) -> None:
    told = secure_fl("privacy", "verify", finished / "run").stdout
    assert "this is for the sketches alone" in told
    assert "have no differential privacy" in told


def test_quiet_prints_nothing(finished: Path) -> None:
    done = secure_fl(
        "run",
        finished / "tiny.toml",
        "--out",
        finished / "quiet",
        "--quiet",
        "--set",
        "pools.enabled=false",
    )
    assert done.stdout == done.stderr == ""
    assert (finished / "quiet" / "summary.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "secure-fl init"),
        (["run", "absent.toml"], "no such file"),
        (["run", "tiny.toml", "--set", "pools.count=0"], "pools.count"),
        (["run", "tiny.toml", "--set", "partition.clients=9999"], "more clients than"),
        (["run", "tiny.toml", "--set", "data.sources.0.name=mnist"], "needs a folder"),
        (["run", "--resume", "absent"], "holds no run"),
        (["run", "tiny.toml", "--resume", "run"], "--resume alone"),
        (["run", "tiny.toml", "--out", "run"], "already holds something"),
        (["init", "tiny.toml"], "exists already"),
        (["report", "absent"], "holds no run"),
        (["assign", "run", "absent.npz"], "no such file"),
        (["data", "tiny.toml", "--plot", "who.txt"], "end the name in .png"),
        (["data", "tiny.toml", "--plot", "absent/who.png"], "check the path"),
        (["run", "tiny.toml", "--out", "tiny.toml/run"], "check the path"),
    ],
)
def test_mistakes_get_a_message_a_remedy_and_code_2(
    finished: Path, arguments: list[str], message: str
) -> None:
    done = secure_fl(*arguments, code=2, cwd=finished)
    assert message in done.stderr
    assert "Remedy:" in done.stderr


def test_init_data_and_schema(tmp_path: Path) -> None:
    secure_fl("init", tmp_path / "new.toml", "--schema")
    assert json.loads((tmp_path / "new.schema.json").read_text())["title"] == "FederationConfig"
    pytest.importorskip("matplotlib")
    text = secure_fl("data", tmp_path / "new.toml", "--plot", tmp_path / "who.png").stdout
    assert "rotated 120°" in text
    assert "label skew" in text
    assert (tmp_path / "who.png").read_bytes().startswith(b"\x89PNG")


def test_doctor() -> None:
    text = secure_fl("doctor").stdout
    for part in ("torch", "digits", "device: ", "contrastive losses: "):
        assert part in text


def test_report_is_one_self_contained_page(finished: Path) -> None:
    pytest.importorskip("matplotlib")
    secure_fl("report", finished / "run", "--out", finished / "page.html")
    page = (finished / "page.html").read_text()
    assert page.count("data:image/svg+xml;base64,") >= 5
    assert "http://" not in page
    assert "https://" not in page
    assert "Not protected" in page
    assert "sketches alone ε = " in page
    assert "covers the sketches that start the pools, and nothing else" in page
    assert "ε ≤" not in page
    secure_fl("report", finished / "run", "--to", finished / "former.html")
    assert (finished / "former.html").read_text() == page, (
        "the option's former name goes on working"
    )
    assert (
        "--to"
        in secure_fl("report", finished / "run", "--out", "a.html", "--to", "b.html", code=2).stderr
    )


def test_export(finished: Path) -> None:
    secure_fl("export", finished / "run", "--out", finished / "models")
    assert {path.name for path in (finished / "models").iterdir()} == {
        "encoder.safetensors",
        "pools.safetensors",
        "model.json",
        "config.toml",
    }
    assert "choices" not in json.loads((finished / "models" / "model.json").read_text()), (
        "who uses which pool stays behind"
    )
    secure_fl("export", finished / "run", "--out", finished / "models", code=2)
    secure_fl("export", finished / "run", "--to", finished / "earlier")  # the option's earlier name
    assert (finished / "earlier" / "model.json").is_file()
    encoder = finished / "run" / "model" / "encoder.safetensors"
    encoder.rename(finished / "away")
    assert (
        "encoder.safetensors"
        in secure_fl("export", finished / "run", "--out", finished / "half", code=2).stderr
    )
    assert not (finished / "half").exists()
    (finished / "away").rename(encoder)


def test_assigning_newcomers(finished: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = np.rot90(digits.images[:300] / 16, 2, (1, 2))
    np.savez(finished / "new.npz", x=x, y=digits.target[:300])
    np.savez(finished / "unlabelled.npz", x=x)
    for name, by, column in (("new", "loss", 0), ("unlabelled", "sketch distance", 3)):
        secure_fl(
            "assign", finished / "run", finished / f"{name}.npz", "--out", finished / f"{name}.json"
        )
        answer = json.loads((finished / f"{name}.json").read_text())
        decisive = [scores[column] for scores in answer["scores"]]
        assert (answer["by"], answer["examples"]) == (by, 300)
        # Which pool that is follows from noise: the run released its sketches.
        assert answer["pool"] == decisive.index(min(decisive))
    np.savez(finished / "wrong.npz", x=np.zeros((3, 1, 9, 9)))
    assert (
        "not of shape"
        in secure_fl("assign", finished / "run", finished / "wrong.npz", code=2).stderr
    )


def test_other_forms_of_export(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    said = secure_fl("export", finished / "run", "--out", tmp_path / "hub", "--hf", "--onnx").stdout
    names = {path.name for path in (tmp_path / "hub").iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "model.safetensors",
        "encoder.onnx",
        "pool-0.onnx",
        "pool-1.onnx",
    }
    assert all(name in said for name in names)
    assert "--to" not in secure_fl("export", "--help").stdout
    card = finished / "run" / "model" / "model.json"
    whole = card.read_text()
    card.write_text(json.dumps({**json.loads(whole), "custom_encoder": True}))
    assert (
        "from Python: secure_fl.export.export"
        in secure_fl("export", finished / "run", "--out", tmp_path / "own", "--onnx", code=2).stderr
    )
    card.write_text(whole)


def test_ctrl_c_leaves_a_folder_that_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    """In the open: two protected runs differ in their sketches' noise."""
    (tmp_path / "tiny.toml").write_text(TINY + '[security]\nprotection = "plain"\n')
    secure_fl("run", tmp_path / "tiny.toml", "--out", tmp_path / "whole")
    command = [*COMMAND, "run", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("checkpoints/0*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    if process.returncode != 0:
        assert process.returncode == 130
        assert "--resume" in stderr
    secure_fl("run", "--resume", tmp_path / "run")
    summaries = [
        json.loads((tmp_path / name / "summary.json").read_text()) for name in ("run", "whole")
    ]
    for summary in summaries:
        del summary["costs"]
    assert summaries[0] == summaries[1]
