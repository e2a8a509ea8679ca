"""Every example is valid, and the ones that need no files of others run."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from secure_fl.config_file import load_config

EXAMPLES = Path(__file__).parents[1] / "examples"
CONFIGS = sorted((EXAMPLES / "configs").glob("*.toml"))
SHORT = [
    "--set",
    "pretrain.rounds=1",
    "--set",
    "pretrain.local_epochs=1",
    "--set",
    "evaluate.enabled=false",
]
POOLS = ["--set", "pools.rounds=3", "--set", "pools.local_epochs=1", "--set", "model.features=16"]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str, cwd: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONWARNINGS": "error::UserWarning,error::RuntimeWarning,error::FutureWarning",
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configurations_are_valid_and_named_after_their_file(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_digits_runs(tmp_path: Path) -> None:
    run(
        "-m",
        "secure_fl.cli.main",
        "run",
        str(EXAMPLES / "configs" / "digits.toml"),
        *SHORT,
        *POOLS,
        cwd=tmp_path,
    )
    assert (tmp_path / "runs" / "digits" / "summary.json").is_file()


@pytest.mark.slow
def test_a_private_run_keeps_its_budget(tmp_path: Path) -> None:
    """`private-pools.toml` on the digits that come with scikit-learn, so that no file is needed."""
    source = (EXAMPLES / "configs" / "private-pools.toml").read_text()
    for before, after in (
        ("fashion_mnist", "digits"),
        ("limit = 16000\n", ""),
        ("batch_size = 400", "batch_size = 40"),
    ):
        assert before in source
        source = source.replace(before, after)
    (tmp_path / "private-pools.toml").write_text(source)
    run(
        "-m",
        "secure_fl.cli.main",
        "run",
        "private-pools.toml",
        *SHORT,
        *POOLS,
        "--set",
        "pools.warmup_rounds=1",
        cwd=tmp_path,
    )
    summary = json.loads((tmp_path / "runs" / "private-pools" / "summary.json").read_text())
    spent = [claim["epsilon"] for claim in summary["privacy"]["claims"]]
    assert 0 < max(spent) <= 8
    run("-m", "secure_fl.cli.main", "privacy", "verify", "runs/private-pools", cwd=tmp_path)


def test_series_runs_from_a_users_file(tmp_path: Path) -> None:
    run(str(EXAMPLES / "make_series.py"), cwd=tmp_path)
    run(
        "-m",
        "secure_fl.cli.main",
        "run",
        str(EXAMPLES / "configs" / "series.toml"),
        *SHORT,
        *POOLS,
        cwd=tmp_path,
    )


def test_own_model_is_a_matter_of_ten_lines() -> None:
    source = (EXAMPLES / "own_model.py").read_text().partition("if __name__")[0]
    documented, *statements = ast.parse(source).body
    assert isinstance(documented, ast.Expr)
    assert len(statements) <= 10


@pytest.mark.slow
def test_own_model_runs(tmp_path: Path) -> None:
    run(str(EXAMPLES / "own_model.py"), cwd=tmp_path)


def test_the_demo_compares_runs_that_differ_in_their_start_only_and_a_private_one() -> None:
    demo = load("demo")
    configs = demo.configurations(Path("demo"))
    unprotected = configs.pop(demo.OPEN)
    private = configs.pop(demo.PRIVATE)
    assert unprotected.security.protection == "plain"
    assert (
        private.privacy.unit,
        private.privacy.epsilon,
        private.pretrain.mode,
        private.pools.start,
    ) == ("example", 8.0, "none", "sketch")
    assert private.model_dump(
        include={"seed", "data", "partition", "views"}
    ) == demo.BASE.model_dump(include={"seed", "data", "partition", "views"})
    assert all(config.security.protection == "bfv+masked" for config in configs.values())
    starts = {
        name: (config.pools.count, config.pools.start, config.pretrain.mode)
        for name, config in configs.items()
    }
    assert starts == {
        "SSD encoder": (4, "sketch", "federated"),
        "global model": (1, "random", "none"),
        "random start": (4, "random", "none"),
        "SSD start": (4, "pretrained", "load"),
        "sketch start": (4, "sketch", "load"),
    }
    common = [
        config.model_dump(include={"seed", "data", "partition", "model", "views"})
        for config in configs.values()
    ]
    assert all(tables == common[0] for tables in common)


def test_the_server_process_of_the_example_holds_no_key_and_opens_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "keyless_server.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    held = done.stdout.partition("it holds ")[2].splitlines()[0]
    assert "Adder" in held
    assert not {"Opened", "SumOpener", "BfvHolder", "SecretKey"} & set(held.split(", "))
    assert "counts [1, 2, 1], opened sums by pool {1: 7}" in done.stdout


def test_the_ten_lines_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(
        r"```python\n(.*?)```",
        (EXAMPLES.parent / "README.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert len(blocks) == 1
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks[0], "README.md", "exec"), {"__name__": "readme"})
    accuracy = float(capsys.readouterr().out.split()[0])
    assert accuracy > 0.8


@pytest.mark.parametrize(
    "path",
    sorted((EXAMPLES / "first-hour").glob("*/*.toml")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_the_first_hours_configurations_are_valid(path: Path) -> None:
    config = load_config(path)
    assert config.privacy.unit == ("example" if path.stem == "private" else "none")
