"""Checks of example-level training: held on honest runs, broken on planted faults."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_images, tiny_config

from secure_fl import Federation, audit
from secure_fl.audit.check import Check, Depth, Fault
from secure_fl.audit.checks import coupling, example_noise, hubs, inputs
from secure_fl.audit.clip_canaries import board_of, play
from secure_fl.audit.own_training import OwnTraining, private_phases
from secure_fl.audit.planted import coupling as coupled
from secure_fl.audit.planted import example_noise as noised
from secure_fl.audit.planted import inputs as put_in
from secure_fl.audit.subject import Subject
from secure_fl.engines.embedded import new_noise
from secure_fl.errors import AuditError
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.ledger import PrivacyLedger

CHECKS: dict[str, Check] = {
    check.name: check
    for check in (example_noise.EXAMPLE_NOISE, hubs.HUBS, coupling.COUPLING, inputs.INPUTS)
}
FAULTS = (*noised.FAULTS, *coupled.HUBS, *coupled.FAULTS, *put_in.FAULTS)
QUICK = {
    "example-noise": (
        "half noise",
        "noise on gradients and not on the statistic",
        "everybody in every step, charged at the rate",
        "one seed for all clients and rounds",
        "no clip factor",
        "no noise on biases",
        "one vector of noise for all layers",
        "gradients over the number drawn",
        "a statistic over the number drawn",
        "replace-one charged as zero-out",
    ),
    "hubs": ("per-sample clipping of NT-Xent", "batch-coupled augmentation: neighbours mixed"),
    "coupling": ("per-sample clipping of NT-Xent",),
    "inputs": ("training in the clear",),
}


def quick(fault: Fault) -> bool:
    return fault.name in QUICK[fault.check]


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(example_noise._SIZES, Depth.MINUTES, (1000, 10_000))
    monkeypatch.setitem(hubs._SIZES, Depth.MINUTES, (12, 1, 1))
    monkeypatch.setitem(coupling._SIZES, Depth.MINUTES, (8, 1, 3))


@cache
def subject(text: str) -> Subject:
    """One federation a configuration."""
    return Subject(next(f.config() for f in FAULTS if f.config().model_dump_json() == text))


def verdict(fault: Fault) -> str:
    found = CHECKS[fault.check].run(
        subject(fault.config().model_dump_json()), Depth.MINUTES, 0, lambda _: None
    )
    assert found.false_alarm <= 1e-3
    return found.verdict


def caught(fault: Fault) -> None:
    with fault.plant():
        assert verdict(fault) == "broken"


def named(faults: tuple[Fault, ...]) -> Any:
    ids = [f"{fault.check}: {fault.name}" for fault in faults]
    return pytest.mark.parametrize("fault", faults, ids=ids)


@named(tuple(fault for fault in FAULTS if quick(fault)))
def test_a_planted_fault_is_caught(fault: Fault) -> None:
    caught(fault)


@pytest.mark.slow
@named(tuple(fault for fault in FAULTS if not quick(fault)))
def test_every_other_planted_fault_is_caught(fault: Fault) -> None:
    caught(fault)


HONEST = {(each.check, each.config().model_dump_json()): each for each in reversed(FAULTS)}
FEW = {fault.check: fault for fault in HONEST.values()}


@named(tuple(FEW.values()))
def test_the_same_run_is_held_without_the_fault(fault: Fault) -> None:
    assert verdict(fault) == "held"


@pytest.mark.slow
@named(tuple(fault for fault in HONEST.values() if fault not in FEW.values()))
def test_every_other_run_is_held_without_the_fault(fault: Fault) -> None:
    assert verdict(fault) == "held"


@pytest.mark.parametrize("config", [noised.small(), noised.full("replace-one")])
def test_a_canary_is_as_long_as_the_bound_in_its_own_coordinate(config: Any) -> None:
    """With next to no noise each sum holds ±1 for canaries that were drawn, and 0 elsewhere."""
    privacy = config.privacy.model_copy(update={"noise": 1e-6, "epsilon": 1e12})
    opposite = privacy.adjacency == "replace-one"
    own = OwnTraining.of(
        Subject(config.model_copy(update={"privacy": privacy})), "pretrain", new_noise()
    )
    included = np.random.default_rng(0).random(1000) < 0.5
    played = play(own, board_of(own, included, opposite=opposite), 3)
    signs = np.where(included, 1.0, -1.0 if opposite else 0.0)
    expected = np.zeros_like(played.sums[0])
    expected[:, played.places[:1000]] = signs * played.drawn[:, :1000]
    for part in played.sums:
        assert np.abs(part - expected).max() < 1e-3
    assert 0 < played.drawn.mean() <= 1


def test_a_folder_is_held_against_what_its_ledger_says(tmp_path: Path) -> None:
    privacy = {"unit": "example", "noise": 3.0, "epsilon": 500.0}
    short = {"rounds": 1, "local_epochs": 1}
    config = tiny_config(privacy=privacy, pretrain=short, pools=short | {"warmup_rounds": 0})
    images = make_images(240)
    Federation(config, data=images).run(tmp_path / "run", progress=False)
    audited = Subject.of(tmp_path / "run", data=images)
    ledger = PrivacyLedger.load(tmp_path / "run" / "ledger.json")
    for phase in private_phases(audited.config):
        own = OwnTraining.of(audited, phase, new_noise())
        mine = [
            each
            for each in ledger.releases
            if each.phase == phase and each.purpose == "training" and 0 in each.subjects
        ]
        assert own.charged == mine[0].event
        assert own.rounds == len(mine)
    found = example_noise.EXAMPLE_NOISE.run(audited, Depth.MINUTES, 0, lambda _: None)
    assert found.verdict == "held"
    claims = {bound.method: bound.details["claimed"] for bound in found.bounds}
    delta = audited.config.privacy.delta
    most = epsilon([own.charged.times(own.rounds)], delta, Adjacency.ZERO_OUT, fine=False)
    assert 0 < claims["one run, cluster"] <= 1.01 * most


def test_a_run_without_example_level_privacy_is_refused() -> None:
    open_run = Subject(tiny_config())
    assert all("privacy.unit" in check.refused(open_run) for check in CHECKS.values())
    with pytest.raises(AuditError, match="single examples"):
        audit.path_sensitivity(tiny_config())


def test_sensitivity_is_a_command_on_the_users_own_parts() -> None:
    """A caller's data, encoder and augmentation; and the search reaches what is claimed."""
    config = tiny_config(
        privacy={"unit": "example", "noise": 3.0, "epsilon": 500.0, "clip": 0.05},
        pools={"enabled": False},
    )
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.Tanh())
    report = audit.path_sensitivity(
        config,
        data=make_images(240),
        encoder=encoder,
        augment=lambda x: x + 0.1 * torch.randn_like(x),
        examples=8,
        climbs=5,
    )
    report.require()
    assert 0.99 < report.ratio <= 1 + 1e-4
    tried = {finding.newcomer for finding in report.findings}
    assert any("optimised" in each for each in tried)
    assert {"own, nan", "own, huge", "own, duplicate", "own, climbed hub"} <= tried
