"""Every example is valid, and the ones that need no files of others run."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

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
    sys.modules[spec.name] = module  # dataclasses look there
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


@pytest.mark.parametrize("broken", [False, True])
def test_an_opacus_loop_is_audited(broken: bool) -> None:
    """Few steps on all digits: the claim stands, and falls with half of the noise."""
    example = load("audit_opacus")
    loop = example.OpacusLoop(steps=8, noise=1.0, honest=0.5 if broken else 1.0)
    torch.manual_seed(0)
    found = example.audit(loop, canaries=1000, entropy=random.Random(0).randbytes)
    assert found.alarm is broken
    assert found.claim.epsilon > 1
    if not broken:
        assert found.passed


@pytest.mark.parametrize("broken", [False, True])
def test_a_loop_in_plain_pytorch_is_audited(broken: bool) -> None:
    example = load("audit_pytorch")
    torch.manual_seed(0)
    found = example.audit(example.Loop(honest=0.5 if broken else 1.0))
    assert (found.alarm, found.passed) == (broken, not broken)


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


def hospitals(out: Path, *more: str) -> str:
    """Runs the example of three clinics, with its two kills; what it printed."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "hospitals" / "run.py"), "--out", str(out), *more],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_clinics_go_on_after_kills(tmp_path: Path) -> None:
    pytest.importorskip("grpc")
    told = hospitals(tmp_path / "h", "--direct", "--rounds", "4")
    assert "kill -9 clinic-c" in told
    assert "kill -9 the server" in told
    assert "none in the" in told
    assert "6 releases a client, none of them twice" in told
    assert not (tmp_path / "h").exists()


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("transport", ["session", "messages"])
def test_three_clinics_go_on_after_kills_by_flower(tmp_path: Path, transport: str) -> None:
    pytest.importorskip("flwr")
    pytest.importorskip("grpc")
    told = hospitals(tmp_path / "h", "--transport", transport, "--rounds", "4")
    assert "none of them twice" in told


def test_clinics_are_stopped_before_their_supernodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that runs starts its SuperNode again, which nobody would stop then."""
    from secure_fl.engines.flower.processes import Program

    monkeypatch.syspath_prepend(EXAMPLES / "hospitals")
    order = list[str]()
    monkeypatch.setattr(Program, "stop", lambda _: order.append("node"))
    play = object.__new__(load("hospitals/run").Play)
    play.launch, play.folder = "flower", tmp_path
    play.stage = SimpleNamespace(
        stop_all=lambda: order.append("clinics"), do=lambda *_, **__: order.append("SuperLink")
    )
    play.tidy()
    assert order == ["clinics", "SuperLink", *3 * ["node"]]


def test_the_plan_of_the_clinics_is_what_a_careful_site_accepts() -> None:
    config = load_config(EXAMPLES / "hospitals" / "config.toml")
    config.check_sums(20)
    rules = config.weakest_sums(20)
    assert (config.privacy.unit, config.privacy.epsilon) == ("example", 8.0)
    assert not config.evaluate.enabled
    two_largest = 8 + 6
    assert min(rules.threshold, rules.against_a_lying_server) > two_largest


def test_the_search_for_marks_finds_each_spelling(tmp_path: Path) -> None:
    evidence = load("hospitals/evidence")
    secret, other = os.urandom(32), os.urandom(32)
    for number, spelt in enumerate(
        (secret, secret.hex().encode(), *(b64encode(bytes(n) + secret) for n in range(5)))
    ):
        (tmp_path / f"{number}").write_bytes(os.urandom(3 * number) + spelt + os.urandom(7))
    hits, marks, files = evidence.search({secret, other, bytes(32)}, [tmp_path])
    assert len({hit.partition(" ")[0] for hit in hits}) == files == 7
    assert marks == 2
    assert evidence.search({other}, [tmp_path]) == ([], 1, 7)


def test_the_search_knows_every_key_of_a_site(tmp_path: Path) -> None:
    from secure_fl.crypto.identities import Identity
    from secure_fl.deployment.certificates import new_request

    evidence = load("hospitals/evidence")
    Identity.generate("a", "client").save(tmp_path / "a.identity")
    (tmp_path / "site.key").write_bytes(new_request("a")[1])
    (tmp_path / "state").write_bytes(os.urandom(32))
    found = set(evidence.keys_in(tmp_path))
    assert len(found) == 2 * 2 + 2 + 2
    # in PEM a key's text may be broken by a line's end: one of its halves is whole
    assert len({hit.partition(" ")[0] for hit in evidence.search(found, [tmp_path])[0]}) == 3


def test_a_loop_of_ones_own_is_faster_by_one_import(tmp_path: Path) -> None:
    """The same losses with less memory; how fast is the benchmark's business."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "kernels.py"), "--batch", "1024", "--steps", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    mib = [float(found) for found in re.findall(r"; (\d+) MiB", done.stdout)]
    assert len(mib) == 2
    assert mib[1] < mib[0] / 2
    apart = float(re.findall(r"differ by (\S+) at most", done.stdout)[0])
    assert apart < 1e-5
    assert "times faster" in done.stdout
