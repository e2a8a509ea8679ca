"""The public facts of a run, and what is made from them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from secure_fl import Federation
from secure_fl.data.dataset import Dataset
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.facts import PublicFacts
from secure_fl.federation.plan import Plan
from secure_fl.federation.site import program_of
from secure_fl.models.state import to_vector
from tests.helpers import make_images, tiny_config


@pytest.fixture
def images() -> Dataset:
    return make_images(120)


def plan_of(facts: PublicFacts) -> Plan:
    names = tuple(f"client {number}" for number in range(facts.clients))
    told = (facts.config.model_dump(mode="json"), facts.shape, facts.classes, names)
    made = Plan(*told, bytes(32), bytes(32), bytes(32), 1 << 20, "server", largest=facts.largest)
    return Plan.decode(made.encode())


@pytest.mark.parametrize("longer", [False, True])
def test_facts_come_back_from_their_document(images: Dataset, longer: bool) -> None:
    facts = Federation(tiny_config(), data=images).factory.facts
    begun = tiny_config(pools={"rounds": 9}) if longer else None
    facts = PublicFacts(facts.config, facts.shape, facts.classes, 4, 17, begun)
    assert PublicFacts.from_document(json.loads(json.dumps(facts.document()))) == facts
    assert facts.calibrated_for == (begun or facts.config)


@pytest.mark.parametrize(
    "tables",
    [
        {"pools": {"task": "self_supervised"}},
        {"pools": {"encoder": "shared"}, "security": {"protection": "plain"}},
        {"privacy": {"unit": "client", "noise": 2.0, "epsilon": 60.0, "min_clients": 3}},
    ],
)
def test_a_plan_makes_what_the_simulation_makes(images: Dataset, tables: dict[str, Any]) -> None:
    """Every site makes its program from the plan alone; sums fit only where all are alike."""
    here = Federation(tiny_config(**tables), data=images).factory
    there = program_of(plan_of(here.facts)).factory
    assert there.facts == here.facts
    assert (there.features, there.client_plan) == (here.features, here.client_plan)
    for made in (Factory.encoder_projector, lambda factory: factory.pool_model(5)):
        assert torch.equal(to_vector(made(there)), to_vector(made(here)))
    assert [there.grid(name) for name in ("pretrain", "cluster")] == [
        here.grid(name) for name in ("pretrain", "cluster")
    ]
    assert there.objective(1).couplings == here.objective(1).couplings
