"""Honest runs are held, planted faults are found, and what an attack needs is there."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from secure_fl.audit.attacks import membership
from secure_fl.audit.attacks.membership import MEMBERSHIP
from secure_fl.audit.attacks.membership_game import Slots
from secure_fl.audit.attacks.membership_replay import Replay
from secure_fl.audit.attacks.pool_guess import POOL_GUESS
from secure_fl.audit.attacks.property_probe import PROPERTY_PROBE
from secure_fl.audit.check import Check, Depth, Fault
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.planted.membership import small
from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig
from secure_fl.privacy.accounting import epsilon_of
from secure_fl.privacy.adjacency import Adjacency

CHECKS: tuple[Check, ...] = (MEMBERSHIP, POOL_GUESS, PROPERTY_PROBE)
QUICK = {"message length follows the choice", "sketch released without noise"}


def faults() -> list[Fault]:
    rooms = ("membership", "pool_guess", "property_probe")
    made = [importlib.import_module(f"secure_fl.audit.planted.{room}").FAULTS for room in rooms]
    return [each for room in made for each in room]


def run(fault: Fault, seed: int = 0) -> Outcome:
    check = next(each for each in CHECKS if each.name == fault.check)
    subject = Subject(fault.config())
    assert check.refused(subject) == ""
    assert check.estimate(subject, Depth.MINUTES) < 60
    return check.run(subject, Depth.MINUTES, seed, lambda _: None)


def shown(outcome: Outcome, name: str, setting: str) -> float:
    return next(
        each.value for each in outcome.figures if (each.name, each.setting) == (name, setting)
    )


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(each, id=each.name, marks=[] if each.name in QUICK else [pytest.mark.slow])
        for each in faults()
    ],
)
def test_a_planted_fault_is_found_and_the_honest_run_held(fault: Fault) -> None:
    honest = run(fault)
    assert honest.verdict == "held", honest.said
    with fault.plant():
        assert run(fault).verdict == "broken"


@pytest.mark.parametrize(
    "name", ["best pool named without drawing", "statistic released without noise"]
)
def test_a_fault_is_found(name: str) -> None:
    fault = next(each for each in faults() if each.name == name)
    with fault.plant():
        found = run(fault)
    assert found.verdict == "broken"
    assert found.false_alarm == 1e-3


def test_membership_tells_a_model_without_noise_from_one_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    effort = replace(membership._EFFORTS[Depth.MINUTES], games=1, epochs=10)
    monkeypatch.setitem(membership._EFFORTS, Depth.MINUTES, effort)
    fault = next(each for each in faults() if each.check == "membership")
    with fault.plant():
        bare = run(fault)
    decoding = "AUC: update decoding on the pool model"
    assert bare.verdict == "broken"
    assert shown(bare, decoding, "defence off") > 0.95
    assert shown(bare, decoding, "defence on") > 0.95
    [bound] = bare.bounds
    assert bound.epsilon > bound.details["claimed"] > 0.3


def test_the_claim_of_a_replay_is_what_the_client_charges_at_replace_one() -> None:
    subject = Subject(small())
    client = subject.clients[0]
    replay = Replay(subject.factory, client, {"pretrain": 1, "cluster": 1})
    made, charged = replay.defended(client.train)
    assert set(made) == {"cluster"}
    assert {each.adjacency for each in charged} == {Adjacency.REPLACE_ONE}
    spent = epsilon_of(charged, subject.config.privacy.delta)
    assert subject.config.privacy.epsilon < spent < 3 * subject.config.privacy.epsilon
    ended = replay.model("cluster", made["cluster"].end, None)
    assert torch.equal(replay.vector("cluster", ended), made["cluster"].end)


def test_a_slot_trains_on_one_of_its_two_candidates() -> None:
    client = Subject(small()).clients[0]
    slots = Slots.of(client, 40, seed=3)
    coins = np.arange(40) % 3 == 0
    trained, both = slots.trained(coins), slots.candidates
    assert len(trained) == len(client.train)
    for slot, coin in enumerate(coins):
        assert torch.equal(trained.x[slot], both.x[slot if coin else 40 + slot])
    assert torch.equal(trained.x[40:], slots.always.x)
    seen = {row.numpy().tobytes() for row in torch.cat([both.x, slots.always.x])}
    assert not seen & {row.numpy().tobytes() for row in slots.others.x}


def test_client_level_is_replayed_with_the_noise_that_is_counted_on() -> None:
    config = FederationConfig.model_validate(
        {
            "data": {"sources": [{"name": "digits", "limit": 300}]},
            "partition": {"kind": "iid", "clients": 12},
            "pretrain": {"mode": "none"},
            "pools": {"count": 1, "rounds": 1, "local_epochs": 1},
            "privacy": {"unit": "client", "epsilon": 5.0},
        }
    )
    subject = Subject(config)
    replay = Replay(subject.factory, subject.clients[0], {"pretrain": 1, "cluster": 1})
    made, charged = replay.defended(subject.clients[0].train)
    plan = subject.factory.client_plan
    assert plan is not None
    assert plan.pools is not None
    deviation = plan.pools.noise_multiplier * plan.pools.bound
    assert float(made["cluster"].first.std()) == pytest.approx(deviation, rel=0.02)
    assert 5.0 < epsilon_of(charged, config.privacy.delta) < math.inf


def test_what_does_not_apply_is_refused() -> None:
    alone = Subject(FederationConfig.model_validate({"pools": {"count": 1}}))
    assert "no pools" in POOL_GUESS.refused(alone)
    plain = {"security": {"protection": "plain"}, "pools": {"start": "random"}}
    assert PROPERTY_PROBE.refused(Subject(FederationConfig.model_validate(plain)))
    elsewhere = {"mode": "centralized", "source": {"name": "digits"}}
    nothing = {"pretrain": elsewhere, "pools": {"enabled": False}}
    assert MEMBERSHIP.refused(Subject(FederationConfig.model_validate(nothing)))
