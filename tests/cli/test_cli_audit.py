"""`secure-fl audit`: its exit codes, what it prints and writes, and that it can be stopped."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from audit.suite import toys
from audit.suite.in_process import here

from secure_fl import Dataset, Federation
from secure_fl.audit.suite import planning, self_test
from secure_fl.audit.suite.document import read_audit
from secure_fl.config_file import dump_config
from secure_fl.errors import AuditError, ConfigError, RunFolderError, SecureFLError

Audit = Callable[..., Any]


@pytest.fixture(scope="module")
def invoke() -> Callable[[list[str]], Any]:
    """The command line in this process; what its libraries warn of is theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from typer.testing import CliRunner

        from secure_fl.cli.main import app

    return lambda line: CliRunner().invoke(app, line)


@pytest.fixture
def audited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, invoke: Callable[[list[str]], Any]
) -> Audit:
    """Audit with these toys as the only checks, in this process, within a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object, checks: tuple[str, ...] = ("HOLDS",), code: int = 0) -> Any:
        found = tuple(f"audit.suite.toys:{name}" for name in checks)
        monkeypatch.setattr(planning, "check_addresses", lambda: found)
        line = [
            "audit",
            *map(str, arguments),
            *([] if "--self-test" in arguments else ["--jobs=1"]),
        ]
        done = invoke(line)
        refused = isinstance(done.exception, SecureFLError)
        assert (2 if refused else done.exit_code) == code, done.output
        return done

    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(dump_config(toys.quick()))
    return path


def test_what_held_and_what_is_broken(audited: Audit, config: Path, tmp_path: Path) -> None:
    done = audited(config, "--out", "there", "--seed", 7)
    assert "about 1 s in all, one after the other" in done.stderr
    assert "1/1 holds: held: seen at seed 7" in done.stderr
    assert "wrote there/audit.json" in done.stdout
    made = read_audit(tmp_path / "there")
    assert made is not None
    assert (made.seed, made.verdict, made.subject.kind) == (7, "held", "configuration")
    checks = ("HOLDS", "BREAKS", "RAISES", "NOT_HERE")
    done = audited(config, "--out", "there", "--seed", 7, checks=checks, code=1)
    assert "holds: kept from before" in done.stderr
    assert "1 held, 1 broken, 1 not tried" in done.stdout
    assert "there are no pools" in done.stdout
    for row in ("holds   server   held", "breaks  server   broken", "raises           not tried"):
        assert row in done.stdout
    done = audited(config, "--out", "there", "--only", "holds", checks=checks)
    assert "1 held" in done.stdout, "the exit code is of what was asked for"
    assert audited(config, checks=("HOLDS", "RAISES"), code=3)
    assert (tmp_path / "runs" / "secure-fl-audit" / "audit.json").is_file()
    assert audited(config, checks=("NOT_HERE",), code=3), "nothing that was tried is no pass"


def test_one_json_object(audited: Audit, config: Path, tmp_path: Path) -> None:
    done = audited(config, "--out", "there", "--json", checks=("HOLDS", "BREAKS"), code=1)
    assert json.loads(done.stdout) == json.loads((tmp_path / "there" / "audit.json").read_text())


def test_more_than_ten_minutes_are_said(audited: Audit, config: Path) -> None:
    done = audited(config, checks=("SLOW",))
    assert "more than the ten minutes" in done.stderr
    assert "15 min" in done.stderr
    assert "ten minutes" not in audited(config, "--depth", "hour", checks=("SLOW",)).stderr


def test_what_cannot_be_audited(audited: Audit, config: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> BaseException | None:
        return audited(*arguments, code=2).exception

    assert isinstance(refused(), ConfigError)
    assert isinstance(refused(tmp_path), RunFolderError)
    assert isinstance(refused(tmp_path / "gone.toml"), ConfigError)
    assert isinstance(refused(config, "--only", "gone"), AuditError)
    assert isinstance(refused("--self-test", config), ConfigError)
    audited(config, "--depth", "second", code=2)


def test_a_run_is_audited_in_its_folder(audited: Audit, tmp_path: Path, images: Dataset) -> None:
    Federation(toys.quick(), data=images).run(tmp_path / "run")
    done = audited(tmp_path / "run", checks=("READS",))
    assert "run secure-fl, depth minutes, seed 0" in done.stdout
    assert (tmp_path / "run" / "audit.json").is_file()


def test_stopped_it_says_how_to_go_on(
    audited: Audit, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = audited(config, checks=("HOLDS", "INTERRUPTED"), code=130)
    assert "the same command goes on from there" in done.stderr
    monkeypatch.setenv("SECURE_FL_TOY_GO_ON", "1")
    done = audited(config, checks=("HOLDS", "INTERRUPTED"))
    assert "holds: kept from before" in done.stderr


def test_lists(audited: Audit, config: Path) -> None:
    told = audited("--list").stdout
    assert "account" in told
    assert "record" in told
    assert "noise doubled in the ledger" in audited("--self-test", "--list").stdout
    done = audited(config, "--list", checks=("HOLDS", "NOT_HERE"))
    assert "whether a toy is unsound" in done.stdout
    assert "there are no pools" in done.stdout
    assert not (config.parent / "runs").exists(), "nothing is written"


def test_a_self_test_that_misses_a_fault_says_so(
    audited: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "fault_addresses", lambda: ("audit.suite.toys:FAULTS",))
    names = ("LOOKS", "BLIND")
    checks = tuple(f"audit.suite.toys:{name}" for name in names)
    monkeypatch.setattr(self_test, "check_addresses", lambda: checks)
    done = audited("--self-test", "--only", "unsound bank", "--only", "never seen", code=1)
    assert "1 of 2 faults caught" in done.stdout
    assert "never seen: planted: held: seen at seed 0" in done.stderr


def test_a_self_test_that_is_stopped_says_how_to_go_on(
    audited: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(tasks: Sequence[Mapping[str, Any]], *rest: Any) -> Iterator[Any]:
        yield next(here(tasks[:1], *rest))
        raise KeyboardInterrupt

    monkeypatch.setattr(self_test, "fault_addresses", lambda: ("audit.suite.toys:FAULTS",))
    monkeypatch.setattr(self_test, "check_addresses", lambda: ("audit.suite.toys:LOOKS",))
    line = ["--self-test", "--seeds", 2, "--only", "unsound bank", "--out", "kept"]
    monkeypatch.setattr(self_test, "answered", stopped)
    done = audited(*line, code=130)
    assert "1 fault in 1 run, 2 seeds each; about 4 s of a core" in done.stderr
    assert "stopped; trials are kept, and the same command goes on from there" in done.stderr
    assert len(list((tmp_path / "kept").glob("looks-*.json"))) == 1
    monkeypatch.setattr(self_test, "answered", here)
    done = audited(*line)
    assert "1/1 unsound bank: caught 2/2, honest passed 2/2" in done.stderr
    assert len(list((tmp_path / "kept").glob("looks-*.json"))) == 2


def test_what_a_file_brought_along_moves_no_terminal(
    audited: Audit, tmp_path: Path, config: Path
) -> None:
    audited(config, "--out", "there")
    kept = tmp_path / "there" / "audit" / "holds-minutes-0.json"
    kept.write_text(kept.read_text().replace("seen at", "\\u001b[2J\\u202eseen at"))
    done = audited(config, "--out", "there")
    assert "kept from before" in done.stderr
    assert "seen at seed 0" in done.stdout
    assert not {"\x1b", "\u202e"} & {*done.stdout, *done.stderr}
