"""Weights that follow how far clients differ: bounded, monotone, the same for everybody, and
refused where there is nothing to follow.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.config import FederationConfig, ObjectiveConfig
from secure_fl.errors import ConfigError
from secure_fl.objectives.adaptive import adapted, gamma_of, separation_factor
from secure_fl.objectives.build import build_objective
from secure_fl.objectives.separation import Separation

DIFFERENCES = st.floats(0, 1)
BOUNDS = st.tuples(st.just(0.0) | st.floats(1e-9, 1), st.floats(1, 20))


def config(bounds: tuple[float, float] = (0.5, 2.0), **settings: Any) -> ObjectiveConfig:
    least, most = bounds
    return ObjectiveConfig(adaptive=True, adaptive_least=least, adaptive_most=most, **settings)


@given(bounds=BOUNDS, difference=st.floats(-10, 10))
def test_the_factor_stays_within_its_bounds_whatever_was_measured(
    bounds: tuple[float, float], difference: float
) -> None:
    least, most = bounds
    assert least <= separation_factor(config(bounds), difference) <= most * (1 + 1e-15)


@given(bounds=BOUNDS, one=DIFFERENCES, other=DIFFERENCES)
def test_it_grows_with_the_difference(
    bounds: tuple[float, float], one: float, other: float
) -> None:
    low, high = sorted((one, other))
    low_factor, high_factor = (separation_factor(config(bounds), each) for each in (low, high))
    assert low_factor <= high_factor * (1 + 1e-15)


@given(bounds=BOUNDS)
def test_it_reaches_both_bounds_and_is_1_while_nothing_is_known(
    bounds: tuple[float, float],
) -> None:
    ends = [separation_factor(config(bounds), each) for each in (0.0, 1.0)]
    assert ends == pytest.approx(list(bounds))
    assert separation_factor(config(bounds), None) == 1.0
    assert separation_factor(ObjectiveConfig(), 0.9) == 1.0


@given(difference=DIFFERENCES, gamma=st.floats(1e-6, 5), delta=st.floats(1e-6, 5))
def test_gamma_and_delta_are_multiplied_alike_and_nothing_else_changes(
    difference: float, gamma: float, delta: float
) -> None:
    before = config(gamma=gamma, delta=delta)
    after, factor = adapted(before, difference), separation_factor(before, difference)
    assert (after.gamma, after.delta) == (factor * gamma, factor * delta)
    assert after.model_copy(update={"gamma": gamma, "delta": delta}) == before
    assert adapted(before, difference) == after, "a pure function"


@pytest.mark.parametrize("form", ["code", "normalized", "paper"])
def test_the_form_s_own_gamma_is_what_is_multiplied(form: Any) -> None:
    objective = build_objective(adapted(config(form=form), 1.0), Separation(torch.tensor([0, 3])))
    assert objective.weights["dsr"] == 2 * gamma_of(ObjectiveConfig(form=form))
    assert objective.weights["distillation"] == pytest.approx(0.2)


def test_the_rule_needs_no_torch() -> None:
    code = "import sys, secure_fl.objectives.adaptive; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("tables", "field"),
    [
        ({"objective": {"name": "align_uniform"}}, "objective.adaptive"),
        ({"pretrain": {"mode": "none"}, "pools": {"start": "random"}}, "objective.adaptive"),
        ({"privacy": {"unit": "client"}}, "objective.adaptive"),
        ({"security": {"robust": "median", "group_size": 3}}, "security.robust"),
        ({"privacy": {"unit": "example"}, "pools": {"enabled": False}}, "pools.sketch_of"),
        (
            {"privacy": {"unit": "example"}, "pools": {"sketch_of": "encoder"}},
            "pools.sketch_of",
        ),
    ],
)
def test_it_is_refused_where_nothing_says_how_far_clients_differ(
    tables: dict[str, dict[str, Any]], field: str
) -> None:
    tables = {**tables, "objective": {"adaptive": True, **tables.get("objective", {})}}
    with pytest.raises(ConfigError) as caught:
        FederationConfig(**{"pools": {"count": 1}, **tables})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("pretrain", "remedy"),
    [
        ({"mode": "none"}, 'pretrain.mode = "federated"'),
        ({"mode": "centralized", "source": {}}, 'pretrain.mode = "federated"'),
        ({"method": "view_moments"}, 'pretrain.method = "train"'),
    ],
)
def test_a_pre_training_that_trains_nobody_is_told_what_would(
    pretrain: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        FederationConfig(objective={"adaptive": True}, pretrain=pretrain)
    assert caught.value.field == "objective.adaptive"
    assert caught.value.remedy.startswith(f"set {remedy}")


def test_bounds_hold_1_between_them() -> None:
    for wrong in ({"adaptive_least": 1.1}, {"adaptive_most": 0.9}, {"adaptive_least": -0.1}):
        with pytest.raises(ConfigError):
            ObjectiveConfig(**wrong)
