"""A program to compare with is one file in a folder, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.harness import read_rows
from bench.kernels import registry, rivals
from bench.kernels.agenda import Cell, walk
from bench.kernels.case import Case
from bench.kernels.run import CSV, Options

TOY = """
from bench.kernels.case import Provider
from secure_fl_kernels import reference

def loss(z1, z2):
    return reference.nt_xent_loss(z1, z2, 0.2) * 1.01

PROVIDERS = {"ntxent": (Provider("toy", lambda case: loss, lambda case: 14.0 * case.rows**2),)}
"""


def test_a_file_in_the_folder_is_measured_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_toy.py").write_text(TOY)
    monkeypatch.setattr(rivals, "__path__", [*rivals.__path__, str(tmp_path)])
    monkeypatch.setenv("CXX", "no-such-compiler")
    chosen = registry.kernel("ntxent")
    assert chosen.providers[-1].name == "toy"
    assert "toy" not in [each.name for each in registry.kernel("uniformity").providers]
    options = Options(rounds=3, budget=1, memory=False)
    walk([Cell(chosen, Case(32, 8))], options, tmp_path, lambda _: None)
    row = read_rows(CSV, tmp_path)[-1]
    assert row["provider"] == "toy"
    assert float(row["value_error"]) == pytest.approx(0.01, rel=1e-3)
    assert float(row["y50"]) > 0
    assert row["times_naive"]


def test_every_file_here_is_of_a_kernel_that_there_is() -> None:
    assert [each.name for each in rivals.of("infonce")] == ["Inf-CL", "Liger cross-entropy"]
    assert not list(rivals.of("nothing"))
