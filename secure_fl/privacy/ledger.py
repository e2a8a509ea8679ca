"""Every release once, charged once to each unit that it touches, and the budget that the next one
must fit into.

The file is plain JSON with a digest over its content; its releases are a chain of hashes in the
order in which they were recorded. The digest finds damage and careless editing. The chain's mark
goes into every checkpoint, every line of `metrics.jsonl` and the summary, so that a ledger which
was deleted, shortened, reordered or put back to an earlier one is found by comparing. Recomputing ε
needs the file and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from secure_fl.errors import FileError, PrivacyError
from secure_fl.files import parse_json, read_bytes, write_atomically
from secure_fl.privacy.accounting import Charge, epsilon_of, merged, within
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.chain import Chain, Mark, digest
from secure_fl.privacy.releases import Budget, Release, check_claimable

__all__ = [
    "NOISED_BY_KEY_HOLDER",
    "Budget",
    "Charges",
    "PrivacyLedger",
    "Release",
    "Stated",
    "Verification",
]

NOISED_BY_KEY_HOLDER = "prefix sums, noised by the key holder"
"""Purpose of a release that no claim against the key holder covers."""
_FORMAT = 2
_LARGEST = 1 << 32
_REMEDY = "restore the file the run wrote"
_TOLERANCE = 1e-3
"""Of ε, relative: rounding and other library versions may cause so much."""

Charges = tuple[Charge, ...]


@dataclass(frozen=True)
class Stated:
    """An ε that a saved ledger states for one subject."""

    subject: int
    epsilon: float


@dataclass(frozen=True)
class Verification:
    """What recomputing a ledger showed.

    Attributes:
        problems: differences between what is stated and what the events give; empty when all
            is well.
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

    **Guarantee.** `spent` bounds the ε of one client, or of any one example of that client, over
    everything recorded; `maximum` over all. A subject that may have been any subject of an earlier
    run is charged the maximum over those, each composed with what this run released.

    **Assumes.** Every release is recorded, before it leaves; declared inputs are true.

    **Not covered.** A file put back together with all marks that were taken of it since. Releases
    of the other unit: an ε for examples says nothing of clients, and the two are never added.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget
        self._releases: dict[str, Release] = {}
        self._chain = Chain({"ledger": _FORMAT, "budget": budget and asdict(budget)})
        self._stated: tuple[Stated, ...] = ()

    @property
    def releases(self) -> tuple[Release, ...]:
        """Everything recorded, by key."""
        return tuple(self._releases[key] for key in sorted(self._releases))

    @property
    def mark(self) -> Mark:
        """How far it has come: goes into every record of what was released."""
        return self._chain.mark

    def since(self, mark: Mark | None) -> tuple[Release, ...]:
        """What was recorded after a mark, in that order; everything without one."""
        return tuple(self._releases.values())[0 if mark is None else mark.length :]

    def lost(self, marks: Iterable[tuple[str, Mark]]) -> list[str]:
        """Marks, each with its place, that it no longer begins with everything that they count."""
        return [
            f"has lost releases: {where} counts {mark.length} that it does not begin with"
            for where, mark in marks
            if not self._chain.holds(mark)
        ]

    def record(self, release: Release) -> None:
        """Add a release; the same key with the same content is the same release and is not charged
        again. Raises PrivacyError: the key is known with other content.
        """
        self._check_known(release)
        if release.key not in self._releases:
            self._releases[release.key] = release
            self._chain.add(release.to_dict())

    def subjects(self, unit: PrivacyUnit) -> tuple[int, ...]:
        """Clients with a release that touches `unit`."""
        touching = (each for each in self._releases.values() if each.touches(unit))
        return tuple(sorted({subject for release in touching for subject in release.subjects}))

    def histories(
        self, unit: PrivacyUnit, subject: int, adjacency: Adjacency, *, also: Iterable[Release] = ()
    ) -> tuple[Charges, ...]:
        """What a subject pays for, merged: one history, or one for each that it may have brought
        along from an earlier run.

        Args:
            also: releases to come.
        """
        known = {**{release.key: release for release in also}, **self._releases}
        by_history = _by_history(known.values(), unit, subject, adjacency)
        own = by_history.pop(None, [])
        return _merged([*own, *charges] for charges in by_history.values()) or (merged(own),)

    def brought(self, unit: PrivacyUnit, subject: int, adjacency: Adjacency) -> tuple[Charges, ...]:
        """What a subject may have brought from an earlier run; one empty history for nothing."""
        by_history = _by_history(self._releases.values(), unit, subject, adjacency)
        by_history.pop(None, None)
        return _merged(by_history.values()) or ((),)

    def spent(
        self,
        unit: PrivacyUnit,
        subject: int,
        delta: float,
        adjacency: Adjacency,
        *,
        fine: bool = True,
    ) -> float:
        """ε of one client (client level), or of any one of its examples."""
        return _costliest(self.histories(unit, subject, adjacency), delta, fine=fine)

    def table(self, budget: Budget, *, fine: bool = True) -> tuple[Stated, ...]:
        """ε of every subject at the budget; subjects with equal releases are computed once."""
        subjects = self.subjects(budget.unit)
        pay = {each: self.histories(budget.unit, each, budget.adjacency) for each in subjects}
        found = {each: _costliest(each, budget.delta, fine=fine) for each in set(pay.values())}
        return tuple(Stated(each, found[histories]) for each, histories in pay.items())

    def maximum(self, budget: Budget, *, fine: bool = True) -> float:
        """The largest ε of any subject: the federation's; subjects' ε are never added."""
        return max((row.epsilon for row in self.table(budget, fine=fine)), default=0.0)

    def would_exceed(self, releases: Sequence[Release], budget: Budget | None = None) -> None:
        """Return if `releases` still fit the budget (this ledger's own by default) together with
        everything recorded.

        Raises:
            PrivacyError: somebody's ε would pass it, or a key is known with other content; nothing
                is recorded.
        """
        budget = budget or self.budget
        if budget is None:
            remedy = "pass one, or make the ledger with one"
            raise PrivacyError("there is none", "budget", None, remedy)
        for release in releases:
            self._check_known(release)
        fits: set[Charges] = set()
        for subject in sorted({subject for release in releases for subject in release.subjects}):
            for charges in self.histories(budget.unit, subject, budget.adjacency, also=releases):
                if charges not in fits and not within(charges, budget.delta, budget.epsilon):
                    raise PrivacyError(
                        f"client {subject} would pass ε = {budget.epsilon:g} at δ = "
                        f"{budget.delta:g} ({budget.unit}, {budget.adjacency})",
                        "privacy.epsilon",
                        round(epsilon_of(charges, budget.delta), 4),
                        "stop here, train fewer rounds, or plan the next run with more noise",
                    )
                fits.add(charges)

    def save(
        self, path: Path, *, state: bool = True, claims: Sequence[Mapping[str, object]] = ()
    ) -> None:
        """Write the ledger in one step: a reader sees the old file or the new one.

        `claims` are rows of `claims.claims`, for readers. With `state` and a budget it also states
        every subject's ε, from the coarse bound, which costs about 0.1 s a subject that differs.

        Raises:
            FileError: it cannot be written; the old file is whole.
        """
        stated = self.table(self.budget, fine=False) if state and self.budget is not None else ()
        content: dict[str, object] = {
            "format": _FORMAT,
            "budget": self.budget and asdict(self.budget),
            "releases": [
                {**entry.to_dict(), "hash": self._chain.hash_of(number)}
                for number, entry in enumerate(self._releases.values())
            ],
            "mark": asdict(self.mark),
            "stated": [
                {**asdict(row), **({} if math.isfinite(row.epsilon) else {"epsilon": "inf"})}
                for row in stated
            ],
            "claims": [dict(claim) for claim in claims],
        }
        content["digest"] = digest(content)
        write_atomically(path, json.dumps(content, indent=1, sort_keys=True, allow_nan=False))

    @classmethod
    def load(cls, path: Path) -> PrivacyLedger:
        """What `save` wrote. Raises PrivacyError: missing, damaged, edited or another format."""
        try:
            data = read_bytes(path, most=_LARGEST)
        except FileError as missing:
            raise PrivacyError(missing.problem, "ledger", path.name, _REMEDY) from None
        told: Any = {"field": "ledger", "value": path.name, "remedy": _REMEDY}
        content = parse_json(data, dict[str, Any], **told, error=PrivacyError)
        try:
            if content.get("format") != _FORMAT or content.pop("digest", None) != digest(content):
                raise PrivacyError("changed since it was written", "ledger", path.name, _REMEDY)
            return cls._of(content)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            problem = f"cannot be read: {type(error).__name__}"
            raise PrivacyError(problem, "ledger", path.name, _REMEDY) from None

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> PrivacyLedger:
        budget = content["budget"]
        if budget is not None:
            unit, adjacency = PrivacyUnit(budget["unit"]), Adjacency(budget["adjacency"])
            budget = Budget(budget["epsilon"], budget["delta"], unit, adjacency)
        ledger, hashes = cls(budget), list[str]()
        for entry in content["releases"]:
            hashes.append(entry.pop("hash"))
            ledger.record(Release.from_dict(entry))
        chained = [ledger._chain.hash_of(number) for number in range(ledger.mark.length)]
        if hashes != chained or content["mark"] != asdict(ledger.mark):
            problem = "its releases are not the chain that was recorded"
            raise PrivacyError(problem, "ledger", len(hashes), _REMEDY)
        ledger._stated = tuple(
            Stated(int(row["subject"]), float(row["epsilon"])) for row in content["stated"]
        )
        return ledger

    def verify(self, marks: Iterable[tuple[str, Mark]] = ()) -> Verification:
        """Recompute what was stated from the events alone, compare marks taken of it, and say which
        inputs are a client's own word.

        Args:
            marks: where each was found, and the mark.
        """
        recomputed = self.table(self.budget, fine=False) if self.budget is not None else ()
        problems = self.lost(marks)
        if self._stated:
            both = (recomputed, self._stated)
            found, stated = ({row.subject: row.epsilon for row in rows} for rows in both)
            for subject in sorted(found.keys() | stated.keys()):
                ours, theirs = found.get(subject, 0.0), stated.get(subject, 0.0)
                if not math.isclose(ours, theirs, rel_tol=_TOLERANCE, abs_tol=1e-9):
                    problems.append(
                        f"client {subject}: ε stated as {theirs:.4f}, recomputed {ours:.4f}"
                    )
        for row in recomputed if self.budget is not None else ():
            assert self.budget is not None
            limit = self.budget.epsilon
            if row.epsilon > limit and not self._fits(row.subject, self.budget):
                problems.append(f"client {row.subject}: the budget ε = {limit:g} is passed")
        declared, derived = (
            tuple(release.key for release in self.releases if release.basis == basis)
            for basis in ("declared", "derived")
        )
        return Verification(tuple(problems), recomputed, declared, derived)

    def _fits(self, subject: int, budget: Budget) -> bool:
        histories = self.histories(budget.unit, subject, budget.adjacency)
        return all(within(charges, budget.delta, budget.epsilon) for charges in histories)

    def _check_known(self, release: Release) -> None:
        if self._releases.get(release.key, release) != release:
            remedy = "give every release a key of its own"
            raise PrivacyError("known with other content", "release.key", release.key, remedy)


def _merged(histories: Iterable[Iterable[Charge]]) -> tuple[Charges, ...]:
    """Histories, each merged, equal ones once."""
    return tuple(dict.fromkeys(map(merged, histories)))


def _costliest(histories: Iterable[Charges], delta: float, *, fine: bool) -> float:
    return max(epsilon_of(charges, delta, fine=fine) for charges in histories)


def _by_history(
    releases: Iterable[Release], unit: PrivacyUnit, subject: int, adjacency: Adjacency
) -> dict[int | None, list[Charge]]:
    """What the releases cost a subject: this run's under None, an earlier run's by history."""
    check_claimable(unit, adjacency)
    found: dict[int | None, list[Charge]] = {}
    for release in releases:
        charge = release.charge(unit, adjacency) if subject in release.subjects else None
        if charge is not None:
            found.setdefault(release.history, []).append(charge)
    return found
