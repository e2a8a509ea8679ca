"""How each setting of a site's policy judges a plan's terms, and the words for what is refused."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any

from secure_fl.federation.plan_terms import NOBODY, PlanTerms


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


def _at_most(asked: Any, limit: Any) -> ObjectionWord | None:
    return None if asked <= limit else ObjectionWord.TOO_LARGE  # NaN is not at most anything


def _at_least(asked: Any, limit: Any) -> ObjectionWord | None:
    return None if asked >= limit else ObjectionWord.TOO_SMALL


def _among(asked: Any, accepted: Any) -> ObjectionWord | None:
    return None if asked in accepted else ObjectionWord.NOT_ACCEPTED


def _equal(asked: Any, accepted: Any) -> ObjectionWord | None:
    return None if asked == accepted else ObjectionWord.NOT_ACCEPTED


def _if_allowed(asked: Any, allowed: Any) -> ObjectionWord | None:
    return ObjectionWord.NOT_ACCEPTED if asked and not allowed else None


def _from(asked: Any, first: Any) -> ObjectionWord | None:
    return None if asked >= first else ObjectionWord.TOO_EARLY


def _until(asked: Any, last: Any) -> ObjectionWord | None:
    return None if asked <= last else ObjectionWord.TOO_LATE


def _holder(asked: Any, accepted: Any) -> ObjectionWord | None:
    return None if asked == NOBODY else _among(asked, accepted)


@dataclass(frozen=True)
class Rule:
    """How one setting judges one of the terms.

    Attributes:
        field: of the policy.
        asked: the term, None where it cannot be known.
        holds: (asked, limit) -> the reason for refusing, None where the limit is met.
        says: what the limit is, before its value.
    """

    field: str
    asked: Callable[[PlanTerms], Any]
    holds: Callable[[Any, Any], ObjectionWord | None]
    says: str = ""


_MOST, _LEAST = "at most ", "at least "
RULES: tuple[Rule, ...] = (
    Rule("privacy.unit", lambda terms: terms.unit, _among),
    Rule("privacy.adjacency", lambda terms: terms.adjacency, _among),
    Rule("privacy.epsilon", lambda terms: terms.epsilon, _at_most, _MOST),
    Rule("privacy.delta", lambda terms: terms.delta, _at_most, _MOST),
    Rule("privacy.sketch_epsilon", lambda terms: terms.sketch_epsilon, _at_most, _MOST),
    Rule("privacy.noise", lambda terms: terms.noise, _at_least, _LEAST),
    Rule("privacy.clip", lambda terms: terms.clip, _at_most, _MOST),
    Rule("privacy.colluders", lambda terms: terms.noise_colluders, _at_least, _LEAST),
    Rule("privacy.metrics", lambda terms: terms.metrics, _if_allowed),
    Rule("sums.protection", lambda terms: terms.protection, _among),
    Rule("sums.key_holder", lambda terms: terms.key_holder, _holder),
    Rule("sums.publish_models", lambda terms: terms.publish_models, _if_allowed),
    Rule("sums.cohort", lambda terms: terms.cohort, _at_least, _LEAST),
    Rule("sums.survivors", lambda terms: terms.survivors, _at_least, _LEAST),
    Rule("sums.pool", lambda terms: terms.pool, _at_least, _LEAST),
    Rule("sums.threshold", lambda terms: terms.threshold, _at_least, _LEAST),
    Rule("sums.against_a_liar", lambda terms: terms.against_a_liar, _at_least, _LEAST),
    Rule("sums.clamp", lambda terms: terms.clamp, _at_most, _MOST),
    Rule("study.begin", lambda terms: terms.signed.begin, _from, "from "),
    Rule("study.end", lambda terms: terms.signed.end, _until, "until "),
    Rule("study.rounds", lambda terms: terms.rounds, _at_most, _MOST),
    Rule("study.releases", lambda terms: terms.releases, _at_most, _MOST),
    Rule("study.roster_revision", lambda terms: terms.signed.roster_revision, _at_least, _LEAST),
    Rule("study.roster_digest", lambda terms: terms.signed.roster_digest, _equal),
    Rule("study.plans", lambda terms: terms.signed.plan, _among),
    Rule("study.versions", lambda terms: terms.version, _among),
    Rule("study.code", lambda terms: terms.code, _among),
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
            reason = ObjectionWord.UNKNOWN if value is None else rule.holds(value, limit)
            yield Judgement(rule.field, _words(value), rule.says + _words(limit), reason)
    yield from _of_the_plan_itself(terms, today)


def _days(field: str, asked: Any, today: datetime.date) -> tuple[Any, ...]:
    """What a setting is held against: the term; for days today, and the plan's where it has one."""
    if field not in ("study.begin", "study.end"):
        return (asked,)
    return (today,) if asked is None else (today, asked)


def _of_the_plan_itself(terms: PlanTerms, today: datetime.date) -> Iterator[Judgement]:
    """What the plan says of itself and this site can see to be otherwise, whatever its policy."""
    signed, day = terms.signed, today.isoformat()
    if signed.begin is not None:
        yield Judgement(
            "study.begin",
            day,
            f"from {signed.begin.isoformat()}, by the plan",
            _from(today, signed.begin),
        )
    if signed.end is not None:
        yield Judgement(
            "study.end",
            day,
            f"until {signed.end.isoformat()}, by the plan",
            _until(today, signed.end),
        )
    if signed.code is not None:
        reason = ObjectionWord.UNKNOWN if terms.code is None else _equal(terms.code, signed.code)
        yield Judgement("study.code", _words(terms.code), f"{signed.code}, by the plan", reason)


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
