"""What a run's record says beyond its figures: how it was protected, which pools stayed closed,
what was raised and when.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from secure_fl.federation.grouping import Grouping
from secure_fl.report.runs import Run
from secure_fl.report.tables import spans

PROTECTIONS = {
    "bfv+masked": "sums under masks and encryption",
    "masked": "sums under masks",
    "plain": "no protection of sums: the server reads every client's update",
}
"""Layers of the secure sum in words."""

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


def stated(run: Run) -> dict[str, Any] | None:
    """What was charged to a budget: of the whole run, or of its sketches alone; None where
    nothing was.
    """
    found = run.summary.get("privacy") or run.summary.get("sketches")
    return None if found is None else dict(found)


def largest(said: dict[str, Any]) -> float | None:
    """The largest ε of any adversary, for the unit that a run protects; None where one has no
    bound. Units are not mixed.
    """
    own = [claim["epsilon"] for claim in said["claims"] if claim["unit"] == said["unit"]] or [
        said["epsilon"]
    ]
    return None if None in own else float(max(own))


def by_epsilon(claims: Iterable[dict[str, Any]]) -> list[tuple[str, float | None, list[str]]]:
    """(unit, ε, adversaries), with those together against whom one ε holds."""
    found: dict[tuple[str, float | None], list[str]] = {}
    for claim in claims:
        found.setdefault((claim["unit"], claim["epsilon"]), []).append(claim["adversary"])
    return [(unit, value, who) for (unit, value), who in found.items()]


def closed_pools(run: Run) -> Closed:
    """Which pools stayed closed for want of clients."""
    security, rounds = run.config.security, run.lines("cluster")
    grouping = Grouping.of(security)
    if grouping is not None and all("groups_opened" in line["metrics"] for line in rounds):
        short = [
            (
                line["round"],
                [opened < grouping.needed for opened in line["metrics"]["groups_opened"]],
            )
            for line in rounds
        ]
    elif run.config.privacy.unit == "client":
        return Closed({}, "pools are opened by noised counts, which the record does not keep")
    elif not has_minimum(run):
        return Closed({}, "nothing stays closed: without a secure sum a pool of any size is opened")
    elif not all("pools" in line.get("metrics", {}) for line in rounds):
        return Closed(
            {}, "not in this record: which pools stayed closed follows from clients' choices"
        )
    else:
        least = security.min_pool_clients
        short = [
            (line["round"], [0 < members < least for members in line["metrics"]["pools"]["counts"]])
            for line in rounds
        ]
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
        for text in _raised(line.get("metrics", {})):
            found.setdefault((line["phase"], text), []).append(line["round"])
    ended = {text for phase, text in found if phase == "evaluate"}
    shown = [
        Alert(
            text,
            f"{PHASES.get(phase, phase)}, {spans(rounds)}"
            + (", and at the end" if phase == "cluster" and text in ended else ""),
        )
        for (phase, text), rounds in found.items()
        if phase != "evaluate"
    ]
    told = {text for phase, text in found if phase == "cluster"}
    return shown + [
        Alert(text, "at the end")
        for phase, text in found
        if phase == "evaluate" and text not in told
    ]


def _raised(metrics: dict[str, Any]) -> list[str]:
    """Texts of a round's alerts."""
    pools, more = metrics.get("pools") or {}, metrics.get("alerts") or []
    texts = [str(alert) for alert in ([more] if isinstance(more, str) else more)]
    own = pools.get("alert")
    return texts if own is None or own in texts else [str(own), *texts]
