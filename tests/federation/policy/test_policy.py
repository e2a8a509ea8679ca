"""A site's policy: whatever is weaker is refused by name, whatever is as strong is accepted."""

from __future__ import annotations

import datetime
import subprocess
import sys
from dataclasses import fields, replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.config import FederationConfig
from secure_fl.errors import ConfigError
from secure_fl.federation.policy.cost import OwnData
from secure_fl.federation.policy.policy import Policy, default_policy
from secure_fl.federation.policy.rules import RULES, Objection
from secure_fl.federation.policy.terms import NOBODY, PlanTerms, Signed

TODAY = datetime.date(2026, 5, 4)
DAY = datetime.timedelta(days=1)
ONE, OTHER = "ab" * 32, "cd" * 32
SIGNED = Signed(3, ONE, ONE, ONE, TODAY - DAY, TODAY + DAY)
STRICT = Policy(
    privacy={"unit": ["client"], "adjacency": ["replace-one"], "epsilon": 2.0, "delta": 1e-6,
             "sketch_epsilon": 0.5, "noise": 1.5, "clip": 2.0, "colluders": 2, "metrics": False},
    sums={"protection": ["masked"], "key_holder": ["authority"], "publish_models": False,
          "cohort": 8, "survivors": 6, "pool": 4, "threshold": 6, "against_a_liar": 4,
          "clamp": 0.5},
    study={"begin": TODAY - DAY, "end": TODAY + DAY, "rounds": 20, "releases": 25,
           "roster_revision": 3, "roster_digest": ONE, "plans": [ONE], "versions": ["1.0"],
           "code": [ONE]},
)  # fmt: skip
MET = PlanTerms(
    unit="client", adjacency="replace-one", epsilon=2.0, delta=1e-6, sketch_epsilon=0.5, noise=1.5,
    clip=2.0, noise_colluders=2, metrics=False, protection="masked", key_holder="authority",
    publish_models=False, cohort=8, survivors=6, pool=4, threshold=6, against_a_liar=4, clamp=0.5,
    rounds=20, releases=25, code=ONE, version="1.0", signed=SIGNED,
)  # fmt: skip

WEAKER: dict[str, list[dict[str, Any]]] = {
    "privacy.unit": [{"unit": "none"}, {"unit": "example"}],
    "privacy.adjacency": [{"adjacency": "zero-out"}, {"adjacency": "add-remove"}],
    "privacy.epsilon": [{"epsilon": 2.0001}, {"epsilon": inf}, {"epsilon": nan}, {"epsilon": None}],
    "privacy.delta": [{"delta": 1.1e-6}],
    "privacy.sketch_epsilon": [{"sketch_epsilon": 0.6}, {"sketch_epsilon": inf}],
    "privacy.noise": [{"noise": 1.49}, {"noise": 0.0}, {"noise": nan}, {"noise": None}],
    "privacy.clip": [{"clip": 2.1}, {"clip": inf}],
    "privacy.colluders": [{"noise_colluders": 1}],
    "privacy.metrics": [{"metrics": True}],
    "sums.protection": [{"protection": "plain"}, {"protection": "ckks"}],
    "sums.key_holder": [{"key_holder": "clients"}, {"key_holder": "server"}],
    "sums.publish_models": [{"publish_models": True}],
    "sums.cohort": [{"cohort": 7}],
    "sums.survivors": [{"survivors": 5}],
    "sums.pool": [{"pool": 3}],
    "sums.threshold": [{"threshold": 5}, {"threshold": 0}],
    "sums.against_a_liar": [{"against_a_liar": 3}],
    "sums.clamp": [{"clamp": 0.6}],
    "study.begin": [{"signed": replace(SIGNED, begin=TODAY - 2 * DAY)}],
    "study.end": [{"signed": replace(SIGNED, end=TODAY + 2 * DAY)}],
    "study.rounds": [{"rounds": 21}],
    "study.releases": [{"releases": 26}],
    "study.roster_revision": [
        {"signed": replace(SIGNED, roster_revision=each)} for each in (2, None)
    ],
    "study.roster_digest": [
        {"signed": replace(SIGNED, roster_digest=each)} for each in (OTHER, None)
    ],
    "study.plans": [{"signed": replace(SIGNED, plan=each)} for each in (OTHER, None)],
    "study.versions": [{"version": "1.1"}],
    "study.code": [
        {"code": OTHER, "signed": replace(SIGNED, code=None)},
        {"code": None},
        {"signed": replace(SIGNED, code=OTHER)},
    ],
}
STRONGER: list[dict[str, Any]] = [
    {"epsilon": 0.1}, {"delta": 1e-9}, {"sketch_epsilon": 0.0}, {"noise": 9.0}, {"clip": 0.1},
    {"noise_colluders": inf}, {"key_holder": NOBODY}, {"cohort": 9}, {"survivors": 9}, {"pool": 5},
    {"threshold": 9}, {"against_a_liar": 9}, {"clamp": 0.1}, {"rounds": 1}, {"releases": 1},
    {"signed": replace(SIGNED, roster_revision=4)}, {"signed": replace(SIGNED, begin=TODAY)},
    {"signed": replace(SIGNED, end=TODAY)}, {"signed": replace(SIGNED, begin=None, end=None)},
]  # fmt: skip


def names(objections: list[Objection]) -> set[str]:
    return {each.field for each in objections}


def test_what_is_as_strong_is_accepted() -> None:
    assert STRICT.check(MET, TODAY) == []
    assert STRICT.unchecked == ()


def test_every_setting_has_a_rule_and_is_tried_here() -> None:
    settings = {f"{name}.{key}" for name, table in STRICT for key in type(table).model_fields}
    assert settings == {rule.field for rule in RULES} == set(WEAKER)
    tried = {key for cases in WEAKER.values() for case in cases for key in case}
    assert tried == {field.name for field in fields(PlanTerms)}, "a term that no setting judges"


@pytest.mark.parametrize(("field", "change"), [(n, c) for n, cs in WEAKER.items() for c in cs])
def test_what_is_weaker_in_one_respect_is_refused_for_it_alone(
    field: str, change: dict[str, Any]
) -> None:
    assert names(STRICT.check(replace(MET, **change), TODAY)) == {field}


@pytest.mark.parametrize("change", STRONGER, ids=str)
def test_what_is_stronger_is_accepted(change: dict[str, Any]) -> None:
    assert STRICT.check(replace(MET, **change), TODAY) == []


@pytest.mark.parametrize(("field", "change"), [(n, cs[0]) for n, cs in WEAKER.items()])
def test_what_is_not_checked_is_named_and_not_refused(field: str, change: dict[str, Any]) -> None:
    table, name = field.split(".")
    if name in ("unit", "adjacency", "protection", "key_holder"):
        with pytest.raises(ConfigError, match=name):  # what is accepted is always said
            Policy(**{table: {name: "any"}})
        return
    kept = {each: dict(limits) for each, limits in STRICT}
    kept[table][name] = "any"
    policy = Policy(**kept)
    assert policy.unchecked == (field,)
    assert policy.check(replace(MET, **change), TODAY) == []


NUMBERS = [rule for rule in RULES if rule.check.says in ("at most ", "at least ")]
TERM = {field: next(iter(cases[0])) for field, cases in WEAKER.items()}


@given(st.sampled_from(NUMBERS), st.integers(3, 9), st.integers(1, 12))
def test_numbers_are_refused_exactly_where_they_are_weaker(
    rule: Any, limit: int, asked: int
) -> None:
    table, name = rule.field.split(".")
    scale = 1e-3 if name == "delta" else 1
    kept = {each: dict(limits) for each, limits in STRICT} | {}
    kept[table][name] = limit * scale
    term = TERM[rule.field]
    change = (
        {"signed": replace(SIGNED, roster_revision=asked)}
        if term == "signed"
        else {term: asked * scale}
    )
    weaker = asked > limit if rule.check.says == "at most " else asked < limit
    assert names(Policy(**kept).check(replace(MET, **change), TODAY)) == (
        {rule.field} if weaker else set()
    )


def test_days_are_of_the_site_and_of_the_plan() -> None:
    early, late = TODAY - 2 * DAY, TODAY + 2 * DAY
    silent = replace(MET, signed=replace(SIGNED, begin=None, end=None))
    assert [each.reason for each in STRICT.check(silent, early)] == ["too-early"]
    assert [each.reason for each in STRICT.check(silent, late)] == ["too-late"]
    open_ended = Policy(privacy=STRICT.privacy, sums=STRICT.sums)
    assert names(open_ended.check(MET, early)) == {"study.begin"}, "the plan's own first day"
    assert names(open_ended.check(MET, late)) == {"study.end"}, "the plan's own last day"
    assert open_ended.check(MET, TODAY) == []


def test_a_plan_for_other_code_is_refused_by_every_policy() -> None:
    terms = replace(MET, signed=Signed(code=OTHER))
    assert "study.code" in names(Policy().check(terms, TODAY))
    assert "study.code" in names(Policy().check(replace(terms, code=None), TODAY))


# What a configuration asks for -------------------------------------------------------------------

PRIVATE: dict[str, Any] = {
    "privacy": {"unit": "example", "epsilon": 4.0, "delta": 1e-6, "adjacency": "replace-one"},
    "evaluate": {"enabled": False},
    "pretrain": {"rounds": 3, "local_epochs": 1},
    "pools": {"rounds": 4, "local_epochs": 1},
}
OWN = OwnData(examples=200)


def changed(**tables: dict[str, Any]) -> FederationConfig:
    return FederationConfig(
        **{name: {**PRIVATE.get(name, {}), **tables.get(name, {})} for name in {*PRIVATE, *tables}}
    )


def terms_of(clients: int = 12, own: OwnData | None = None, **tables: dict[str, Any]) -> PlanTerms:
    return PlanTerms.of(changed(**tables), clients, own)


def met_exactly(terms: PlanTerms) -> Policy:
    """The strictest policy that accepts a plan."""
    privacy = {
        "unit": [terms.unit],
        "adjacency": [terms.adjacency],
        "epsilon": terms.epsilon,
        "delta": terms.delta,
        "sketch_epsilon": terms.sketch_epsilon,
        "clip": terms.clip,
    }
    sums = {
        name: getattr(terms, name)
        for name in ("cohort", "survivors", "pool", "threshold", "against_a_liar", "clamp")
    }
    sums |= {"protection": [terms.protection], "key_holder": [terms.key_holder]}
    study = {"rounds": terms.rounds, "releases": terms.releases}
    return Policy(privacy=privacy, sums=sums, study=study)


@pytest.mark.parametrize(
    ("field", "tables"),
    [
        ("privacy.unit", {"privacy": {"unit": "none"}}),
        ("privacy.adjacency", {"privacy": {"adjacency": "zero-out"}}),
        ("privacy.epsilon", {"privacy": {"epsilon": 4.1}}),
        ("privacy.delta", {"privacy": {"delta": 2e-6}}),
        ("privacy.sketch_epsilon", {"privacy": {"sketch_epsilon": 1.1}}),
        ("privacy.clip", {"privacy": {"clip": 1.5}}),
        ("privacy.metrics", {"evaluate": {"enabled": True}}),
        ("sums.protection", {"security": {"protection": "masked"}}),
        ("sums.protection", {"security": {"protection": "plain"}}),
        ("sums.key_holder", {"security": {"key_holder": "authority"}}),
        ("sums.cohort", {"pretrain": {"participation": 0.7}}),
        ("sums.survivors", {"security": {"min_survivors": 7, "threshold": 7}}),
        ("sums.threshold", {"security": {"threshold": 7}}),
        ("sums.against_a_liar", {"security": {"threshold": 7}}),
        ("sums.clamp", {"security": {"clamp": 2.0}}),
        ("study.rounds", {"pretrain": {"rounds": 4}}),
        ("study.releases", {"pools": {"rounds": 5}}),
        ("study.releases", {"privacy": {"choice": "exponential"}}),
    ],
)
def test_a_plan_that_asks_for_weaker_privacy_in_one_setting_is_refused(
    field: str, tables: dict[str, Any]
) -> None:
    policy = met_exactly(terms_of())
    assert policy.check(terms_of(), TODAY) == []
    assert field in names(policy.check(terms_of(**tables), TODAY))


def test_a_smaller_pool_is_refused() -> None:
    policy = met_exactly(terms_of(security={"min_pool_clients": 4}))
    assert names(policy.check(terms_of(), TODAY)) == {"sums.pool"}


def test_thresholds_are_the_weakest_of_all_sums_of_a_run() -> None:
    """Four are called for the pools; of groups, the smallest counts."""
    few = terms_of(8, pools={"participation": 0.5, "count": 1, "start": "pretrained"})
    assert (few.cohort, few.threshold, few.survivors, few.against_a_liar) == (4, 3, 3, 2)
    grouped = terms_of(30, security={"robust": "median"})
    assert (grouped.cohort, grouped.threshold, grouped.against_a_liar) == (10, 7, 4)
    bare = terms_of(security={"protection": "plain"})
    assert (bare.survivors, bare.pool, bare.threshold, bare.against_a_liar) == (1, 1, 0, 0)
    assert bare.key_holder == NOBODY


def test_a_stated_epsilon_that_lies_is_judged_by_the_computed_one() -> None:
    """The plan says 1; its noise would spend a hundred times that."""
    lies = terms_of(own=OWN, privacy={"epsilon": 1.5, "noise": 0.4})
    assert lies.epsilon is not None
    assert lies.epsilon > 20
    refused = Policy().check(lies, TODAY)
    assert [(each.field, each.reason) for each in refused] == [("privacy.epsilon", "too-large")]
    unknown = Policy().check(terms_of(privacy={"epsilon": 1.5, "noise": 0.4}), TODAY)
    assert [(each.field, each.reason) for each in unknown] == [("privacy.epsilon", "unknown")]


def test_a_budget_is_never_judged_below_itself() -> None:
    generous = terms_of(own=OWN, privacy={"epsilon": 50.0, "noise": 20.0})
    assert generous.epsilon == 50.0, "its own gate would admit as much"


def test_noise_is_the_one_that_this_site_would_make() -> None:
    few, many = terms_of(own=OwnData(50)), terms_of(own=OwnData(2000))
    assert few.noise is not None
    assert many.noise is not None
    assert few.noise > many.noise, "a larger share of few examples is in each step"
    assert terms_of().noise is None
    policy = Policy(privacy={"noise": (few.noise + many.noise) / 2})
    assert names(policy.check(many, TODAY)) == {"privacy.noise"}
    assert policy.check(few, TODAY) == []


@pytest.mark.parametrize(
    "tables",
    [
        {"privacy": {"noise": 4.0}},
        {"privacy": {"noise": 4.0, "adaptive_clip": True}},
        {"privacy": {"noise": 4.0, "choice": "exponential"}},
        {"privacy": {"noise": 4.0, "mechanism": "group"}, "objective": {"name": "nt_xent"}},
        {"privacy": {"noise": 4.0}, "pools": {"start": "random"}},
        {
            "privacy": {"noise": 3.0, "unit": "client", "min_clients": 4},
            "pools": {"start": "random"},
        },
    ],
)
def test_epsilon_is_the_runs_own(tables: dict[str, dict[str, Any]]) -> None:
    """Without examples, shapes and models the site finds what the run's plan finds with them."""
    from secure_fl.estimate.planning import client_plans
    from secure_fl.privacy.accounting import Charge, planned_epsilon
    from secure_fl.privacy.adjacency import Adjacency
    from secure_fl.run import Federation

    budget = {"epsilon": 0.5, "sketch_epsilon": 0.3}
    tables = {**tables, "privacy": {**tables["privacy"], **budget}}
    small = {"partition": {"clients": 9, "kind": "iid"}, "data": {"sources": [{"limit": 400}]}}
    federation = Federation(changed(**small, **tables))
    client = federation.clients[0]
    own = OwnData(len(client.train), client.train.labels, client.train.shape, 10)
    plan = federation.factory.client_plan or next(client_plans(federation)).plan
    charges = [Charge(event, Adjacency.REPLACE_ONE) for event in plan.events()]
    spent = planned_epsilon(charges, 1e-6)
    assert spent > 0.5
    assert PlanTerms.of(federation.config, 9, own).epsilon == spent


def test_client_level_without_the_shape_is_unknown() -> None:
    tables = {"privacy": {"noise": 3.0, "unit": "client"}, "pools": {"start": "random"}}
    assert terms_of(**tables).epsilon is None
    assert terms_of(**tables).noise_colluders == 1
    assert terms_of(**tables).clamp == 1.0


def test_noised_view_moments_count_on_the_noise_of_others() -> None:
    moments = {"method": "view_moments", "rounds": 2}
    tables = {"pretrain": moments, "privacy": {"unit": "example"}}
    assert terms_of(**tables).noise_colluders == 1
    assert terms_of(**tables | {"privacy": {"unit": "none"}}).noise_colluders == inf


def test_no_torch_unless_an_epsilon_is_computed() -> None:
    code = (
        "import sys; from datetime import date; from secure_fl.config import FederationConfig as C;"
        "from secure_fl.federation.policy.policy import Policy;"
        "import secure_fl.federation.policy.refusal;"
        "from secure_fl.federation.policy.terms import PlanTerms;"
        "t = PlanTerms.of(C(privacy={'unit': 'example'}), 12);"
        "assert Policy().check(t, date.today());"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The file ----------------------------------------------------------------------------------------


def test_the_file_written_loads_to_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(default_policy())
    assert Policy.load(path) == Policy()
    assert Policy.load(path).digest == Policy().digest
    text = default_policy()
    assert max(map(len, text.splitlines())) <= 100
    for name, table in Policy():
        assert f"[{name}]" in text
        for key in type(table).model_fields:
            assert f"\n{key} = " in text


def test_a_policy_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    for text, named in (
        ("[privacy]\nepsilom = 3", "epsilon"),
        ("[private]\nepsilon = 3", "private"),
        ("epsilon = 3", "epsilon"),
        ("[privacy]\nepsilon = -1", "epsilon"),
        ("[privacy]\nepsilon = nan", "epsilon"),
        ('[privacy]\nunit = ["nobody"]', "unit"),
        ("[privacy]\nunit = []", "unit"),
        ("[sums]\npool = 2", "pool"),
        ('[study]\nbegin = "2026-01-31"', "2026-01-31"),
        ("[study]\nbegin = 20260131", "begin"),
        ("[study]\nbegin = 2026-02-30", "TOML"),
        ("[study]\nbegin = 2026-03-01\nend = 2026-02-28", "study.end"),
        ('[study]\ncode = ["AB"]', "code"),
        ("[study", "TOML"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=named):
            Policy.load(path)
    with pytest.raises(ConfigError, match="secure-fl policy init"):
        Policy.load(tmp_path / "none.toml")


def test_a_digest_names_every_setting() -> None:
    seen = {STRICT.digest}
    for rule in RULES:
        table, name = rule.field.split(".")
        kept = {each: dict(limits) for each, limits in STRICT}
        del kept[table][name]
        seen.add(Policy(**kept).digest)
    same = {"privacy.metrics", "sums.publish_models"}  # strict as by default
    assert len(seen) == 1 + len(RULES) - len(same)
