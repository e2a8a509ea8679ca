"""How each setting of a site's policy judges a plan's terms, and the words for what is refused."""

from __future__ import annotations

import datetime
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any, NamedTuple

from secure_fl.federation.policy.terms import NOBODY, PlanTerms


class ObjectionWord(StrEnum):
    """Why a plan is refused: stable words, kept in records and sent to the coordinator."""

    NOT_ACCEPTED = "not-accepted"
    TOO_LARGE = "too-large"
    TOO_SMALL = "too-small"
    TOO_EARLY = "too-early"
    TOO_LATE = "too-late"
    UNKNOWN = "unknown"


PLAN_SETTINGS = {
    "privacy.epsilon": "privacy.epsilon, privacy.noise, or the number of rounds",
    "privacy.metrics": "evaluate.enabled (its default is true)",
    "sums.protection": "security.protection",
    "sums.key_holder": "security.key_holder",
    "sums.publish_models": "publish_models, where it is signed",
    "sums.cohort": "pretrain.participation, pools.participation, or security.group_size",
    "sums.survivors": "security.min_survivors",
    "sums.pool": "security.min_pool_clients",
    "sums.threshold": "security.threshold",
    "sums.against_a_liar": "security.threshold",
    "sums.clamp": "security.clamp, at client level privacy.clip",
    "study.rounds": "pretrain.rounds, pools.rounds",
    "study.releases": "the number of rounds, or what pools start with and choose by",
}
"""What in a plan a setting of the policy is about, where it has another name there."""


@dataclass(frozen=True)
class Objection:
    """One respect in which a plan is weaker than the policy.

    Attributes:
        field: the policy's setting, such as `privacy.epsilon`.
        asked: what the plan asks for, in words.
        allowed: what the policy allows, in words.
        reason: a stable word.
    """

    field: str
    asked: str
    allowed: str
    reason: ObjectionWord

    def __str__(self) -> str:
        return f"{self.field}: {self.asked} asked, {self.allowed} allowed [{self.reason}]"


@dataclass(frozen=True)
class Judgement:
    """One setting of the policy beside what the plan asks for; `reason` is None where it is met."""

    field: str
    asked: str
    allowed: str
    reason: ObjectionWord | None


class Check(NamedTuple):
    """How a setting is held against a term.

    Attributes:
        met: (asked, limit) -> whether the limit is met; NaN meets none.
        word: the reason for refusing where it is not.
        says: what the limit is, before its value.
    """

    met: Callable[[Any, Any], bool]
    word: ObjectionWord
    says: str = ""

    def __call__(self, asked: Any, limit: Any) -> ObjectionWord | None:
        """The reason for refusing, `unknown` where the term is; None where the limit is met."""
        if asked is None:
            return ObjectionWord.UNKNOWN
        return None if self.met(asked, limit) else self.word


_AT_MOST = Check(operator.le, ObjectionWord.TOO_LARGE, "at most ")
_AT_LEAST = Check(operator.ge, ObjectionWord.TOO_SMALL, "at least ")
_FROM = Check(operator.ge, ObjectionWord.TOO_EARLY, "from ")
_UNTIL = Check(operator.le, ObjectionWord.TOO_LATE, "until ")
_EQUAL = Check(operator.eq, ObjectionWord.NOT_ACCEPTED)
_AMONG = Check(lambda asked, accepted: asked in accepted, ObjectionWord.NOT_ACCEPTED)
_IF_ALLOWED = Check(lambda asked, allowed: allowed or not asked, ObjectionWord.NOT_ACCEPTED)
_HOLDER = Check(
    lambda asked, accepted: asked == NOBODY or asked in accepted, ObjectionWord.NOT_ACCEPTED
)


@dataclass(frozen=True)
class Rule:
    """How one setting of the policy judges one of the terms.

    Attributes:
        asked: the term, None where it cannot be known.
    """

    field: str
    asked: Callable[[PlanTerms], Any]
    check: Check


RULES: tuple[Rule, ...] = (
    Rule("privacy.unit", lambda terms: terms.unit, _AMONG),
    Rule("privacy.adjacency", lambda terms: terms.adjacency, _AMONG),
    Rule("privacy.epsilon", lambda terms: terms.epsilon, _AT_MOST),
    Rule("privacy.delta", lambda terms: terms.delta, _AT_MOST),
    Rule("privacy.sketch_epsilon", lambda terms: terms.sketch_epsilon, _AT_MOST),
    Rule("privacy.noise", lambda terms: terms.noise, _AT_LEAST),
    Rule("privacy.clip", lambda terms: terms.clip, _AT_MOST),
    Rule("privacy.colluders", lambda terms: terms.noise_colluders, _AT_LEAST),
    Rule("privacy.metrics", lambda terms: terms.metrics, _IF_ALLOWED),
    Rule("sums.protection", lambda terms: terms.protection, _AMONG),
    Rule("sums.key_holder", lambda terms: terms.key_holder, _HOLDER),
    Rule("sums.publish_models", lambda terms: terms.publish_models, _IF_ALLOWED),
    Rule("sums.cohort", lambda terms: terms.cohort, _AT_LEAST),
    Rule("sums.survivors", lambda terms: terms.survivors, _AT_LEAST),
    Rule("sums.pool", lambda terms: terms.pool, _AT_LEAST),
    Rule("sums.threshold", lambda terms: terms.threshold, _AT_LEAST),
    Rule("sums.against_a_liar", lambda terms: terms.against_a_liar, _AT_LEAST),
    Rule("sums.clamp", lambda terms: terms.clamp, _AT_MOST),
    Rule("study.begin", lambda terms: terms.signed.begin, _FROM),
    Rule("study.end", lambda terms: terms.signed.end, _UNTIL),
    Rule("study.rounds", lambda terms: terms.rounds, _AT_MOST),
    Rule("study.releases", lambda terms: terms.releases, _AT_MOST),
    Rule("study.roster_revision", lambda terms: terms.signed.roster_revision, _AT_LEAST),
    Rule("study.roster_digest", lambda terms: terms.signed.roster_digest, _EQUAL),
    Rule("study.plans", lambda terms: terms.signed.plan, _AMONG),
    Rule("study.versions", lambda terms: terms.version, _AMONG),
    Rule("study.code", lambda terms: terms.code, _AMONG),
)
"""Every setting of the policy, in the order of the file."""


def judgements(
    limits: Mapping[str, Any], terms: PlanTerms, today: datetime.date
) -> Iterator[Judgement]:
    """Every limit that is not None beside what the plan asks for, met or not.

    Args:
        limits: by setting, such as `privacy.epsilon`.
        terms: of the plan.
        today: by the site's clock.
    """
    for rule in RULES:
        limit = limits[rule.field]
        if limit is None:
            continue
        for value in _days(rule.field, rule.asked(terms), today):
            allowed = rule.check.says + _words(limit)
            yield Judgement(rule.field, _words(value), allowed, rule.check(value, limit))
    yield from _of_the_plan_itself(terms, today)


def _days(field: str, asked: Any, today: datetime.date) -> tuple[Any, ...]:
    """What a setting is held against: the term; for days today, and the plan's where it has one."""
    if field not in ("study.begin", "study.end"):
        return (asked,)
    return (today,) if asked is None else (today, asked)


def _of_the_plan_itself(terms: PlanTerms, today: datetime.date) -> Iterator[Judgement]:
    """What the plan says of itself and this site can see to be otherwise, whatever its policy."""
    signed = terms.signed
    for field, asked, limit, check in (
        ("study.begin", today, signed.begin, _FROM),
        ("study.end", today, signed.end, _UNTIL),
        ("study.code", terms.code, signed.code, _EQUAL),
    ):
        if limit is not None:
            allowed = f"{check.says}{_words(limit)}, by the plan"
            yield Judgement(field, _words(asked), allowed, check(asked, limit))


def _words(value: Any) -> str:
    """A value of either side, as tables and refusals show it."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " | ".join(map(_words, value))
    if isinstance(value, float):
        return f"{value:.6g}" if isfinite(value) else "unbounded"
    return value.isoformat() if isinstance(value, datetime.date) else str(value)
