"""The terms of a signed plan: what it states beside its configuration, and what it cannot state."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from secure_fl.config import FederationConfig
from secure_fl.errors import ConfigError
from secure_fl.federation.policy.cost import OwnData
from secure_fl.federation.policy.policy import Policy
from secure_fl.federation.policy.terms import SOURCE, PlanTerms

TODAY = datetime.date(2026, 5, 4)
CODE = "ab" * 32
PRIVATE: dict[str, Any] = {
    "privacy": {"unit": "example", "epsilon": 4.0},
    "evaluate": {"enabled": False},
    "pretrain": {"rounds": 3},
    "pools": {"rounds": 4},
}


@dataclass(frozen=True)
class Stated:
    """A plan as somebody may sign it."""

    config: FederationConfig = field(default_factory=lambda: FederationConfig(**PRIVATE))
    shape: tuple[int, ...] = (1, 8, 8)
    classes: int = 10
    clients: tuple[str, ...] = tuple(f"site-{number}" for number in range(12))
    roster: bytes = bytes(32)
    digest: bytes = bytes(range(32))
    first_day: str = ""
    last_day: str = ""
    code: Mapping[str, str] = field(default_factory=dict)
    publish_models: bool = False


def refused(plan: Stated, policy: Policy | None = None, own: OwnData | None = None) -> set[str]:
    terms = PlanTerms.of_plan(plan, own, revision=3, code=CODE)
    return {each.field for each in (policy or Policy()).check(terms, TODAY)}


def test_a_plan_within_the_defaults_is_accepted() -> None:
    assert refused(Stated()) == set()
    strict = Policy(
        study={
            "roster_revision": 3,
            "roster_digest": bytes(32).hex(),
            "plans": [bytes(range(32)).hex()],
            "code": [CODE],
        }
    )
    assert refused(Stated(code={SOURCE: CODE}), strict) == set()


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"publish_models": True}, "sums.publish_models"),
        ({"code": {SOURCE: "cd" * 32}}, "study.code"),
        ({"code": {"another": CODE}}, "study.code"),
        ({"code": {"another": CODE, SOURCE: CODE}}, "study.code"),
        ({"first_day": "2026-05-05"}, "study.begin"),
        ({"last_day": "2026-05-03"}, "study.end"),
    ],
)
def test_what_a_plan_states_is_judged(change: dict[str, Any], setting: str) -> None:
    assert refused(replace(Stated(), **change)) == {setting}


def test_days_that_are_none_are_told() -> None:
    for day in ("2026-02-30", "tomorrow", "2026"):
        with pytest.raises(ConfigError, match="first_day"):
            refused(Stated(first_day=day))


def test_thresholds_are_of_the_clients_that_the_plan_names() -> None:
    few = Stated(
        clients=("a", "b", "c"), config=FederationConfig(**PRIVATE | {"pools": {"count": 1}})
    )
    assert refused(few, Policy(sums={"cohort": 4, "threshold": 4})) == {
        "sums.cohort",
        "sums.threshold",
    }


def test_the_plan_gives_the_shape_and_the_site_its_own_numbers() -> None:
    """At client level ε of a set noise is always known; at example level where it is said."""
    privacy = {"unit": "client", "epsilon": 1.5, "noise": 2.0, "min_clients": 9}
    level = FederationConfig(**PRIVATE | {"privacy": privacy})
    terms = PlanTerms.of_plan(Stated(level), revision=1, code=CODE)
    assert terms.epsilon is not None
    assert terms.epsilon > 1.5
    example = FederationConfig(**PRIVATE | {"privacy": {"unit": "example", "noise": 1.0}})
    assert refused(Stated(example)) == {"privacy.epsilon"}, "unknown without a number of examples"
    assert refused(Stated(example), own=OwnData(100)) == {"privacy.epsilon"}
    quiet = FederationConfig(**PRIVATE | {"privacy": {"unit": "example", "noise": 20.0}})
    assert refused(Stated(quiet), own=OwnData(100)) == set()


def test_an_objection_reads_as_a_sentence() -> None:
    terms = PlanTerms.of_plan(Stated(publish_models=True), revision=1, code=CODE)
    (found,) = Policy().check(terms, TODAY)
    assert str(found) == "sums.publish_models: yes asked, no allowed [not-accepted]"
