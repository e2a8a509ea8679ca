"""The two pages about audits: all that is typed in the tutorial runs, no check is missing from it,
and every fault, test and file of figures that a page names is there.
"""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from audit.suite.in_process import here
from test_deployment_pages import refused

with warnings.catch_warnings():  # of typer, about the version of click that is there
    warnings.simplefilter("ignore")
    from typer.testing import CliRunner

    from secure_fl.cli.main import app

from secure_fl.audit.suite import planning, self_test
from secure_fl.audit.suite.catalogue import checks, faults

ROOT = Path(__file__).parents[1]
AUDITING, PITFALLS = ROOT / "docs" / "auditing.md", ROOT / "docs" / "pitfalls.md"
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
QUICK = ("record:RECORD", "cohort:COHORT", "masks:MASKS", "hubs:HUBS")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def inline(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", BLOCK.sub("", text_of(page)))


def typed(line: str) -> str:
    """Print what a line of the page prints, or raise what it raises."""
    words = shlex.split(line, comments=True)[1:]
    if words[0] == "audit" and not {"--self-test", "--list"} & set(words):
        words.append("--jobs=1")  # in this process
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (line, done.output, done.exception)
    return done.output


def test_all_that_is_typed_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a few of the checks, in this process."""
    quick = tuple(f"secure_fl.audit.checks.{name}" for name in QUICK)
    monkeypatch.setattr(planning, "check_addresses", lambda: quick)
    monkeypatch.setattr(self_test, "answered", here)  # in this process, as no other is started
    monkeypatch.setattr(self_test, "check_addresses", lambda: quick)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "tutorial"}
    said, ran = "", 0
    for _, language, block in BLOCK.findall(text_of(AUDITING)):
        if language == "toml":
            (tmp_path / "study.toml").write_text(block, encoding="utf-8")
        elif language == "python":
            exec(compile(dedent(block), str(AUDITING), "exec"), names)
        else:
            lines = [line for line in block.splitlines() if line]
            said, ran = said + "".join(map(typed, lines)), ran + len(lines)
    said += capsys.readouterr().out
    assert ran >= 14
    assert "everything fits" in said
    assert "2.0 passed as claimed" in said
    assert "1.0 refuted alarm" in said
    assert "refuted: Finding" in said
    assert "of this very record: True" in said
    assert "1 of 1 faults caught" in said


@pytest.mark.parametrize("page", [AUDITING, PITFALLS], ids=lambda page: page.stem)
def test_commands_within_a_sentence_are_of_this_version(page: Path) -> None:
    lines = [each for each in inline(page) if each.startswith("secure-fl ")]
    assert {line: why for line in lines if (why := refused(line))} == {}


def test_no_check_is_missing_from_the_table() -> None:
    table = re.findall(r"^\| `([a-z-]+)` \|", text_of(AUDITING), re.MULTILINE)
    known = [each.name for each in checks()]
    assert [name for name in table if name in known] == known
    assert f"all {len(known)} checks" in text_of(AUDITING)


@pytest.mark.parametrize("page", [AUDITING, PITFALLS], ids=lambda page: page.stem)
def test_what_a_page_names_is_there(page: Path) -> None:
    paths = [each for each in inline(page) if re.fullmatch(r"(tests|bench|secure_fl)/[^ ]+", each)]
    assert paths
    assert [each for each in paths if not (ROOT / each.partition("::")[0]).exists()] == []
    tests = [each.partition("::") for each in paths if "::" in each]
    assert [each for each in tests if f"def {each[2]}(" not in text_of(ROOT / each[0])] == []
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of(page))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_fault_that_is_named_can_be_planted() -> None:
    named = re.findall(r'"([^"]+)"', " ".join(re.findall(r"Faults?: ([^\n]*)", text_of(PITFALLS))))
    assert len(named) > 25
    assert sorted(set(named) - {each.name for each in faults()}) == []


def test_every_pitfall_has_its_severity_and_its_three_answers() -> None:
    page = text_of(PITFALLS)
    row = r"^\| (\d+) \| \[(.+)\]\(#.+\) \| (critical|high|medium|low) \|$"
    rows = re.findall(row, page, re.MULTILINE)
    parts = re.findall(r"^## (\d+) (.+)\n\n\*\*(\w+)\.\*\*", page, re.MULTILINE)
    assert rows == [(number, name, severity.lower()) for number, name, severity in parts]
    assert len(rows) >= 20
    assert all(page.count(f"*{said}*") >= len(rows) for said in ("Here", "Your project"))
