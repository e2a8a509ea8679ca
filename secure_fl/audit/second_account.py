"""A second accountant: ε of a ledger's releases between two numbers, with no code of the first.

The file is read here, what each event stands for is decided here, and ε is computed in `losses`,
from the pairs of laws and nothing else. What the ledger's fields mean:

- A release charges its `unit` at the adjacency that is asked for, and the examples behind a client
  (`also_protects`) at replace-one, since another example can turn the client's whole update round.
- `history` numbers what a subject may have brought from an earlier run: it pays for the costliest,
  composed with this run's own releases.
- Gaussian: `steps` sums of units drawn at `sampling_rate`, noise of `noise_multiplier`·C, of which
  a unit moves `contributions`·C when it is there or not, and twice as much when replaced.
- Pure: `releases` answers of an ε-DP mechanism. One with a bounded range (all losses within some
  interval of length ε) is anything between the two-answer mechanism of ε/2 and that of ε, so its
  low and high side differ.
- Integer: `releases` sums of integer vectors whose contributions have norms `l2` and `l1`, or are
  `l2_replace` and `l1_replace` apart. The worst neighbours are not known, so the low side is that
  of one pair of them, and the high side the papers' Rényi curves: some 5 % of ε apart. An absent
  client takes its share of the noise along, an absent example does not.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from secure_fl.audit.integer_losses import IntegerNoise
from secure_fl.audit.losses import Answered, Noised, Pair, Side, epsilon_of_losses
from secure_fl.errors import AuditError
from secure_fl.files import read_bytes
from secure_fl.paths import path_of
from secure_fl.records import Record

Adjacency = Literal["add-remove", "zero-out", "replace-one"]
Unit = Literal["example", "client"]
Told = Mapping[str, Any]

_FORMAT, _LARGEST_FILE = 2, 1 << 32
_SIDES: tuple[Side, Side] = ("low", "high")
_FIELDS = {
    "gaussian": {"noise_multiplier", "sampling_rate", "steps", "contributions"},
    "pure": {"epsilon", "bounded_range", "releases"},
    "integer": {
        *("kind", "variance", "l2", "l1", "l2_replace", "l1_replace"),
        *("parties", "dimension", "releases", "tv_per_draw"),
    },
}


class Bracket(NamedTuple):
    """ε is at least `low` and at most `high`."""

    low: float
    high: float


Finding = Literal["within", "above", "below"]


@dataclass(frozen=True)
class AccountCheck(Record):
    """A claimed ε beside the bracket.

    Attributes:
        claimed: the ε that was claimed.
        low: no mechanism that needs these events as they are has less.
        high: it has no more than this.
        finding: `within` the two, `above` both (it holds, and is loose), or `below` (it is false).
    """

    claimed: float
    low: float
    high: float
    finding: Finding

    @property
    def passed(self) -> bool:
        """Whether the claim holds: it is not below what the releases cost."""
        return self.finding != "below"


def bracket(
    releases: Path | str | Iterable[Told],
    delta: float,
    *,
    unit: Unit | None = None,
    adjacency: Adjacency | None = None,
    subject: int | None = None,
) -> Bracket:
    """ε at δ of a ledger, or of releases in the form that its file has, from both sides.

    **Guarantee**: the composition of the events' worst pairs, in the costliest history of the
    costliest subject, has an ε within the bracket, up to an allowance for floating point.
    **Assumes**: the releases are all there were, and events say truly what was done.
    **Not covered**: whether the file is the one that was written.

    Args:
        releases: the file, or its entries (`Release.to_dict` writes them).
        delta: within (0, 1).
        unit: whose presence is hidden; by default what the file's budget says.
        adjacency: how neighbours differ; by default what the file's budget says.
        subject: one client; the costliest by default.

    Raises:
        AuditError: no unit or adjacency, neither given nor in a file, add-remove for clients, or an
            event that this account has no pair for.
        FileError: the file cannot be read.
    """
    if isinstance(delta, bool) or not 0 < delta < 1:
        raise AuditError("not a probability", "delta", delta, "a number within (0, 1)")
    content = _content(releases)
    budget: Any = content.get("budget") or {}
    at = _checked(unit or budget.get("unit"), adjacency or budget.get("adjacency"))
    low, high = (
        max((epsilon_of_losses(dict(each), delta, side) for each in histories), default=0.0)
        for side in _SIDES
        for histories in [_histories(content["releases"], *at, subject, side)]
    )
    return Bracket(low, high)


def check_claim(
    claimed: float | None,
    releases: Path | str | Iterable[Told],
    delta: float,
    *,
    unit: Unit | None = None,
    adjacency: Adjacency | None = None,
    subject: int | None = None,
) -> AccountCheck:
    """Whether a claimed ε is at least what the releases cost; arguments as `bracket`.

    None claims nothing, as infinity does.

    Raises:
        AuditError: as `bracket`, or a claim that is no number.
        FileError: the file cannot be read.
    """
    claim = math.inf if claimed is None else float(claimed)
    if math.isnan(claim) or claim < 0:
        raise AuditError("not an ε", "claimed", claimed, "a number of at least 0, or None")
    low, high = bracket(releases, delta, unit=unit, adjacency=adjacency, subject=subject)
    finding: Finding = "below" if claim < low else "within" if claim <= high else "above"
    return AccountCheck(claim, low, high, finding)


def _content(releases: Path | str | Iterable[Told]) -> dict[str, Any]:
    if not isinstance(releases, Path | str):
        return {"releases": list(releases)}
    path = path_of(releases, "releases")
    try:
        content = json.loads(read_bytes(path, most=_LARGEST_FILE))
        known = content["format"] == _FORMAT
        _ = content["budget"], content["releases"]
    except (ValueError, KeyError, TypeError):
        known, content = False, {}
    if not known:
        raise AuditError("not a ledger of this format", "ledger", path.name, "restore the file")
    return dict(content)


def _checked(unit: Unit | None, adjacency: Adjacency | None) -> tuple[Unit, Adjacency]:
    if unit is None or unit not in ("example", "client"):
        raise AuditError("an ε needs a unit", "unit", unit, "example or client")
    if adjacency is None or adjacency not in ("add-remove", "zero-out", "replace-one"):
        remedy = "add-remove, zero-out or replace-one"
        raise AuditError("an ε needs an adjacency", "adjacency", adjacency, remedy)
    if (unit, adjacency) == ("client", "add-remove"):
        problem = "an absent client's noise share is absent too"
        raise AuditError(problem, "adjacency", adjacency, "zero-out or replace-one")
    return unit, adjacency


def _histories(
    entries: Iterable[Told], unit: Unit, adjacency: Adjacency, subject: int | None, side: Side
) -> set[frozenset[tuple[Pair, int]]]:
    """All that anybody may have been charged, each collection of pairs with their counts once."""
    by_subject: defaultdict[int, dict[int | None, Counter[Pair]]] = defaultdict(dict)
    for entry in entries:
        if unit not in (entry["unit"], entry["also_protects"]):
            continue
        at = adjacency if unit == entry["unit"] else "replace-one"
        pair, count = _pair(entry["event"], at, side)
        for client in entry["subjects"]:
            if subject in (None, client):
                kept = by_subject[client].setdefault(entry["history"], Counter())
                kept[pair] += count
    found = set()
    for histories in by_subject.values():
        own = histories.pop(None, Counter())
        for brought in histories.values() or [Counter()]:
            found.add(frozenset((own + brought).items()))
    return found


def _integer(event: Told, norm: str) -> IntegerNoise:
    if event["kind"] not in ("skellam", "discrete_gaussian"):
        remedy = "skellam or discrete_gaussian"
        raise AuditError("no law is known for this noise", "event.kind", event["kind"], remedy)
    l2, l1 = float(event[f"l2{norm}"]), float(event[f"l1{norm}"])
    sizes = (event["parties"], event["dimension"], float(event["tv_per_draw"]))
    return IntegerNoise(event["kind"], float(event["variance"]), l2, l1, *sizes)


def _pair(event: Told, adjacency: Adjacency, side: Side) -> tuple[Pair, int]:
    """The pair of laws that an event stands for, and how often it was released."""
    kind, fields = str(event.get("event")), {name for name in event if name != "event"}
    if kind not in _FIELDS:
        problem, remedy = "no pair of laws is known for this event", "check its Rényi curve by hand"
        raise AuditError(problem, "event", kind, remedy)
    if fields != _FIELDS[kind]:
        shown = sorted(fields ^ _FIELDS[kind])
        raise AuditError(f"fields of a {kind} event", "event", shown, "a ledger of this format")
    if kind == "pure":
        epsilon, bounded = float(event["epsilon"]), bool(event["bounded_range"])
        return Answered(epsilon / 2 if bounded and side == "low" else epsilon), event["releases"]
    replaced = adjacency == "replace-one"
    if kind == "integer":
        return _integer(event, "_replace" if replaced else ""), event["releases"]
    rate = float(event["sampling_rate"])
    shift = float(event["contributions"]) / float(event["noise_multiplier"])
    if rate == 1:
        return Noised(2 * shift if replaced else shift), event["steps"]
    return Noised(shift, rate, replaced), event["steps"]
