"""Every release once, charged once to each unit that it touches, and the budget that the next one must fit into.

The file is plain JSON with a digest over its content. The digest finds damage and careless editing; whoever can rewrite the file can rewrite
the digest, so what a run claims is tied down by the transcript that signs it. Recomputing ε needs the file and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from secure_fl.errors import PrivacyError
from secure_fl.privacy.accounting import Charge, epsilon_of, merged, within
from secure_fl.privacy.events import AllocationEvent, Event, GaussianEvent, IntegerEvent
from secure_fl.privacy.units import Adjacency, PrivacyUnit

NOISED_BY_KEY_HOLDER = "prefix sums, noised by the key holder"
"""Purpose of a release that no claim against the key holder covers."""
_FORMAT = 1
_TOLERANCE = 1e-3
"""Relative difference between a stated and a recomputed ε that rounding and other library versions may cause."""


@dataclass(frozen=True)
class Budget:
    """The (ε, δ) that no subject's releases may pass.

    Args:
        epsilon: ≥ 0, finite.
        delta: within (0, 1).
        unit: whose presence is hidden.
        adjacency: how neighbours differ. Add-remove of a client is refused: its noise share would be missing, and the roster is public.

    Raises:
        PrivacyError: a value outside its range, or add-remove for clients.
    """

    epsilon: float
    delta: float
    unit: PrivacyUnit
    adjacency: Adjacency

    def __post_init__(self) -> None:
        _claimable(self.unit, self.adjacency)
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise PrivacyError("not a finite ε", field="budget.epsilon", value=self.epsilon, remedy="a number of at least 0")
        if not 0 < self.delta < 1:
            raise PrivacyError("not a probability", field="budget.delta", value=self.delta, remedy="a number within (0, 1)")


@dataclass(frozen=True)
class Release:
    """One thing that leaves somebody, with the event that says what it costs.

    Args:
        key: names the release for ever; recording it again after a resume changes nothing.
        phase: of the federation, for example `pretrain`.
        round: its number, from 0.
        purpose: what it is for: training step, statistic, count, metric, choice.
        unit: whose contribution the event's noise hides.
        subjects: clients that this concerns: themselves (client level), or one example of each (example level).
        event: the mechanism.
        basis: `declared` where the inputs are a client's own word (its sampling rate, its steps), `derived` where the protocol fixes them.
        also_protects: EXAMPLE when client-level noise is all that protects the examples behind it: they are charged too, at replace-one,
            since another example can turn the client's whole update round.

    Raises:
        PrivacyError: a field out of range, client sampling at client level, or noise on examples said to protect clients.
    """

    key: str
    phase: str
    round: int
    purpose: str
    unit: PrivacyUnit
    subjects: tuple[int, ...]
    event: Event
    basis: Literal["declared", "derived"]
    also_protects: PrivacyUnit | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "subjects", tuple(sorted({int(subject) for subject in self.subjects})))
        for holds, field, problem, remedy in self._rules():
            if not holds:
                raise PrivacyError(problem, field=f"release.{field}", value=getattr(self, field), remedy=remedy)

    def _rules(self) -> list[tuple[bool, str, str, str]]:
        client = self.unit is PrivacyUnit.CLIENT
        sampled = isinstance(self.event, AllocationEvent) or (isinstance(self.event, GaussianEvent) and self.event.sampling_rate < 1)
        # fmt: off
        return [
            (bool(self.key), "key", "a release needs a name of its own", "for example pretrain/3/client 2/step"),
            (isinstance(self.unit, PrivacyUnit), "unit", "not a unit", "PrivacyUnit.EXAMPLE or PrivacyUnit.CLIENT"),
            (isinstance(self.event, Event), "event", "not an event", "one of privacy.events"),
            (bool(self.subjects) and min(self.subjects) >= 0, "subjects", "concerns nobody", "number the clients from 0"),
            (self.round >= 0, "round", "not a round", "count from 0"),
            (self.basis in ("declared", "derived"), "basis", "unknown basis", "declared or derived"),
            (not (client and sampled), "event", "sampling clients amplifies nothing: the cohort is known", "charge every round in full"),
            (self.also_protects is None or (client and self.also_protects is PrivacyUnit.EXAMPLE), "also_protects",
             "noise for one example hides no client", "only client-level noise protects a second unit, the examples"),
        ]
        # fmt: on

    def charge(self, unit: PrivacyUnit, adjacency: Adjacency) -> Charge | None:
        """What this costs `unit` under `adjacency`; None when it does not touch that unit.

        Examples take no noise share along when they are absent, so for them add-remove moves an integer sum as zero-out does.
        """
        if unit is self.unit:
            integer_example = unit is PrivacyUnit.EXAMPLE and isinstance(self.event, IntegerEvent)
            return Charge(self.event, Adjacency.ZERO_OUT if integer_example and adjacency is Adjacency.ADD_REMOVE else adjacency)
        return Charge(self.event, Adjacency.REPLACE_ONE) if unit is self.also_protects else None

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {**asdict(self), "subjects": list(self.subjects), "event": self.event.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Release:
        """The release that `to_dict` wrote."""
        also = values["also_protects"]
        return cls(
            **{
                **values,
                "unit": PrivacyUnit(values["unit"]),
                "subjects": tuple(values["subjects"]),
                "event": Event.from_dict(values["event"]),
                "also_protects": None if also is None else PrivacyUnit(also),
            }
        )


@dataclass(frozen=True)
class Stated:
    """An ε that a saved ledger states for one subject."""

    subject: int
    epsilon: float


@dataclass(frozen=True)
class Verification:
    """What recomputing a ledger showed.

    Attributes:
        problems: differences between what is stated and what the events give; empty when all is well.
        recomputed: ε of each subject, for the ledger's budget.
        declared: keys of releases whose inputs are a client's own word.
        derived: keys of the others.
    """

    problems: tuple[str, ...]
    recomputed: tuple[Stated, ...]
    declared: tuple[str, ...]
    derived: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.problems


class PrivacyLedger:
    """All releases of a run, and the budget they are held against, if any.

    **Guarantee.** `spent` bounds the ε of one client, or of any one example of that client, over everything recorded; `maximum` over all.
    **Assumes.** Every release is recorded, before it leaves; declared inputs are true.
    **Not covered.** Releases of the other unit: an ε for examples says nothing of clients, and the two are never added.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget
        self._releases: dict[str, Release] = {}
        self._stated: tuple[Stated, ...] = ()

    @property
    def releases(self) -> tuple[Release, ...]:
        """Everything recorded, by key."""
        return tuple(self._releases[key] for key in sorted(self._releases))

    def record(self, release: Release) -> None:
        """Add a release; the same key with the same content is the same release and is not charged again.

        Raises:
            PrivacyError: the key is known with other content.
        """
        known = self._releases.setdefault(release.key, release)
        if known != release:
            raise PrivacyError("known with other content", field="release.key", value=release.key, remedy="give every release a key of its own")

    def subjects(self, unit: PrivacyUnit) -> tuple[int, ...]:
        """Clients with a release that touches `unit`."""
        touching = (release for release in self._releases.values() if unit in (release.unit, release.also_protects))
        return tuple(sorted({subject for release in touching for subject in release.subjects}))

    def charges(self, unit: PrivacyUnit, subject: int, adjacency: Adjacency, *, also: Iterable[Release] = ()) -> tuple[Charge, ...]:
        """What a subject pays for, merged; `also` are releases to come."""
        _claimable(unit, adjacency)
        known = {**{release.key: release for release in also}, **self._releases}
        charges = (release.charge(unit, adjacency) for release in known.values() if subject in release.subjects)
        return merged(charge for charge in charges if charge is not None)

    def spent(self, unit: PrivacyUnit, subject: int, delta: float, adjacency: Adjacency, *, fine: bool = True) -> float:
        """ε of one client (client level), or of any one of its examples."""
        return epsilon_of(self.charges(unit, subject, adjacency), delta, fine=fine)

    def table(self, budget: Budget, *, fine: bool = True) -> tuple[Stated, ...]:
        """ε of every subject at the budget's δ, unit and adjacency; subjects with equal releases are computed once."""
        found: dict[tuple[Charge, ...], float] = {}
        rows = []
        for subject in self.subjects(budget.unit):
            charges = self.charges(budget.unit, subject, budget.adjacency)
            if charges not in found:
                found[charges] = epsilon_of(charges, budget.delta, fine=fine)
            rows.append(Stated(subject, found[charges]))
        return tuple(rows)

    def maximum(self, budget: Budget, *, fine: bool = True) -> float:
        """The largest ε of any subject: the federation's. ε of different subjects is never added, their data being different."""
        return max((row.epsilon for row in self.table(budget, fine=fine)), default=0.0)

    def would_exceed(self, releases: Sequence[Release], budget: Budget | None = None) -> None:
        """Return if `releases` still fit the budget (this ledger's own by default) together with everything recorded.

        Raises:
            PrivacyError: somebody's ε would pass it, or a key is known with other content; nothing is recorded.
        """
        budget = budget or self.budget
        if budget is None:
            raise PrivacyError("there is none", field="budget", value=None, remedy="pass one, or make the ledger with one")
        for release in releases:
            if self._releases.get(release.key, release) != release:
                raise PrivacyError("known with other content", field="release.key", value=release.key, remedy="give every release its own key")
        seen: dict[tuple[Charge, ...], bool] = {}
        for subject in sorted({subject for release in releases for subject in release.subjects}):
            charges = self.charges(budget.unit, subject, budget.adjacency, also=releases)
            if charges not in seen:
                seen[charges] = within(charges, budget.delta, budget.epsilon)
            if not seen[charges]:
                would = epsilon_of(charges, budget.delta)
                raise PrivacyError(
                    f"client {subject} would pass ε = {budget.epsilon:g} at δ = {budget.delta:g} ({budget.unit}, {budget.adjacency})",
                    field="budget.epsilon",
                    value=round(would, 4),
                    remedy="stop here, train fewer rounds, or plan the next run with more noise",
                )

    def save(self, path: Path, *, state: bool = True, claims: Sequence[Mapping[str, object]] = ()) -> None:
        """Write the ledger in one step: a reader sees the old file or the new one.

        `claims` are rows of `claims.claims`, for readers. With `state` and a budget it also states every subject's ε, from the coarse
        bound, which costs about 0.1 s a subject that differs.
        """
        stated = self.table(self.budget, fine=False) if state and self.budget is not None else ()
        content: dict[str, object] = {
            "format": _FORMAT,
            "budget": None if self.budget is None else asdict(self.budget),
            "releases": [release.to_dict() for release in self.releases],
            "stated": [{"subject": row.subject, "epsilon": row.epsilon if math.isfinite(row.epsilon) else "inf"} for row in stated],
            "claims": [dict(claim) for claim in claims],
        }
        _replace_file(path, json.dumps({**content, "digest": _digest(content)}, indent=1, sort_keys=True))

    @classmethod
    def load(cls, path: Path) -> PrivacyLedger:
        """The ledger that `save` wrote.

        Raises:
            PrivacyError: missing, damaged, edited, or of another format.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            digest = content.pop("digest")
            if content["format"] != _FORMAT or digest != _digest(content):
                raise PrivacyError("changed since it was written", field="ledger", value=path.name, remedy="restore the file the run wrote")
            budget = content["budget"]
            known = (
                None if budget is None else Budget(budget["epsilon"], budget["delta"], PrivacyUnit(budget["unit"]), Adjacency(budget["adjacency"]))
            )
            ledger = cls(known)
            for entry in content["releases"]:
                ledger.record(Release.from_dict(entry))
            ledger._stated = tuple(Stated(int(row["subject"]), float(row["epsilon"])) for row in content["stated"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise PrivacyError("cannot be read", field="ledger", value=path.name, remedy="restore the file the run wrote") from problem
        return ledger

    def verify(self) -> Verification:
        """Recompute what was stated from the events alone, and say which inputs are a client's own word."""
        recomputed = self.table(self.budget, fine=False) if self.budget is not None else ()
        problems: list[str] = []
        if self._stated:
            found, stated = ({row.subject: row.epsilon for row in rows} for rows in (recomputed, self._stated))
            for subject in sorted(found.keys() | stated.keys()):
                ours, theirs = found.get(subject, 0.0), stated.get(subject, 0.0)
                if not math.isclose(ours, theirs, rel_tol=_TOLERANCE, abs_tol=1e-9):
                    problems.append(f"client {subject}: ε stated as {theirs:.4f}, recomputed {ours:.4f}")
        if self.budget is not None:
            over = [row.subject for row in recomputed if row.epsilon > self.budget.epsilon and not self._fits(row.subject, self.budget)]
            problems += [f"client {subject}: the budget ε = {self.budget.epsilon:g} is passed" for subject in over]
        by_basis = {basis: tuple(release.key for release in self.releases if release.basis == basis) for basis in ("declared", "derived")}
        return Verification(tuple(problems), recomputed, by_basis["declared"], by_basis["derived"])

    def _fits(self, subject: int, budget: Budget) -> bool:
        return within(self.charges(budget.unit, subject, budget.adjacency), budget.delta, budget.epsilon)


def _claimable(unit: PrivacyUnit, adjacency: Adjacency) -> None:
    if not isinstance(unit, PrivacyUnit) or not isinstance(adjacency, Adjacency):
        raise PrivacyError("an ε needs both", field="unit and adjacency", value=(unit, adjacency), remedy="a PrivacyUnit and an Adjacency")
    if unit is PrivacyUnit.CLIENT and adjacency is Adjacency.ADD_REMOVE:
        remedy = "claim zero-out on the public roster, or replace-one"
        raise PrivacyError("an absent client's noise share is absent too", field="adjacency", value=str(adjacency), remedy=remedy)


def _digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _replace_file(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
