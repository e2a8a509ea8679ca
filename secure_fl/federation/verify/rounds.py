"""Checks a transcript's rounds from its entries and the signed messages among them.

No torch, no models.

Guarantee: where nothing is found, every sum has a round of its own, at least as many survivors as
the plan and the round ask for, of clients who had joined, pools opened by the rule that was
announced, which is the signed plan's or stricter, and nothing was summed, or done, after a state
that fewer signed than clients ask for; where there are signed messages, the survivors' signatures
over the one view, their uploads' signed headers, and the openers' signatures over what was opened.
Assumes: the coordinator's identity is the right one: its fingerprint is among the facts to be
compared with what is known from elsewhere.
Not covered: what a party did beside the protocol; whether uploads hold honest updates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from secure_fl.crypto.envelope import NO_KEY
from secure_fl.errors import ConfigError, SecureSumError
from secure_fl.federation.transcript.chain import Line
from secure_fl.federation.transcript.entries import (
    EndEntry,
    JoinedEntry,
    KeysEntry,
    PlanEntry,
    RoundEntry,
    StateEntry,
    SumEntry,
)
from secure_fl.federation.verify.plan import Agreed, said_of
from secure_fl.federation.verify.signed import Signed
from secure_fl.federation.verify.state import Claim, SignedState

FILE, DONE = "transcript.jsonl", "done"


@dataclass(frozen=True)
class Finding:
    """Something that does not fit.

    Attributes:
        file: path in the folder.
        field: where in it.
        problem: what is wrong, in one clause.
    """

    file: str
    field: str
    problem: str


@dataclass
class Rounds:
    """What has been seen so far.

    Attributes:
        sums: opened sums, each with its round and the plan that was in force.
        asked: (step, rounds finished in it) -> clients that were asked.
        signatures: how many were checked.
        unsigned: rounds of signed sums of whose messages nothing was kept.
        coordinators: fingerprints of who signed rosters.
        brief: lines whose evidence was left out.
        agreed: the plan that was signed last.
        states: that were signed.
    """

    findings: list[Finding] = field(default_factory=list)
    sums: list[tuple[PlanEntry, RoundEntry, SumEntry]] = field(default_factory=list)
    asked: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    signatures: int = 0
    unsigned: list[int] = field(default_factory=list)
    coordinators: list[str] = field(default_factory=list)
    brief: int = 0
    agreed: Agreed | None = None
    states: list[StateEntry] = field(default_factory=list)
    _plan: PlanEntry | None = None
    _keys: list[KeysEntry] = field(default_factory=list)
    _last: int = -1
    _begun: dict[str | int, RoundEntry] = field(default_factory=dict)
    _opened: set[str | int] = field(default_factory=set)
    _pending: list[RoundEntry] = field(default_factory=list)
    """Sums that were opened since the last state."""
    _claims: dict[str, Claim] = field(default_factory=dict)
    _reached: tuple[int, int] | None = None
    """The place of the last state, under the plan in force."""
    _tried: dict[tuple[int, int], list[RoundEntry]] = field(default_factory=dict)
    _joined: set[str] = field(default_factory=set)
    _thin: str = ""
    """Why nobody goes on from the last state, if so."""
    _ended: bool = False

    def read(self, lines: Iterable[Line]) -> Rounds:
        """Take in a transcript's lines, in order."""
        for number, line in enumerate(lines, 1):
            for place, problem in self._entry(line):
                where = f"line {number}: {line.entry.kind}.{place}"
                self.findings.append(Finding(FILE, where, problem))
        return self

    def _entry(self, line: Line) -> Iterator[tuple[str, str]]:
        entry = line.entry
        self.brief += not line.whole
        if isinstance(entry, PlanEntry):
            yield from self._planned(entry, line)
        elif self._plan is None:
            yield "kind", "comes before any plan"
        elif self._ended and not isinstance(entry, StateEntry):
            yield "kind", "comes after the end"
        elif isinstance(entry, KeysEntry):
            self._keys.append(entry)
            if self._signed is not None and entry.maker not in self._signed.plan.key_makers:
                yield "maker", "not who may make keys by the signed plan"
        elif isinstance(entry, JoinedEntry):
            self._joined.add(entry.client)
            if self._signed is not None and line.whole:
                yield from self._signed.joined(entry, line.evidence)
                self.signatures += 1
        elif isinstance(entry, StateEntry):
            yield from self._state(entry, line)
        elif isinstance(entry, RoundEntry):
            yield from self._begins(self._plan, entry)
        elif isinstance(entry, SumEntry):
            yield from self._summed(self._plan, entry, line.evidence)
        elif isinstance(entry, EndEntry) and entry.reason == DONE and self._thin:
            yield "reason", self._thin
        # A run that is made longer goes back to an earlier state first.
        self._ended = isinstance(entry, EndEntry) or (self._ended and isinstance(entry, StateEntry))

    def _planned(self, plan: PlanEntry, line: Line) -> Iterator[tuple[str, str]]:
        self._plan = plan
        self._keys, self._begun, self._tried, self._joined, self._thin = [], {}, {}, set(), ""
        self._pending, self._claims, self._reached = [], {}, None
        if plan.roster is None or not line.whole:
            return
        try:
            self.agreed = Agreed.of(plan, line.evidence)
        except (ValueError, SecureSumError) as problem:
            yield "evidence", f"no signed roster and plan: {said_of(problem)}"
            return
        self.signatures += 3
        self.coordinators.append(self.agreed.coordinator.fingerprint)
        if (follows := self.agreed.plan.follows) is not None:
            self._reached = (follows.place.step, follows.place.round)
        yield from self.agreed.problems()

    @property
    def blind(self) -> int:
        """Sums with pools whose counts are not told; of them only signed digests are known."""
        return sum(begun.pools > 0 and total.counts is None for _, begun, total in self.sums)

    @property
    def _signed(self) -> Agreed | None:
        """The plan in force, where it is signed."""
        agreed = self.agreed
        return agreed if agreed is not None and agreed.entry is self._plan else None

    def _state(self, entry: StateEntry, line: Line) -> Iterator[tuple[str, str]]:
        signed = {state.place: state.digest for state in self.states}
        if entry.checkpoint is not None:
            if signed.get(entry.place, entry.digest) != entry.digest:
                yield "digest", "a checkpoint of another state than was signed"
            return
        self.states.append(entry)
        if line.whole and self._signed is not None:
            found = SignedState(self._signed, entry, self._pending, self._claims)
            yield from found.problems(line.evidence)
            self.signatures += len(line.evidence)
            needed, there = found.needed, len(line.evidence)
            self._thin = (
                f"{there} of {needed} signatures of appliers without which nobody goes on"
                if there < needed
                else ""
            )
        elif line.whole:
            yield "evidence", "comes under no signed plan"
        self._pending, self._claims, self._reached = [], {}, entry.place

    def _begins(self, plan: PlanEntry, entry: RoundEntry) -> Iterator[tuple[str, str]]:
        tried = self._tried.setdefault(entry.place, [])
        same_attempt = [each for each in tried if each.attempt == entry.attempt]
        beside = set[str]().union(*(_asked(each) for each in same_attempt))
        again = any(_name(each) in self._opened for each in tried if each not in same_attempt)
        asked = _asked(entry)
        same = bool(tried) and (tried[-1].round, tried[-1].attempt) == (entry.round, entry.attempt)
        signed = self._signed
        rules = [
            *self._where(entry, same),
            *_as_planned(plan, entry),
            *([] if signed is None else _as_signed(signed, entry, self._joined)),
            (not beside & asked, "cohort", "a client is in another sum of the same attempt"),
            (not again, "attempt", "a sum of an earlier attempt at this place was opened"),
        ]
        yield from ((name, problem) for holds, name, problem in rules if not holds)
        self._last = max(self._last, entry.round)
        self._begun.setdefault(_name(entry), entry)
        tried.append(entry)
        self.asked.setdefault((entry.step, entry.place[1]), set()).update(entry.cohort)

    def _where(self, entry: RoundEntry, same: bool) -> list[tuple[bool, str, str]]:
        """A sum's number, place and key follow from the lines before.

        Args:
            same: whether the sum before belongs to the same attempt.
        """
        here = self._reached in (None, entry.place)
        serving = (keys for keys in self._keys if keys.first <= entry.round <= keys.last)
        known = any(keys.fingerprint == entry.key for keys in serving)
        led = here and all(each.place == entry.place for each in self._pending)
        up = entry.round > self._last or same
        return [
            (up, "round", "its number was used before, or does not count up"),
            (led, "place", "no signed state leads there"),
            (entry.key == NO_KEY.hex() or known, "key", "no entry says that this key is in force"),
        ]

    def _summed(
        self, plan: PlanEntry, entry: SumEntry, evidence: tuple[bytes, ...]
    ) -> Iterator[tuple[str, str]]:
        begun = self._begun.get(_name(entry))
        if begun is None or begun.round != entry.round or _name(entry) in self._opened:
            yield "round", "was opened before" if _name(entry) in self._opened else "has not begun"
            return
        if self._thin:
            yield "round", f"the state before it has {self._thin}"
        self._opened.add(_name(entry))
        self.sums.append((plan, begun, entry))
        rules = [*_counted(begun, entry), *_rules_of(begun, entry)]
        yield from ((name, problem) for holds, name, problem in rules if not holds)
        if begun.plan is None:
            return
        self._pending.append(begun)
        self._claims = {}
        if not evidence:
            self.unsigned.append(entry.round)
        elif self._signed is not None:
            found = Signed(self._signed, begun, entry)
            yield from found.check(evidence)
            self.signatures += found.signatures
            # of sums over groups nobody who opened one knows the state
            self._claims = found.claims if len(self._pending) == 1 else {}


def _as_planned(plan: PlanEntry, entry: RoundEntry) -> list[tuple[bool, str, str]]:
    """A sum asks clients of the plan, and at least as many of them as the plan says."""
    known = _ascending(entry.cohort) and set(entry.cohort) <= set(plan.clients)
    alike = (entry.plan is None) == (plan.roster is None)
    return [
        (known, "cohort", "not clients of the plan, each once and in order"),
        (set(entry.left_out) <= set(entry.cohort), "left_out", "not of the cohort"),
        (alike, "plan", "signed rounds need a roster, and a roster signed rounds"),
        (entry.fewest >= plan.fewest, "fewest", f"below the plan's {plan.fewest}"),
        (entry.fewest >= entry.threshold, "fewest", "below the threshold"),
    ]


def _as_signed(signed: Agreed, entry: RoundEntry, joined: set[str]) -> list[tuple[bool, str, str]]:
    """A sum asks who has joined, and opens what the signed plan lets it.

    A group's own size is not told: with those left out of all groups it is the cohort's at most.
    """
    plan, asked = signed.plan, _asked(entry)
    pooled = entry.step == "cluster" and plan.protection != "plain"
    least = plan.config.security.min_pool_clients if pooled else 1
    grouped = plan.config.security.robust != "none"
    try:
        rules = plan.rules(len(asked) if grouped else len(entry.cohort))
    except ConfigError:
        rules = None
    needed = rules.threshold if rules is not None else 0
    return [
        (asked <= joined, "cohort", "asks who has not joined under this plan"),
        (entry.minimum >= least, "minimum", f"below the signed plan's {least}"),
        (entry.threshold >= needed, "threshold", f"below the signed plan's {needed}"),
    ]


def _asked(entry: RoundEntry) -> set[str]:
    """Clients that a sum was over from the start."""
    return set(entry.cohort) - set(entry.left_out)


def _name(entry: RoundEntry | SumEntry) -> str | int:
    """What tells a sum from all others: its plan's digest, or its number where it has none."""
    return entry.round if entry.plan is None else entry.plan


def _rules_of(begun: RoundEntry, entry: SumEntry) -> list[tuple[bool, str, str]]:
    survivors = set(entry.survivors)
    silent = {name for name, phase in entry.missed.items() if phase in ("advertise", "upload")}
    known = _ascending(entry.survivors) and survivors <= _asked(begun)
    few = f"{len(survivors)}, fewer than the {begun.fewest} that must survive"
    alike = (entry.view is None) == (begun.plan is None)
    return [
        (known, "survivors", "not clients that were asked, each once and in order"),
        (len(survivors) >= begun.fewest, "survivors", few),
        (set(entry.missed) <= set(begun.cohort), "missed", "not of the cohort"),
        (not survivors & silent, "missed", "a survivor, which sent keys and an upload"),
        (begun.plan is None or set(entry.uploads) == survivors, "uploads", "not the survivors'"),
        (alike, "view", "there where nothing is signed, or missing where something is"),
    ]


def _counted(begun: RoundEntry, entry: SumEntry) -> list[tuple[bool, str, str]]:
    """Counts against the number of survivors, and pools against counts, as far as they are told."""
    survivors, signed = len(entry.survivors), begun.plan is not None
    if not begun.pools:
        passing = (0,) if survivors >= begun.minimum else ()
        right = not signed or entry.passing == passing
        return [(right, "passing", f"a pool is opened from {begun.minimum} survivors on")]
    if entry.counts is None:
        most = survivors // max(1, begun.minimum) if begun.exact else begun.pools
        few = len(entry.passing) <= most and entry.passing == tuple(sorted({*entry.passing}))
        return [
            (few, "passing", f"more than {begun.minimum} members each leave room for"),
            (all(pool < begun.pools for pool in entry.passing), "passing", "no such pool"),
        ]
    least, total = begun.minimum * begun.unit, sum(entry.counts)
    large = tuple(pool for pool, count in enumerate(entry.counts) if count >= least)
    right = not signed or entry.passing == large
    comes = not begun.exact or total == begun.unit * survivors
    told = f"they come to {total}, not {begun.unit} for each of {survivors} survivors"
    return [
        (len(entry.counts) == begun.pools, "counts", f"{len(entry.counts)} of {begun.pools}"),
        (comes, "counts", told),
        (right, "passing", f"not the pools with {begun.minimum} members or more"),
    ]


def _ascending(names: tuple[str, ...]) -> bool:
    return list(names) == sorted(set(names))
