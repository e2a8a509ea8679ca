"""Runs side by side: figures as they follow from the files, three questions, and which runs answer
none.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from report.pages import Reader, edit, summary

from secure_fl.report.comparison import compare
from secure_fl.report.runs import read_runs

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
PRETRAINING, POOLS, PRIVACY = range(3)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def course(
    folder: Path, accuracies: list[float], choices: list[list[int]], ends: list[float]
) -> None:
    """A run whose clients chose so, whose mean accuracy went so, and ended so for each client."""

    def change(said: dict[str, Any]) -> None:
        said["pools"].update(
            accuracy=float(np.mean(ends)),
            accuracy_min=min(ends),
            accuracies={str(at): end for at, end in enumerate(ends)},
            choices={str(at): pool for at, pool in enumerate(choices[-1])},
            accuracy_per_round=accuracies,
        )

    edit(folder / "summary.json", change)
    written, at = lines(folder), 0
    for line in written:
        if line["phase"] == "cluster":
            line["metrics"]["choices"] = {str(who): pool for who, pool in enumerate(choices[at])}
            at += 1
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))


@pytest.fixture
def pair(copies: dict[str, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A run with pre-training, and the same without it."""
    having = copies["pools"]
    lacking = Path(copytree(having, tmp_path / "copies" / "bare"))
    config = lacking / "config.toml"
    config.write_text(config.read_text().replace('mode = "federated"', 'mode = "none"', 1))
    kept = [line for line in lines(lacking) if line["phase"] != "pretrain"]
    (lacking / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    still = [[0, 1, 0, 1]] * 4
    course(
        having, [0.2, 0.6, 0.7, 0.9], [[0, 0, 0, 0], [0, 1, 0, 0], *still[:2]], [0.9, 0.8, 1.0, 0.9]
    )
    course(lacking, [0.2, 0.4, 0.6, 0.7], still, [0.7, 0.7, 0.6, 0.8])
    return having, lacking


def test_rounds_and_bytes_to_a_target_follow_from_the_files(pair: tuple[Path, Path]) -> None:
    found = compare(read_runs(pair), 0.65)
    for side, folder, needed in zip(found.runs, pair, (2, 3), strict=True):
        written = lines(folder)
        first = [line["phase"] for line in written].index("cluster")
        until = written[: first + needed]
        assert side.reached is not None
        assert side.reached.bytes == sum(each["bytes_up"] + each["bytes_down"] for each in until)
        trained = [each for each in until if each["phase"] in ("pretrain", "cluster")]
        assert side.reached.rounds == len(trained)
        assert side.reached.seconds == pytest.approx(sum(each["seconds"] for each in until))
    assert [side.reached.rounds for side in found.runs if side.reached] == [3, 3]
    assert compare(read_runs(pair)).target == pytest.approx(0.7), (
        "what the least accurate ends with"
    )
    assert [side.reached for side in compare(read_runs(pair), 0.95).runs] == [None, None]


def test_pools_that_move_are_counted(pair: tuple[Path, Path]) -> None:
    having, lacking = compare(read_runs(pair)).runs
    assert having.moves == (1, 1, 0)
    assert having.settled == 1
    assert lacking.moves == (0, 0, 0)
    course(pair[0], [0.2] * 4, [[0, 0, 1, 1]] * 3 + [[0, 1, 0, 1]], [0.9] * 4)
    moved = compare(read_runs(pair)).runs[0]
    assert moved.moves == (0, 0, 2)
    assert moved.settled == pytest.approx(-0.5), "as scikit-learn's documentation has it"


def test_a_gain_comes_with_its_error_over_clients(pair: tuple[Path, Path]) -> None:
    answer = compare(read_runs(pair), 0.65).answers[PRETRAINING]
    gains = np.array([0.9, 0.8, 1.0, 0.9]) - np.array([0.7, 0.7, 0.6, 0.8])
    assert answer.gain == pytest.approx(gains.mean())
    assert answer.error == pytest.approx(gains.std(ddof=1) / math.sqrt(4))
    assert answer.worst == pytest.approx(0.2)
    assert (answer.having, answer.lacking) == ("pools", "bare")
    assert "not told apart" not in answer.answer
    course(pair[1], [0.2] * 4, [[0, 1, 0, 1]] * 4, [1.0, 0.6, 1.0, 0.8])
    assert "not told apart" in compare(read_runs(pair)).answers[PRETRAINING].answer


def test_each_question_is_answered_by_the_runs_that_differ_in_it(
    pair: tuple[Path, Path], runs: dict[str, Path]
) -> None:
    found = compare(read_runs([*pair, runs["global"]]))
    named = [(answer.having, answer.lacking) for answer in found.answers]
    assert named[POOLS] == ("pools", "global"), "not the run that differs in pre-training too"
    assert named[PRIVACY] == ("", "")
    assert "privacy.unit=none" in found.answers[PRIVACY].lines[0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda folder: swap(folder / "config.toml", "seed = 0", "seed = 1"), "other seed"),
        (
            lambda folder: swap(folder / "config.toml", "groups = 2", "groups = 4"),
            "other partition",
        ),
        (
            lambda folder: edit(folder / "partition.json", lambda d: d.update(digest="00")),
            "other examples, by their digest",
        ),
        (
            lambda folder: edit(folder / "summary.json", lambda d: d.update(examples=7)),
            "other numbers of examples",
        ),
    ],
)
def test_runs_that_are_not_comparable_answer_nothing(
    pair: tuple[Path, Path], change: Callable[[Path], object], why: str
) -> None:
    change(pair[1])
    found = compare(read_runs(pair))
    assert found.apart == (f"bare is not comparable with pools: {why}",)
    assert found.answers[PRETRAINING].answer == "not answered"
    assert why in found.answers[PRETRAINING].lines[0]


def swap(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def command(*asked: object, code: int = 0) -> str:
    """What `secure-fl compare` prints, or why it refuses."""
    line = [sys.executable, "-m", "secure_fl.cli.main", "compare", *map(str, asked)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def test_the_command_prints_and_writes_the_same_figures(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    said = json.loads(command(*pair, "--target", 0.65, "--json", "--out", page))
    ends = [summary(folder)["pools"]["accuracy"] for folder in pair]
    assert [side["accuracy"] for side in said["runs"]] == ends
    told = command(*pair, "--target", 0.65)
    assert "Is pre-training worth its rounds and bytes? +0.200 ± 0.071" in told
    reader = Reader(page.read_text(encoding="utf-8"))
    assert "+0.200 ± 0.071" in reader.tiles[0]
    row = reader.row("pools")
    assert row[1] == f"{ends[0]:.3f}"
    assert row[5] == str(said["runs"][0]["reached"]["rounds"]) == "3"
    assert sum(tag == "script" for tag, _ in reader.tags) == 1


def test_one_run_and_no_accuracy_are_refused(runs: dict[str, Path]) -> None:
    assert "is one run" in command(runs["pools"], runs["pools"], code=2)
    assert "--target" in command(runs["pools"], runs["global"], "--target", 1.5, code=2)
