"""Output on terminals that are narrow, or whose encoding lacks letters."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from secure_fl.cli.console import Sheet
from secure_fl.terminal import _SPELLED, prepare


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp437", "koi8-r", "utf-16"])
def test_no_encoding_ends_a_command(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-m", "secure_fl.cli.main", "--help"], env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    told = done.stdout.decode(encoding)
    assert ("ε" if encoding == "utf-16" else "eps" if encoding not in ("cp437",) else "") in told
    assert "?" not in told.replace("did you mean", "")


def test_errors_are_spelled_out_too(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from secure_fl.terminal import prepare; prepare(); print('ε ≤ 3 → 2², Zürich, "
        "日'); sys.stderr.write('δ × ½ █▁')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert done.returncode == 0
    assert done.stdout.decode().split() == ["eps", "<=", "3", "->", "2^2,", "Zurich,", "?"]
    assert done.stderr.decode() == "delta x 1/2 #."


def test_what_is_spelled_is_plain() -> None:
    assert all(spelled.isascii() and spelled for spelled in _SPELLED.values())
    prepare()  # twice in one process does no harm


@pytest.mark.parametrize("width", [40, 160])
def test_a_table_keeps_its_cells_whole_at_any_width(width: int) -> None:
    out = Console(file=io.StringIO(), width=width, soft_wrap=True, highlight=False)
    out.print(
        Sheet(
            "what",
            ["client", "data", "train", "note"],
            [["ward [a]", "rotated 120°", 120, ""], ["ward b", "x" * 30, 7, "small"]],
        )
    )
    told = out.file.getvalue()  # type: ignore[attr-defined]
    for cell in ("ward [a]", "rotated 120°", "120", "x" * 30, "small"):
        assert cell in told
    assert ("train 120" in told) == (width == 40)


PROSE = "every list of keys, dealers or survivors below n_min = 9 of 12 is refused by everybody"


@pytest.mark.parametrize(("width", "is_table"), [(200, True), (80, True), (40, False)])
def test_prose_is_wrapped_between_words_and_nothing_is_cut(width: int, is_table: bool) -> None:
    out = Console(file=io.StringIO(), width=width, soft_wrap=True, highlight=False)
    rows = [["cohort", "held", PROSE], ["liar", "broken", "one"]]
    out.print(Sheet("checks", ["check", "verdict", "what was seen"], rows))
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, (line.rstrip() for line in lines))) <= width
    words = " ".join(lines).split()
    assert all(words.count(word) >= PROSE.split().count(word) for word in PROSE.split())
    assert any(line.split() == ["check", "verdict", "what", "was", "seen"] for line in lines) == (
        is_table
    )
    assert ("check cohort" in [line.rstrip() for line in lines]) != is_table


def test_what_has_no_spaces_is_copied_whole() -> None:
    out = Console(file=io.StringIO(), width=60, soft_wrap=True, highlight=False)
    out.print(Sheet("keys", ["name", "fingerprint"], [["ward", "f" * 64]]))
    assert "f" * 64 in out.file.getvalue()  # type: ignore[attr-defined]


def test_what_is_short_is_packed_into_lines_and_never_broken() -> None:
    out = Console(file=io.StringIO(), width=40, soft_wrap=True, highlight=False)
    cells = ["digits", "0.461", "0.02", "1, 4, 7 and 1 more", "75.4 MB", "8.00 for one example"]
    out.print(Sheet("", ["run", "accuracy", "spread", "who", "bytes to target", "ε"], [cells]))
    assert out.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "run digits",
        "  accuracy 0.461, spread 0.02,",
        "  who 1, 4, 7 and 1 more,",
        "  bytes to target 75.4 MB,",
        "  ε 8.00 for one example",
    ]
