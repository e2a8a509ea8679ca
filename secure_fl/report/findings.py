"""What a run's record says beyond its figures: how it was protected, which pools stayed closed,
what was raised and when.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, exp

from secure_fl.federation.factory.grouping import Grouping
from secure_fl.federation.run_folder.summary import Charged
from secure_fl.federation.whole_run.alerts import alerts_of
from secure_fl.privacy.claims import PrivacyClaim
from secure_fl.report.runs import Run
from secure_fl.report.tables import spans

PROTECTIONS = {
    "bfv+masked": "sums under masks and encryption",
    "masked": "sums under masks",
    "plain": "no protection of sums: the server reads every client's update",
}
"""Layers of the secure sum in words."""

ADJACENCY = {
    "add-remove": "with it or without it; how many there are is hidden too",
    "zero-out": "with it or with nothing in its place; how many there are is not hidden",
    "replace-one": "with it or with another in its place; how many there are is not hidden",
}
"""What an ε compares, in words."""

PHASES = {"pretrain": "pre-training", "cluster": "clustering"}
"""Phases in words."""


@dataclass(frozen=True)
class Alert:
    """Something that was raised, and in which rounds."""

    text: str
    when: str


@dataclass(frozen=True)
class Closed:
    """Rounds in which each pool had clients and was not opened, so that it learned nothing.

    Attributes:
        rounds: pool -> rounds of clustering; empty where `unknown` says why.
        unknown: why the record does not tell; empty where it does.
    """

    rounds: dict[int, list[int]]
    unknown: str = ""


def protection(run: Run) -> str:
    """The run's protection, and who holds the key."""
    said = PROTECTIONS[run.config.security.protection]
    if run.config.security.protection != "bfv+masked":
        return said
    shared = run.config.security.key_holder == "clients"
    return f"{said}; {'every client holds' if shared else 'an authority holds'} the key"


def is_plain(run: Run) -> bool:
    """Whether the server reads single updates."""
    return run.config.security.protection == "plain"


def has_minimum(run: Run) -> bool:
    """Whether a pool needs security.min_pool_clients to be opened: in the open only what is summed
    in groups or under noise does.
    """
    return (
        not is_plain(run)
        or run.config.security.robust != "none"
        or run.config.privacy.unit == "client"
    )


def largest(said: Charged) -> float | None:
    """The largest ε of any adversary, for the unit that a run protects; None where one has no
    bound. Units are not mixed.
    """
    own = [claim.epsilon for claim in said.claims if claim.unit == said.unit] or [said.epsilon]
    known = [each for each in own if each is not None]
    return max(known) if len(known) == len(own) else None


def right_at_most(epsilon: float, delta: float) -> str:
    """How often whoever guesses is right at most, of an even chance whether one was in: the share
    (e^ε + δ) / (e^ε + 1), which is what an (ε, δ) means. Never rounded down.
    """
    share = 1 - (1 - delta) / (1 + exp(min(epsilon, 700.0)))
    return f"{ceil(share * 10_000 - 1e-6) / 100:g} %"


def by_epsilon(claims: Iterable[PrivacyClaim]) -> list[tuple[str, float | None, list[str]]]:
    """(unit, ε, adversaries), with those together against whom one ε holds."""
    found: dict[tuple[str, float | None], list[str]] = {}
    for claim in claims:
        found.setdefault((claim.unit, claim.epsilon), []).append(claim.adversary)
    return [(unit, value, who) for (unit, value), who in found.items()]


def closed_pools(run: Run) -> Closed:
    """Which pools stayed closed for want of clients."""
    security, rounds = run.config.security, run.lines("cluster")
    grouping = Grouping.of(security)
    groups = [(line.round, line.metrics.groups_opened) for line in rounds]
    members = [(line.round, line.metrics.pools) for line in rounds]
    if grouping is not None and all(opened is not None for _, opened in groups):
        short = [(at, [each < grouping.needed for each in opened or ()]) for at, opened in groups]
    elif run.config.privacy.unit == "client":
        return Closed({}, "pools are opened by noised counts, which the record does not keep")
    elif not has_minimum(run):
        return Closed({}, "nothing stays closed: without a secure sum a pool of any size is opened")
    elif not all(pools is not None for _, pools in members):
        unknown = "not in this record: which pools stayed closed follows from clients' choices"
        return Closed({}, unknown)
    else:
        least, known = security.min_pool_clients, [(at, pools) for at, pools in members if pools]
        short = [(at, [0 < each < least for each in pools.counts]) for at, pools in known]
    found: dict[int, list[int]] = {}
    for number, pools in short:
        for pool, is_short in enumerate(pools):
            if is_short:
                found.setdefault(pool, []).append(number)
    return Closed(found)


def alerts(run: Run) -> list[Alert]:
    """Every alert once, in the order of its first round, with the rounds of its phase; the last one
    may still stand at the end.
    """
    found: dict[tuple[str, str], list[int]] = {}
    for line in run.rounds:
        for text in alerts_of(line):
            found.setdefault((line.phase, text), []).append(line.round)
    ended = [text for phase, text in found if phase == "evaluate"]
    told = {text for phase, text in found if phase == "cluster"}
    shown = []
    for (phase, text), rounds in found.items():
        if phase != "evaluate":
            still = ", and at the end" if phase == "cluster" and text in ended else ""
            shown.append(Alert(text, f"{PHASES.get(phase, phase)}, {spans(rounds)}{still}"))
    return shown + [Alert(text, "at the end") for text in ended if text not in told]
