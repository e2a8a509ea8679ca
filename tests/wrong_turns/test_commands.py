"""Wrong turns on the command line: each ends with exit code 2 and a message, and no traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

MANY = Path(__file__).with_name("many_commands.py")
CSV = "age,sex,site,label\n" + "\n".join(f"{i},{i % 2},s{i % 4},{'ab'[i % 2]}" for i in range(80))
MINE = """
name = "mine"
[[data.sources]]
name = "csv"
path = "r.csv"
client = "site"
[pretrain]
rounds = 1
local_epochs = 1
[pools]
count = 1
rounds = 1
local_epochs = 1
[evaluate]
probe_epochs = 1
[security]
protection = "plain"
"""
WROTE = "name the folder that `secure-fl run` wrote"
TOML = r"`secure-fl init NAME\.toml` writes one"
EMPTY = "that is empty or does not exist yet"
TRY = r"Try 'secure-fl.* --help'"

Row = tuple[str, str, str, str]
"""(what is typed, field, value, remedy): where a usage error names no value, what it
names instead.
"""

FIRST_STEPS: list[Row] = [
    ("init mine.toml", "path", "mine.toml", "--force"),
    ("init new.toml --data absent.csv", "--data", "absent.csv", r"a file ending in \.npz"),
    ("init new.toml --data empty.csv", "empty.csv", "empty.csv", "names each column"),
    ("init new.toml --data paper.pdf", "--data", "paper.pdf", r"a file ending in \.npz"),
    (
        "init new.toml --data r.csv --label diagnosis",
        "r.csv.label",
        "diagnosis",
        "age, sex, site, label",
    ),
    ("init new.toml --data r.csv --client ward", "r.csv.client", "ward", "age, sex, site, label"),
    ("init new.toml --label age", "--label", "age", "pass --data FILE"),
    ("init r.csv/new.toml", "r.csv", "r.csv", "check the path"),
    ("data absent.toml", "configuration", "absent.toml", TOML),
    ("data r.csv", "configuration", "r.csv", r"`secure-fl init my\.toml --data r\.csv`"),
    ("data full", "configuration", "full", TOML),
    ("data bad.toml", "configuration", "bad.toml", "mend the line named"),
    ("data twice.toml", "configuration", "twice.toml", "mend the line named"),
    ("data utf16.toml", "configuration", "utf16.toml", "saved as UTF-8"),
    ("data latin.toml", "configuration", "latin.toml", "saved as UTF-8"),
    ("data loose.toml", "count", "3", r"pools\.count"),
    ("data mine.toml --plot who.xyz", "--plot", "who.xyz", r"\.png"),
    ("data mine.toml --plot full", "--plot", "full", r"\.png"),
    ("data mine.toml --plot nowhere/who.png", "who.png", "nowhere/who.png", "check the path"),
    ("data mine.toml --set pools.cuont=3", "pools.cuont", "3", r"pools\.count"),
    (
        "check mine.toml --set data.sources.path=absent.csv",
        "data.sources.path",
        "absent.csv",
        "check the path",
    ),
    (
        "check mine.toml --set data.sources.3.path=r.csv",
        "--set",
        "data.sources.3.path=r.csv",
        "below 1",
    ),
    ("check mine.toml --set pools.count", "--set", "pools.count", "--set pools.count=4"),
    ("check mine.toml --set pools.count=9", "pools.count", "9", "at most 4"),
    ("check mine.toml --set count=9", "count", "9", r"pools\.count"),
    ("check mine.toml --set pools=9", "pools", "9", "a table of settings"),
    ("check mine.toml --set pools.count.x=9", "--set", "pools.count.x=9", "shorten the key"),
    ("check mine.toml --set privacy.unit=client", "data.classes", "None", r"data\.class_names"),
    ("check mine.toml --out full", "out", "full", "another folder with --out"),
    ("check mine.toml --out r.csv", "out", "r.csv", EMPTY),
    ("check mine.toml --out r.csv/run", "out", "r.csv/run", EMPTY),
]

RUNS: list[Row] = [
    ("run", "CONFIG", "None", r"`secure-fl init my\.toml`"),
    ("run absent.toml", "configuration", "absent.toml", TOML),
    ("run mine.toml --out done", "out", "done", "--resume"),
    ("run mine.toml --resume done", "--resume", "done", "give --resume alone"),
    ("run --resume absent", "run folder", "absent", WROTE),
    ("run --resume full", "run folder", "full", WROTE),
    ("run --resume done --set pools.lr=3", "pools.lr", "3.0", "leave the rest as"),
    ("run --resume done --set pools.rounds=0", "pools.rounds", "0", "from 1 to 1000000 "),
    (
        "run mine.toml --set pretrain.mode=load --set pretrain.load_from=absent",
        "pretrain.load_from",
        "absent",
        WROTE,
    ),
    ("run mine.toml --set runtime.device=gpu", "runtime.device", "gpu", '"auto", "cpu", "cuda"'),
    ("report absent", "run folder", "absent", WROTE),
    ("report full", "run folder", "full", WROTE),
    ("report half", "run folder", "half", "--resume half"),
    ("report done --out full", "full", "full", "check the path"),
    ("assign done absent.npz", "file", "absent.npz", r"a file ending in \.npz"),
    ("assign absent r.csv", "run folder", "absent", WROTE),
    ("assign done shape.npz", "x", "(7,)", "the shape the federation was trained on"),
    ("assign done labels.npz", "y", "not shown", "use the run's: a, b"),
    ("assign done paper.pdf", "file", "paper.pdf", r"a file ending in \.npz"),
    ("assign r.csv done", "run folder", "r.csv", WROTE),
    ("export absent", "run folder", "absent", WROTE),
    ("export done --out full", "out", "full", "another folder"),
    ("export done --out r.csv", "out", "r.csv", EMPTY),
    ("export half --out models", "run folder", "half", "--resume half"),
    ("privacy plan mine.toml", "privacy.unit", "none", '"example" or "client"'),
    (
        "privacy plan mine.toml --set privacy.unit=patient",
        "privacy.unit",
        "patient",
        '"none", "example", "client"',
    ),
    ("privacy verify absent", "run folder", "absent", WROTE),
    ("privacy verify done", "folder", "done", "privacy.unit"),
    ("keys new a/b", "name", "a/b", "letters, digits"),
    ("keys new it --role boss", "role", "boss", "coordinator"),
    (
        "keys new it --passphrase-env NOT_SET",
        "--passphrase-env",
        "NOT_SET",
        "set it for this command",
    ),
    ("keys new it --out r.csv", "r.csv", "r.csv", "check the path"),
    ("keys show absent --signed-by absent", "absent", "absent", "check the path"),
    ("keys roster new.roster it.card --as absent", "key file", "absent", "`secure-fl keys` wrote"),
]

USAGE: list[Row] = [
    ("data", "CONFIG", "Missing argument", TRY),
    ("run mine.toml other.toml", "other.toml", "unexpected extra argument", TRY),
    ("run mine.toml --sett a=b", "--sett", "No such option", "--set"),
    ("assign done", "FILE", "Missing argument", TRY),
    ("export done --form onnx", "--form", "No such option", TRY),
    ("bench kernel", "kernel", "No such command", "kernels"),
    ("bench kernels --rows many", "--rows", "many", "integer"),
    ("doctor now", "now", "unexpected extra argument", TRY),
    ("runn mine.toml", "runn", "No such command", "run"),
    ("--versoin", "--versoin", "No such option", "--version"),
]


Answers = dict[str, tuple[int, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a newcomer has lying about."""
    here = tmp_path_factory.mktemp("newcomer")
    (here / "full").mkdir()
    (here / "full" / "notes.txt").write_text("mine")
    texts = {
        "r.csv": CSV,
        "mine.toml": MINE,
        "empty.csv": "",
        "bad.toml": "pools = {",
        "loose.toml": "count = 3\n",
    }
    texts |= {"paper.pdf": "%PDF", "twice.toml": "[pools]\ncount = 1\n[pools]\n"}
    for name, text in texts.items():
        (here / name).write_text(text)
    (here / "utf16.toml").write_bytes("[pools]\ncount = 1\n".encode("utf-16"))
    (here / "latin.toml").write_bytes('name = "café"\n'.encode("latin-1"))
    np.savez(here / "shape.npz", x=np.ones((9, 7)))
    np.savez(here / "labels.npz", x=np.ones((9, 2)), y=np.array(["mad"] * 9))
    return here


def typed(lines: list[str], folder: Path, **environment: str | None) -> Answers:
    """What comes of each line, all typed in one process."""
    given = {**os.environ, "NO_COLOR": "1", **environment}
    variables = {name: value for name, value in given.items() if value is not None}
    asked = json.dumps([line.split() for line in lines])
    done = subprocess.run(
        [sys.executable, str(MANY)],
        input=asked,
        capture_output=True,
        text=True,
        cwd=folder,
        env=variables,
        check=True,
    )
    return {
        line: (code, text)
        for line, (code, text) in zip(lines, json.loads(done.stdout), strict=True)
    }


@pytest.fixture(scope="module")
def answers(folder: Path) -> Answers:
    begun = typed(["run mine.toml --out done -q", "run mine.toml --out half -q"], folder)
    assert [code for code, _ in begun.values()] == [0, 0], begun
    (folder / "half" / "summary.json").unlink()
    return typed([row[0] for row in FIRST_STEPS + RUNS + USAGE], folder)


@pytest.mark.parametrize(("line", "field", "value", "remedy"), FIRST_STEPS + RUNS)
def test_refused(answers: Answers, line: str, field: str, value: str, remedy: str) -> None:
    held_against(answers[line], field, value, remedy)


def held_against(answer: tuple[int, str], field: str, value: str, remedy: str) -> None:
    code, text = answer
    assert code == 2, text
    assert "Traceback" not in text
    found = re.search(
        r"^\[[a-z-]+\] (.*?): .* \(got (.*)\)\. Remedy: (.*)", text, re.DOTALL | re.MULTILINE
    )
    assert found is not None, text
    assert field in found[1], text
    assert value in found[2], text
    assert re.search(remedy, found[3]), text


@pytest.mark.parametrize(("line", "named", "problem", "remedy"), USAGE)
def test_usage(answers: Answers, line: str, named: str, problem: str, remedy: str) -> None:
    code, text = answers[line]
    assert code == 2, text
    assert "Traceback" not in text
    assert named in text
    assert problem in text
    assert re.search(remedy, text), text


def test_remedies_that_are_followed(folder: Path, answers: Answers) -> None:
    """The remedies of some of the rows above, typed."""
    assert answers
    lines = [
        "init data.toml --data r.csv --label label --client site",
        (
            "check data.toml --out new --set security.protection=plain --set pools.count=4 --set "
            "pretrain.rounds=1 --set pools.rounds=1"
        ),
        "check mine.toml --set data.sources.path=r.csv --out new",
        "run --resume half -q",
        "run --resume done -q",
        "assign done r.csv",
    ]
    for line, (code, text) in typed(lines, folder).items():
        assert code == 0, f"{line}: {text}"


def test_no_home(folder: Path) -> None:
    line = "check mine.toml --set data.sources.0.path=~nobody-x/r.csv"
    held_against(
        typed([line], folder, HOME=None)[line], "data.sources.path", "~nobody-x/r.csv", "set HOME"
    )
