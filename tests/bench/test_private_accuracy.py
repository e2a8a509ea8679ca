"""The bench of private accuracy: its cells, its resume, its page. Accuracies themselves are in
the CSV.
"""

from __future__ import annotations

import re
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import (
    harness,
    private_accuracy,
    private_accuracy_page,
    private_encoders_page,
    private_pools_page,
)
from bench.private_accuracy_cells import (
    CSV,
    DATA,
    FEDERATED,
    FEDERATED_LEVELS,
    FEDERATIONS,
    HUNDRED,
    LEVELS,
    LOGIT,
    METHODS,
    RANDOM,
    TUNING_SEED,
    VARIANTS,
    Cell,
    Federated,
    main_cells,
    tuning_cells,
)
from bench.private_accuracy_clients import federated, level_of, noise_of_mean
from bench.private_accuracy_gradients import SILENT
from secure_fl.data.dataset import Dataset
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency

ROOT = Path(__file__).parents[2]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 examples that a linear probe can tell apart, and noise that is looked up."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(96) % 3
    x = torch.rand(96, 1, 8, 8, generator=generator) * 0.3
    for label in range(3):
        x[y == label, :, 2 * label : 2 * label + 2] += 0.6
    data = Dataset.from_arrays(x, y)
    monkeypatch.setattr(
        private_accuracy,
        "load",
        lambda *_: (data.take(torch.arange(64)), data.take(torch.arange(64, 96))),
    )
    monkeypatch.setattr(
        private_accuracy, "noise_multiplier", lambda target, *_: SILENT if target == inf else 1.5
    )


def cell(method: str, level: str, **other: Any) -> Cell:
    return Cell.of(
        "MNIST-5k",
        method,
        level,
        other.pop("seed", 0),
        **{"examples": 64, "batch": 16, "steps": 2, **other},
    )


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_measured_at_every_kind_of_level(method: str) -> None:
    for level in ("ordinary", "no clipping", "no noise", "8"):
        row = private_accuracy.measure(cell(method, level))
        assert 0 <= float(str(row["knn"])) <= 1
        assert 0.3 < float(str(row["probe"])) <= 1
        assert (row["own"] != "") == METHODS[method].objective.startswith("labels")
        assert (row["signal_first"] != "") == (level == "8")
        assert (row["norm_last"] != "") == (level != "ordinary" and method != LOGIT)
        assert (
            row["noise"] == {"ordinary": "", "no clipping": 0.0, "no noise": 0.0, "8": 1.5}[level]
        )


@pytest.mark.usefixtures("small")
def test_a_row_can_be_repeated_and_seeds_differ() -> None:
    name = next(iter(METHODS))
    first, again, other = (
        private_accuracy.measure(cell(name, "8", seed=seed)) for seed in (1, 1, 2)
    )
    for row in (first, again, other):
        del row["cpu_seconds"], row["seed"]
    assert first == again
    assert first != other


@pytest.mark.usefixtures("small")
def test_all_methods_start_from_one_encoder() -> None:
    train, _ = private_accuracy.load("MNIST-5k", 0, 64)
    weights = [
        next(private_accuracy.build(cell(name, "ordinary"), train).encoder.parameters())
        for name in (*METHODS, RANDOM)
    ]  # type: ignore[union-attr, operator]
    assert all(torch.equal(weights[0], weight) for weight in weights)


@pytest.mark.usefixtures("small")
def test_divergence_is_a_row_and_no_crash() -> None:
    row = private_accuracy.measure(cell("labels, per example", "ordinary", lr=3e38))
    assert str(row["probe"]) == "nan"


def test_noise_is_that_of_the_claim() -> None:
    """With all examples in every step, where ε has a closed form."""
    event = private_accuracy.mechanism_of(
        Cell.of("MNIST-5k", next(iter(METHODS)), "8", 0, examples=64, batch=64, steps=4)
    ).event(4)
    assert event.noise_multiplier == private_accuracy.noise_multiplier(8.0, 1.0, 4)
    assert 7.9 < epsilon([event], 1e-5, Adjacency.ZERO_OUT) <= 8
    assert private_accuracy.noise_multiplier(inf, 1.0, 4) == SILENT


# Client level


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight clients in place of a hundred, with a bound that few updates of so small a
    set reach.
    """
    monkeypatch.setitem(FEDERATED, HUNDRED, Federated("nt_xent", 8, 2, 4, 0.1, (2.0, 2.0)))


def after_one_round(level: str) -> tuple[torch.Tensor, dict[str, object]]:
    """The model as a vector, and what the round said."""
    one = cell(HUNDRED, level, batch=4, steps=1)
    train, _ = private_accuracy.load(one.data, 0, 64)
    model = private_accuracy.build(one, train)
    found = federated(model, one, train)
    return torch.cat([p.detach().flatten() for p in model.parameters()]), found


@pytest.mark.usefixtures("small", "eight")
@pytest.mark.parametrize("level", FEDERATED_LEVELS)
def test_a_federation_is_measured_at_every_level(level: str) -> None:
    row = private_accuracy.measure(cell(HUNDRED, level, batch=4))
    assert 0.3 < float(str(row["probe"])) <= 1
    assert (row["noise"] == "") == (level == "ordinary")
    assert (row["signal_last"] != "") == (level in ("8", "2"))
    assert set(row) == set(private_accuracy.measure(cell(RANDOM, "", steps=0)))


@pytest.mark.usefixtures("small", "eight")
def test_a_federations_round_is_that_of_fedavg_but_for_rounding_and_the_claimed_noise() -> None:
    ordinary, rounded, noised = (
        after_one_round(level)[0] for level in ("ordinary", "no noise", "8")
    )
    level = level_of(cell(HUNDRED, "8", batch=4, steps=1), len(noised))
    assert level is not None
    step = level.bound / level.levels
    assert float((rounded - ordinary).abs().max()) <= 2 * step
    assert 0 < step < 0.1 * noise_of_mean(level)
    assert float((noised - ordinary).std()) == pytest.approx(noise_of_mean(level), rel=0.03)


@pytest.mark.usefixtures("small", "eight")
def test_a_federations_noise_is_that_of_the_claim_over_all_rounds() -> None:
    for epsilon_claimed in (8, 2):
        level = level_of(cell(HUNDRED, str(epsilon_claimed), steps=10), 1000)
        assert level is not None
        assert (
            0.99 * epsilon_claimed
            < epsilon([level.event(10)], 1e-5, Adjacency.ZERO_OUT)
            <= epsilon_claimed
        )
        assert (level.roster, level.n_min, level.colluders) == (8, 6, 1)


@pytest.mark.usefixtures("small")
def test_rows_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.append_row, "__defaults__", (tmp_path,))
    monkeypatch.setattr(harness.read_rows, "__defaults__", (tmp_path,))
    cells = [cell(RANDOM, "", steps=0), cell(next(iter(METHODS)), "ordinary")]
    assert len(list(private_accuracy.run([*cells, cells[0]]))) == 2
    assert list(private_accuracy.run(cells)) == []
    assert [tuple(row.values())[:9] for row in harness.read_rows(CSV)] == [c.key for c in cells]


def test_the_table_has_every_cell() -> None:
    cells = list(main_cells(3))
    changed = sum(len(variant.levels) for variant in VARIANTS)
    federations = len(FEDERATIONS) * len(FEDERATED_LEVELS)
    assert (
        len(set(cells))
        == len(cells)
        == 3 * (len(DATA) * (1 + 7 * len(LEVELS)) + changed + federations)
    )
    assert TUNING_SEED not in {c.seed for c in cells}
    assert {c.seed for c in tuning_cells()} == {TUNING_SEED}


def test_means_are_over_reported_seeds_of_one_cell() -> None:
    def row(seed: int, probe: float, **other: Any) -> dict[str, str]:
        made = Cell.of("MNIST-5k", next(iter(METHODS)), "8", seed, **other)
        return dict(zip(private_accuracy_page._KEY, made.key, strict=True)) | {
            "probe": str(probe),
            "knn": "0.5",
            "own": "",
        }

    rows = [row(0, 0.7), row(1, 0.9), row(TUNING_SEED, 0.1), row(0, 0.2, steps=7)]
    text = private_accuracy_page.accuracy("MNIST-5k")(rows)
    assert "0.800 ± 0.141 / 0.500 (2 seeds)" in text
    assert "0.1" not in text.replace("0.141", "")
    assert "0.2" not in text


def test_the_committed_page_is_that_of_the_committed_rows(tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    copy.write_text(private_accuracy_page.PAGE.read_text())
    private_accuracy_page.write_page(ROOT / "bench" / "results", copy)
    assert copy.read_text() == private_accuracy_page.PAGE.read_text(), (
        "run: python -m bench.private_accuracy page"
    )
    shown = private_accuracy_page, private_encoders_page, private_pools_page
    tables = {name for page in shown for name in page.TABLES} | {"skews"}
    assert set(re.findall(r"<!-- table: (\S+) -->", copy.read_text())) == tables
