"""The order of measuring, what is left for later, and what is not measured twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench import harness
from bench.kernels import agenda
from bench.kernels.agenda import Cell, Pace, walk
from bench.kernels.case import Case, Kernel, Provider
from bench.kernels.run import CSV, Options

QUICK = Options(rounds=3, budget=1, memory=False)
WHERE = {"date": "2026-01-01", "machine": "m", "versions": "v", "commit": "abc1234"}


@pytest.fixture(autouse=True)
def where(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A clean commit on some machine; the test may change it."""
    found = dict(WHERE)
    monkeypatch.setattr(agenda, "provenance", lambda _: found)
    return found


def cell(rows: int, name: str = "simple", factor: float = 1.0) -> Cell:
    def work(case: Case) -> float:
        return factor * case.rows**2

    def inputs(case: Case) -> tuple[torch.Tensor, ...]:
        return (case.random(case.rows, 2),)

    only = Provider("naive torch", lambda _: torch.sum, lambda _: 0.0)
    return Cell(Kernel(name, "a sum", inputs, (only,), work=work), Case(rows, 2))


def sizes(folder: Path) -> list[str]:
    return [row["rows"] for row in harness.read_rows(CSV, folder)]


def ticking(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step


def test_the_cheapest_come_first_whatever_their_kernel(tmp_path: Path) -> None:
    said: list[str] = []
    walk([cell(40), cell(10), cell(20, "dear", 100)], QUICK, tmp_path, said.append)
    assert sizes(tmp_path) == ["10", "40", "20"]
    assert "1/3, 0.0 minutes; simple: 10 rows" in said[0]


def test_what_was_measured_here_at_this_commit_is_not_measured_again(
    tmp_path: Path, where: dict[str, str]
) -> None:
    walk([cell(10)], QUICK, tmp_path, lambda _: None)
    said: list[str] = []
    walk([cell(10), cell(20)], QUICK, tmp_path, said.append)
    assert sizes(tmp_path) == ["10", "20"]
    assert "1 of 2 sizes are in" in said[0]
    for name in ("machine", "versions", "commit"):
        before = len(sizes(tmp_path))
        where[name] = f"another {name}"
        walk([cell(10)], QUICK, tmp_path, lambda _: None)
        assert len(sizes(tmp_path)) == before + 1
    where["commit"] = "abc1234+"
    for _ in range(2):
        before = len(sizes(tmp_path))
        walk([cell(10)], QUICK, tmp_path, lambda _: None)
        assert len(sizes(tmp_path)) == before + 1


def test_a_budget_leaves_what_does_not_fit_for_the_next_time(tmp_path: Path) -> None:
    """A clock that moves by 15 seconds a look: a cell takes as long, one of ten times the rows a
    hundred times.
    """
    clock, said = ticking(15), []
    cells = [cell(10), cell(11), cell(100)]
    walk(cells, QUICK, tmp_path, said.append, minutes=2, clock=lambda: next(clock))
    assert sizes(tmp_path) == ["10", "11"]
    assert said[-1] == "1 sizes did not fit into 2 minutes; the same command goes on"
    walk(cells, QUICK, tmp_path, said.append)
    assert sizes(tmp_path) == ["10", "11", "100"]


def test_predictions_grow_with_the_work() -> None:
    pace = Pace()
    assert pace.predict(cell(10)) == 0
    pace.learn(cell(10), 3.0)
    assert pace.predict(cell(100)) == pytest.approx(300)
    assert pace.predict(cell(5)) == 3.0
