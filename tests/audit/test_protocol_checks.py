"""Checks of the protocol: each holds on an honest run, and finds what is planted for it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from secure_fl.audit.check import Depth, Fault
from secure_fl.audit.checks import masks
from secure_fl.audit.checks.cohort import COHORT
from secure_fl.audit.checks.lies import ACTS
from secure_fl.audit.checks.poisoner import OFF, POISONER
from secure_fl.audit.checks.pool_mate import POOL_MATE
from secure_fl.audit.checks.scene import Scene
from secure_fl.audit.checks.short_run import elsewhere, made_up_examples, run, short
from secure_fl.audit.checks.stage import Stage
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.planted import disk as on_disk
from secure_fl.audit.planted import protocol
from secure_fl.audit.subject import Subject
from secure_fl.audit.suite.catalogue import checks
from secure_fl.config import FederationConfig
from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.key_streams import WORDS
from secure_fl.he.parameters import BATCHING_PRIME

CHECKS = {check.name: check for check in checks()}
FAULTS = {fault.name: fault for fault in (*protocol.FAULTS, *on_disk.FAULTS)}
QUICK = (
    "mask off",
    "choice in a header",
    "truncated cohort accepted",
    "a share fewer than stated",
    "a second survivor set signed",
    "charged after it is answered",
    "private results after the end",
    "claimed counts believed",
    "over-norm update accepted",
    "unclipped update accepted",
    "pools opened a member short",
)
PROTECTED = [
    {"protection": "masked"},
    pytest.param({"protection": "bfv+masked"}, marks=pytest.mark.slow),
    {"protection": "bfv+masked", "key_holder": "authority"},
]


def tried(check: str, config: FederationConfig) -> Outcome:
    return CHECKS[check].run(Subject(config), Depth.MINUTES, 0, lambda _: None)


def of(security: dict[str, Any], clients: int = 7) -> FederationConfig:
    tables = protocol.masked().model_dump(include={"pools"}, exclude_unset=True)
    tables |= {"partition": {"clients": clients, "kind": "iid"}, "security": security}
    return FederationConfig.model_validate(tables)


def planted(fault: Fault) -> Outcome:
    with fault.plant():
        return tried(fault.check, fault.config())


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_fault_is_found(name: str) -> None:
    assert planted(FAULTS[name]).verdict == "broken"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAULTS if name not in QUICK])
def test_each_further_planted_fault_is_found(name: str) -> None:
    assert planted(FAULTS[name]).verdict == "broken"


@pytest.mark.parametrize(
    "name", ["masks", "choice-hidden", "cohort", "poisoner", "pool-mate", "disk"]
)
def test_an_honest_run_holds(name: str) -> None:
    assert tried(name, protocol.masked()).verdict == "held"


@pytest.mark.parametrize("security", PROTECTED)
def test_every_lie_is_told_and_refused(security: dict[str, Any]) -> None:
    outcome = tried("liar", of(security, 6))
    assert outcome.verdict == "held"
    assert not [figure.name for figure in outcome.figures if "not told" in figure.name]
    assert len(outcome.figures) >= 40


@pytest.mark.slow
@pytest.mark.parametrize("name", ["disk", "ledger-chain"])
@pytest.mark.parametrize("config", [on_disk.client_level, protocol.masked])
def test_an_honest_folder_holds(name: str, config: Any) -> None:
    if not CHECKS[name].refused(Subject(config())):
        assert tried(name, config()).verdict == "held"


def test_nothing_is_tried_of_sums_in_the_open() -> None:
    subject = Subject(of({"protection": "plain"}))
    for name in ("liar", "cohort", "masks", "choice-hidden", "pool-mate"):
        assert "plain" in CHECKS[name].refused(subject)


# What is played is the run


def test_thresholds_are_those_that_the_run_records() -> None:
    """As its transcript says them, for the sum of its pools."""
    config = short(of({"protection": "masked"}))
    with elsewhere() as folder:
        run(config, made_up_examples(config.partition.clients), folder / "run")
        lines = (folder / "run" / "transcript.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
    [facts] = [
        entry["facts"]
        for entry in entries
        if entry["kind"] == "round" and entry["facts"]["step"] == "cluster"
    ]
    stage = Stage(Scene.of(Subject(config), 16))
    stage.stop(Phase.ADVERTISE)
    plan = stage.round_plan
    ours = (plan.survivors_needed, plan.shares_needed, plan.minimum, plan.count_unit)
    assert ours == tuple(facts[name] for name in ("fewest", "threshold", "minimum", "unit"))
    assert len(plan.cohort) == len(facts["cohort"])


@pytest.mark.parametrize(("clients", "threshold", "least"), [(40, 24, 30), (20, 15, 15)])
def test_fewer_clients_are_played_with_thresholds_in_proportion(
    clients: int, threshold: int, least: int
) -> None:
    security = {"protection": "masked", "threshold": threshold, "min_survivors": least}
    rules = Scene.of(Subject(of(security, clients)), 10).config.security.sums(10)
    assert rules.threshold == -(-threshold * 10 // clients)
    assert rules.survivors == -(-least * 10 // clients)


def test_an_honest_round_on_a_stage_opens_what_was_put_in() -> None:
    stage = Stage(Scene.of(Subject(protocol.masked()), 8))
    stage.run()
    put_in = sum(stage.given(client, 0).pools[0] for client in range(6))
    for client in stage.clients:
        assert client.state is not None
        assert (client.state.tensors["pools"][0] == put_in).all()
        assert not client.state.tensors["pools"][1].any()


def test_each_lie_is_told_to_a_client_that_goes_on_without_it() -> None:
    """Control: at each place where lies are told, the honest message is answered."""
    scene = Scene.of(Subject(protocol.masked()), 8)
    for act in ACTS[:-2]:
        stage = Stage(scene)
        held = stage.stop(act.phase, act.chunk)
        answered = stage.answers(stage.clients[0], held[stage.names[0]])
        assert not answered.word, act


# Figures


def figure(outcome: Outcome, name: str, setting: str = "") -> Figure:
    [found] = [each for each in outcome.figures if name in each.name and each.setting == setting]
    return found


def test_the_smallest_list_is_two_thirds_and_one() -> None:
    found = COHORT.run(Subject(of({"protection": "masked"}, 10)), Depth.MINUTES, 0, lambda _: None)
    assert figure(found, "smallest list").value == 2 * 10 // 3 + 1
    assert figure(found, "2t - m").value == 2 * (2 * 10 // 3 + 1) - 10


def test_an_over_norm_client_moves_its_share_of_the_clamp() -> None:
    config = of({"protection": "masked", "clamp": 0.5})
    found = POISONER.run(Subject(config), Depth.MINUTES, 0, lambda _: None)
    assert figure(found, "over-norm", OFF).value == pytest.approx(0.5 / 7, rel=1e-5)


def test_mates_have_the_last_one_without_noise_and_not_with_it() -> None:
    found = POOL_MATE.run(Subject(protocol.masked()), Depth.MINUTES, 0, lambda _: None)
    assert figure(found, "2 of 3", OFF).value > 0.9999
    assert figure(found, "1 of 3", OFF).value == pytest.approx(0.5**0.5, abs=0.3)
    assert abs(figure(found, "2 of 3", "defence on").value) < 0.9


# Masks: the statistics themselves


@pytest.mark.parametrize("modulus", [WORDS, BATCHING_PRIME])
def test_uniform_residues_raise_no_alarm(modulus: int) -> None:
    rng = np.random.default_rng(3)
    lowest = []
    for _ in range(200):
        slots = rng.integers(0, modulus, 4000, dtype=np.uint64, endpoint=False)
        lowest += list(masks._of(slots, rng.normal(size=4000), modulus))
    ps, zs = zip(*lowest, strict=True)
    assert min(ps) > 1e-6
    assert max(zs) < 5
    assert 0.4 < float(np.mean(ps)) < 0.6


@pytest.mark.parametrize("modulus", [WORDS, BATCHING_PRIME])
def test_residues_that_lean_are_seen(modulus: int) -> None:
    """A mask whose top bit is never set; and one of a fifth of a turn, over a larger input."""
    rng = np.random.default_rng(4)
    half = rng.integers(0, modulus // 2, 4000, dtype=np.uint64)
    assert min(p for p, _ in masks._of(half, rng.normal(size=4000), modulus)) < 1e-9
    truth = rng.normal(size=4000)
    turns = (0.2 * rng.random(4000) + 0.1 * truth) % 1.0
    slots = (turns * (modulus - 1)).astype(np.uint64)
    assert max(z for _, z in masks._of(slots, truth, modulus)) > 6


def test_a_difference_of_residues_wraps() -> None:
    one, other = np.array([1, 5], np.uint64), np.array([3, 2], np.uint64)
    assert masks._less(one, other, 7).tolist() == [5, 3]
    assert masks._less(one, other, WORDS).tolist() == [2**64 - 2, 3]
