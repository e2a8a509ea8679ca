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
