"""Runs whose separation follows how far clients differ: from what is opened or released anyway, by
everybody alike, on record, and checked again.
"""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from federation.parts import program_of
from federation.sums import OpenSum
from helpers import StopAfter, make_images, tiny_config, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Dataset
from secure_fl.engines import embedded
from secure_fl.federation.asks import TrainEncoder
from secure_fl.federation.client import Client
from secure_fl.federation.factory.private_paths import TrainingPath
from secure_fl.federation.factory.sketch_form import shortened
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.run_folder.metrics import RoundRecord, Separated
from secure_fl.federation.steps.sketch import Sketch
from secure_fl.federation.verify.check import verify
from secure_fl.objectives.unit_objectives import SSDUnits
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.mechanisms.released_statistics import ReleasedStatistics
from secure_fl.privacy.noise import NoiseSource
from secure_fl.report.plots import separation_plot
from secure_fl.run import Federation

SIX = {"partition": {"clients": 6, "groups": 2}}


@pytest.fixture(scope="module")
def images() -> Dataset:
    return make_images(180)


def opened(**tables: Any) -> FederationConfig:
    """Without privacy: weights follow the updates."""
    objective = {"adaptive": True, "adaptive_least": 0.25, "adaptive_most": 4.0}
    base = {"objective": objective, "pools": {"enabled": False}, "pretrain": {"rounds": 3}}
    return tiny_config(**{**SIX, **base, **tables})


def private(*, adaptive: bool = True, **tables: Any) -> FederationConfig:
    """With it: weights follow the sketches."""
    noised = {"unit": "example", "noise": 2.0, "epsilon": 60.0, "sketch_epsilon": 20.0}
    base = {
        "objective": {"adaptive": adaptive},
        "privacy": noised,
        "pretrain": {"rounds": 2},
        "pools": {"rounds": 1, "local_epochs": 1, "warmup_rounds": 0, "sketch_starts": 4},
    }
    return tiny_config(**{**SIX, **base, **tables})


def lines_of(folder: Path, phase: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["metrics"] for line in lines if line["phase"] == phase]


def separations(records: list[RoundRecord]) -> list[Separated]:
    found = [record.metrics.separation for record in records if record.phase == "pretrain"]
    return [each for each in found if each is not None]


def test_a_round_s_weights_follow_the_sum_of_the_round_before(
    tmp_path: Path, images: Dataset
) -> None:
    config = opened()
    result = Federation(config, data=images).run(tmp_path / "run", progress=False)
    said = separations(list(result.records))
    measured = [record.metrics.differences for record in result.records][:3]
    assert said[0] == Separated(None, 1.0, 0.1)
    for before, each in zip(measured, said[1:], strict=False):
        assert before is not None
        assert each == Separated.of(config.objective, before[0])
        assert 0.25 <= each.gamma <= 4.0
    assert said[1].gamma != 1.0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["files"]["metrics.jsonl"]["metrics"]["separation"] == {
        "difference": "released:unnoised",
        "gamma": "released:unnoised",
        "delta": "released:unnoised",
    }
    chart = separation_plot(said)
    assert "gamma goes from 1 to" in chart.alt


def trained(config: FederationConfig, images: Dataset, difference: float | None) -> Tensor:
    """What the second client's encoder becomes in a first round with this difference."""
    federation = Federation(config, data=images)
    program = program_of(federation)
    bench, source = Workbench(federation.factory), NoiseSource.for_tests(0)
    client = Client.of(program, federation.clients[1], bench, source, ReleaseBox(None))
    ask = TrainEncoder(0, program.start().tensors["model"], difference=difference)
    return client.protection.train_encoder(ask, 1).pooled


def test_clients_train_with_the_weights_that_follow(images: Dataset) -> None:
    """As with the same weights set in the configuration, bit for bit; with others, otherwise."""
    adaptive = opened()
    known = Separated.of(adaptive.objective, 0.9)
    fixed = opened(objective={"gamma": known.gamma, "delta": known.delta})
    found = trained(adaptive, images, 0.9)
    assert torch.equal(found, trained(fixed, images, None))
    assert torch.equal(found, trained(fixed, images, 0.9)), "fixed weights follow nothing"
    assert not torch.equal(found, trained(adaptive, images, None))


def test_private_training_has_them_in_its_units_with_the_same_charge_and_claim(
    images: Dataset,
) -> None:
    factory = Federation(private(), data=images).factory
    units, made = [], []
    for difference in (None, 1.0):
        path = TrainingPath(factory, "pretrain", 1, 1, 0, difference)
        mechanism = path.mechanism(60, 0.3, 1.0)
        assert isinstance(mechanism, ReleasedStatistics)
        assert isinstance(mechanism.objective, SSDUnits)
        units.append(mechanism.objective)
        made.append((mechanism.event(3), mechanism.sensitivity(Adjacency.ZERO_OUT)))
    assert units[1].gamma == 2 * units[0].gamma > 0
    assert units[1].delta == 2 * units[0].delta > 0
    assert made[0] == made[1]


def test_sums_are_as_they_were_and_protection_changes_no_weight(images: Dataset) -> None:
    """No field more is summed than without it; under masks the same weights follow."""
    fixed, adaptive = (
        program_of(Federation(opened(objective=objective), data=images)).steps[0].form(0).shape
        for objective in ({}, {"adaptive": True})
    )
    assert fixed == adaptive
    found = [
        separations(
            list(Federation(opened(security=each), data=images).run(progress=False).records)
        )
        for each in ({"protection": "plain"}, {"protection": "masked"})
    ]
    assert found[0] == found[1]


def test_a_stopped_run_goes_on_with_the_same_weights(tmp_path: Path, images: Dataset) -> None:
    whole = Federation(opened(), data=images).run(tmp_path / "whole", progress=False)
    stopped = Federation(opened(), data=images, callbacks=[StopAfter(2)])
    with pytest.raises(KeyboardInterrupt):
        stopped.run(tmp_path / "part", progress=False)
    resumed = Federation(opened(), data=images).run(tmp_path / "part", progress=False, resume=True)
    assert separations(list(resumed.records)) == separations(list(whole.records))
    assert torch.equal(weights(resumed), weights(whole))


# Under privacy


def test_under_privacy_sketches_come_first_and_nothing_more_is_released(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger's charges are those of fixed weights, in another order, and so are the groups."""
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(0))
    charged, found = {}, []
    for adaptive in (True, False):
        folder = tmp_path / str(adaptive)
        Federation(private(adaptive=adaptive), data=images).run(folder, progress=False)
        ledger = PrivacyLedger.load(folder / "ledger.json")
        charged[adaptive] = sorted(
            (each.phase, each.round, each.subjects, str(each.event)) for each in ledger.releases
        )
        found.append(load_file(folder / "model" / "pools.safetensors"))
    assert charged[True] == charged[False]
    assert torch.equal(*(each["guide.centres"] for each in found))
    program = program_of(Federation(private(), data=images))
    assert program.names == ("centre", "sketch", "pretrain", "cluster")
    (first, *_), trained = (lines_of(tmp_path / "True", name) for name in ("sketch", "pretrain"))
    said = {each["separation"]["difference"] for each in trained}
    assert said == {first["difference"]}
    assert 0 <= first["difference"] <= 1
    tags = json.loads((tmp_path / "True" / "manifest.json").read_text())["files"]["metrics.jsonl"]
    assert set(tags["metrics"]["separation"].values()) == {"released:sketch"}
    assert tags["metrics"]["difference"] == "released:sketch"
    assert verify(tmp_path / "True").ok


# How far sketches differ


def summed_sketches(step: Sketch, sketches: Tensor, noise_square: float) -> Any:
    total = OpenSum()
    for client, sketch in enumerate(sketches):
        square = float(sketch.double().square().sum())
        fields = torch.cat([sketch.float(), torch.tensor([square, noise_square, 1.0])])
        total.add(client, step.sketch_grid.blocks(fields, 0))
    return total.open()


@pytest.fixture(scope="module")
def step(images: Dataset) -> Sketch:
    program = program_of(Federation(private(), data=images))
    found = program.steps[1]
    assert isinstance(found, Sketch)
    return found


@settings(max_examples=30, deadline=None)
@given(clients=st.integers(2, 12), seed=st.integers(0, 999), scale=st.floats(0.01, 0.9))
def test_it_is_the_correlation_ratio_of_what_was_sent(
    clients: int, seed: int, scale: float, step: Sketch
) -> None:
    """Against the definition: variance between over variance of unit vectors."""
    width, generator = step.factory.sketch.width, torch.Generator().manual_seed(seed)
    sketches = torch.nn.functional.normalize(
        torch.randn(clients, width, generator=generator), dim=1
    )
    sketches = scale * sketches.double()
    between = sketches.var(0, correction=1).sum()
    expected = sqrt(min(1.0, float(between / (1 - sketches.mean(0).square().sum()))))
    found = step._difference(summed_sketches(step, sketches, 0.0))
    assert found == pytest.approx(expected, abs=2e-3)


def test_alike_is_0_unlike_is_1_and_a_single_client_says_nothing(step: Sketch) -> None:
    width = step.factory.sketch.width
    same = torch.full((5, width), 0.2)
    assert step._difference(summed_sketches(step, same, 0.0)) == pytest.approx(0, abs=0.03)
    apart = torch.eye(width)[:6]
    assert step._difference(summed_sketches(step, apart, 0.0)) == pytest.approx(1, abs=1e-3)
    assert step._difference(summed_sketches(step, same[:1], 0.0)) is None


def test_what_noise_adds_is_taken_off(step: Sketch) -> None:
    """Forty draws of noise as large as the sketches: right in the mean, and far too large
    without the correction.
    """
    width, generator = step.factory.sketch.width, torch.Generator().manual_seed(0)
    centre = 0.3 * torch.eye(width)[:6]
    deviation = 0.3 / sqrt(width)
    squares: dict[float, list[float]] = {0.0: [], width * deviation**2: []}
    for _ in range(40):
        noise = deviation * torch.randn(6, width, generator=generator)
        sent = torch.stack([shortened(each) for each in centre + noise])
        for known, found in squares.items():
            found.append((step._difference(summed_sketches(step, sent, known)) or 0) ** 2)
    clean = (step._difference(summed_sketches(step, centre, 0.0)) or 0) ** 2
    without, taken_off = (sum(found) / len(found) for found in squares.values())
    assert taken_off == pytest.approx(clean, rel=0.15)
    assert without > 1.6 * clean


def test_a_protected_run_without_private_examples_sums_no_size_of_a_client(
    images: Dataset,
) -> None:
    config = tiny_config(
        **SIX, security={"protection": "masked"}, pools={"count": 1, "start": "sketch"}
    )
    form = Federation(config, data=images).factory.sketch
    assert form.released is not None
    assert not form.compared


# On record


def test_a_changed_weight_on_record_is_found(tmp_path: Path, images: Dataset) -> None:
    folder = tmp_path / "run"
    Federation(opened(), data=images).run(folder, progress=False)
    assert verify(folder).ok
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines()
    number = next(place for place, line in enumerate(lines) if '"separation"' in line)
    changed = json.loads(lines[number])
    changed["metrics"]["separation"]["gamma"] *= 1.5
    path.write_text("\n".join([*lines[:number], json.dumps(changed), *lines[number + 1 :]]) + "\n")
    found = [each.field for each in verify(folder).findings if each.file == "metrics.jsonl"]
    assert f"line {number + 1}: separation" in found
