"""Checks a transcript's rounds from its entries and the signed messages among them.

No torch, no models.

Guarantee: where nothing is found, every sum has a round of its own, at least as many survivors as
the plan and the round ask for, pools opened by the rule that was announced, and, where there are
signed messages, the survivors' signatures over the one view, their uploads' signed headers, and the
openers' signatures over what was opened.
Assumes: the coordinator's identity is the right one: its fingerprint is among the facts to be
compared with what is known from elsewhere.
Not covered: what a party did beside the protocol; whether uploads hold honest updates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from secure_fl.crypto.envelope import (
    NO_KEY,
    Expected,
    Header,
    Phase,
    open_envelope,
    open_head,
    read_header,
)
from secure_fl.crypto.identities import Member
from secure_fl.crypto.roster import Roster
from secure_fl.errors import SecureSumError
from secure_fl.federation.transcript import Line
from secure_fl.federation.transcript_entries import (
    EndEntry,
    KeysEntry,
    PlanEntry,
    RoundEntry,
    StateEntry,
    SumEntry,
)
from secure_fl.secure_sum.key_directory import view_of
from secure_fl.secure_sum.messages import Advertise, Agreement

FILE = "transcript.jsonl"
_UPLOAD = Phase.UPLOAD


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
    """

    findings: list[Finding] = field(default_factory=list)
    sums: list[tuple[PlanEntry, RoundEntry, SumEntry]] = field(default_factory=list)
    asked: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    signatures: int = 0
    unsigned: list[int] = field(default_factory=list)
    coordinators: list[str] = field(default_factory=list)
    _plan: PlanEntry | None = None
    _roster: Roster | None = None
    _keys: list[KeysEntry] = field(default_factory=list)
    _last: int = -1
    _begun: dict[int, RoundEntry] = field(default_factory=dict)
    _opened: set[int] = field(default_factory=set)
    _tried: dict[tuple[int, int], list[RoundEntry]] = field(default_factory=dict)
    _ended: bool = False

    def read(self, lines: Iterable[Line]) -> Rounds:
        """Take in a transcript's lines, in order."""
        for number, line in enumerate(lines, 1):
            for place, problem in self._entry(line):
                self.findings.append(
                    Finding(FILE, f"line {number}: {line.entry.kind}.{place}", problem)
                )
        return self

    def _entry(self, line: Line) -> Iterator[tuple[str, str]]:
        entry = line.entry
        if isinstance(entry, PlanEntry):
            yield from self._planned(entry, line.evidence)
        elif self._plan is None:
            yield "kind", "comes before any plan"
        elif self._ended and not isinstance(entry, StateEntry):
            yield "kind", "comes after the end"
        elif isinstance(entry, KeysEntry):
            self._keys.append(entry)
        elif isinstance(entry, RoundEntry):
            yield from self._begins(self._plan, entry)
        elif isinstance(entry, SumEntry):
            yield from self._summed(self._plan, entry, line.evidence)
        # A run that is made longer goes back to an earlier state first.
        self._ended = isinstance(entry, EndEntry) or (self._ended and isinstance(entry, StateEntry))

    def _planned(self, plan: PlanEntry, evidence: tuple[bytes, ...]) -> Iterator[tuple[str, str]]:
        self._plan, self._roster = plan, None
        self._keys, self._begun, self._tried = [], {}, {}
        if plan.roster is None:
            return
        try:
            card, signed = evidence
            coordinator = Member.from_card(card)
            self._roster = roster = Roster.open(signed, coordinator)
            itself = roster.member(coordinator.name)
        except (ValueError, SecureSumError) as problem:
            yield "evidence", f"no signed roster: {_said(problem)}"
            return
        self.signatures += 2
        self.coordinators.append(coordinator.fingerprint)
        facts = [
            ("roster", plan.roster, roster.digest.hex()),
            ("revision", plan.revision, roster.revision),
            ("federation", plan.federation, roster.federation),
            ("clients", plan.clients, roster.names()),
            ("evidence", itself.role, "coordinator"),
            ("evidence", itself.fingerprint, coordinator.fingerprint),
        ]
        yield from (
            (name, "not what the signed roster says")
            for name, said, found in facts
            if said != found
        )

    def _begins(self, plan: PlanEntry, entry: RoundEntry) -> Iterator[tuple[str, str]]:
        tried = self._tried.setdefault(entry.place, [])
        beside = {name for each in tried if each.attempt == entry.attempt for name in each.cohort}
        again = any(each.round in self._opened for each in tried if each.attempt != entry.attempt)
        known = any(
            keys.fingerprint == entry.key and keys.first <= entry.round <= keys.last
            for keys in self._keys
        )
        rules = [
            (entry.round > self._last, "round", "its number was used before, or does not count up"),
            (
                _ascending(entry.cohort) and set(entry.cohort) <= set(plan.clients),
                "cohort",
                "not clients of the plan, each once and in order",
            ),
            (set(entry.left_out) <= set(entry.cohort), "left_out", "not of the cohort"),
            (
                (entry.plan is None) == (plan.roster is None),
                "plan",
                "signed rounds need a roster, and a roster signed rounds",
            ),
            (entry.fewest >= plan.fewest, "fewest", f"below the plan's {plan.fewest}"),
            (entry.fewest >= entry.threshold, "fewest", "below the threshold"),
            (
                not beside & set(entry.cohort),
                "cohort",
                "a client is in another sum of the same attempt",
            ),
            (not again, "attempt", "a sum of an earlier attempt at this place was opened"),
            (entry.key == NO_KEY.hex() or known, "key", "no entry says that this key is in force"),
        ]
        yield from ((name, problem) for holds, name, problem in rules if not holds)
        self._last = max(self._last, entry.round)
        self._begun.setdefault(entry.round, entry)
        tried.append(entry)
        self.asked.setdefault((entry.step, entry.place[1]), set()).update(entry.cohort)

    def _summed(
        self, plan: PlanEntry, entry: SumEntry, evidence: tuple[bytes, ...]
    ) -> Iterator[tuple[str, str]]:
        begun = self._begun.get(entry.round)
        if begun is None or entry.round in self._opened:
            yield "round", "has not begun" if begun is None else "was opened before"
            return
        self._opened.add(entry.round)
        self.sums.append((plan, begun, entry))
        rules = [*_counted(begun, entry), *_rules_of(begun, entry)]
        yield from ((name, problem) for holds, name, problem in rules if not holds)
        if begun.plan is None:
            return
        if not evidence:
            self.unsigned.append(entry.round)
        elif self._roster is not None:
            found = Signed(plan, begun, entry, self._roster)
            yield from found.check(evidence)
            self.signatures += found.signatures


def _rules_of(begun: RoundEntry, entry: SumEntry) -> list[tuple[bool, str, str]]:
    asked, survivors = set(begun.cohort) - set(begun.left_out), set(entry.survivors)
    return [
        (
            _ascending(entry.survivors) and survivors <= asked,
            "survivors",
            "not clients that were asked, each once and in order",
        ),
        (
            len(survivors) >= begun.fewest,
            "survivors",
            f"{len(survivors)}, fewer than the {begun.fewest} that must survive",
        ),
        (set(entry.missed) <= set(begun.cohort), "missed", "not of the cohort"),
        (begun.plan is None or set(entry.uploads) == survivors, "uploads", "not the survivors'"),
        (
            (entry.view is None) == (begun.plan is None),
            "view",
            "there where nothing is signed, or missing where something is",
        ),
    ]


def _counted(begun: RoundEntry, entry: SumEntry) -> list[tuple[bool, str, str]]:
    """Counts against the number of survivors, and pools against counts, as far as they are told."""
    survivors, signed = len(entry.survivors), begun.plan is not None
    if not begun.pools:
        passing = (0,) if survivors >= begun.minimum else ()
        right = not signed or entry.passing == passing
        return [(right, "passing", f"a pool is opened from {begun.minimum} survivors on")]
    if entry.counts is None:
        return []
    least, total = begun.minimum * begun.unit, sum(entry.counts)
    large = tuple(pool for pool, count in enumerate(entry.counts) if count >= least)
    comes = not begun.exact or total == begun.unit * survivors
    told = f"they come to {total}, not {begun.unit} for each of {survivors} survivors"
    return [
        (len(entry.counts) == begun.pools, "counts", f"{len(entry.counts)} of {begun.pools}"),
        (comes, "counts", told),
        (
            not signed or entry.passing == large,
            "passing",
            f"not the pools with {begun.minimum} members or more",
        ),
    ]


@dataclass
class Signed:
    """The signed messages of one sum, against what its entry says."""

    plan: PlanEntry
    begun: RoundEntry
    entry: SumEntry
    roster: Roster
    signatures: int = 0
    _keys: dict[str, Advertise] = field(default_factory=dict)
    _uploads: dict[str, dict[int, Header]] = field(default_factory=dict)
    _agreed: set[str] = field(default_factory=set)
    _opened: dict[str, bool] = field(default_factory=dict)

    def check(self, evidence: tuple[bytes, ...]) -> Iterator[tuple[str, str]]:
        """What does not fit, by field."""
        readers: dict[Phase, Callable[[str, bytes], None]] = {
            Phase.ADVERTISE: self._advertised,
            Phase.AGREE: self._agreement,
            Phase.APPLY: self._applied,
        }
        for number, data in enumerate(evidence):
            try:
                header = self._opened_by(data, readers)
            except SecureSumError as problem:
                yield f"evidence[{number}]", _said(problem)
                continue
            self.signatures += 1
            if header.parameters.rpartition("/")[2] != (self.begun.plan or "")[:32]:
                yield f"evidence[{number}]", "signed for another plan of the round"
        yield from ((name, problem) for holds, name, problem in self._rules() if not holds)

    def _opened_by(self, data: bytes, readers: dict[Phase, Callable[[str, bytes], None]]) -> Header:
        claimed = read_header(data)
        expected = Expected(
            self.plan.protection,
            claimed.parameters,
            self.plan.federation,
            self.begun.round,
            claimed.phase,
            claimed.pools,
            bytes.fromhex(self.begun.key),
            chunks=claimed.chunks,
            role=None if claimed.phase is Phase.APPLY else "client",
        )
        if claimed.phase is _UPLOAD:
            header = open_head(data, self.roster, expected)
            self._uploads.setdefault(header.sender, {})[header.chunk] = header
            return header
        header, body = open_envelope(data, self.roster, expected)
        if header.phase in readers:
            readers[header.phase](header.sender, body)
        return header

    def _advertised(self, sender: str, body: bytes) -> None:
        self._keys[sender] = Advertise.decode(body)

    def _agreement(self, sender: str, body: bytes) -> None:
        if Agreement.decode(body) == Agreement(
            bytes.fromhex(self.entry.view or ""), len(self.entry.survivors)
        ):
            self._agreed.add(sender)

    def _applied(self, sender: str, body: bytes) -> None:
        self._opened[sender] = body.startswith(bytes.fromhex(self.entry.digest))

    def _rules(self) -> list[tuple[bool, str, str]]:
        begun, entry = self.begun, self.entry
        survivors = set(entry.survivors)
        strange = {*self._keys, *self._uploads} - set(begun.cohort)
        forked = sorted(name for name, same in self._opened.items() if not same)
        return [
            (not strange, "evidence", "messages of clients that were not asked"),
            (self._headers() == entry.uploads, "uploads", "not the digests of the signed headers"),
            (
                self._agreed <= survivors,
                "evidence",
                "an agreement of a client that did not survive",
            ),
            (
                len(self._agreed) >= begun.threshold,
                "view",
                f"{len(self._agreed)} of {begun.threshold} signatures that are needed fit it",
            ),
            (not forked, "digest", f"{', '.join(forked)} signed another"),
            (
                self._view() == entry.view,
                "view",
                "not that of the plan, the advertised keys and the survivors",
            ),
        ]

    def _headers(self) -> dict[str, str]:
        whole = {
            name: parts
            for name, parts in self._uploads.items()
            if sorted(parts) == list(range(parts[min(parts)].chunks))
        }
        encoded = {
            name: b"".join(parts[chunk].encode() for chunk in sorted(parts))
            for name, parts in whole.items()
        }
        return {
            name: hashlib.sha256(data).hexdigest()
            for name, data in encoded.items()
            if name in self.entry.survivors
        }

    def _view(self) -> str:
        """What the survivors must have signed."""
        begun, masked = self.begun, self.begun.threshold > 0
        asked = [name for name in begun.cohort if name not in begun.left_out]
        names = sorted(self._keys) if masked else asked
        silent = {
            name for name, phase in self.entry.missed.items() if phase in ("advertise", "share")
        }
        survivors = [place for place, name in enumerate(names) if name in self.entry.survivors]
        # without masks nobody deals shares
        dealers = (
            [place for place, name in enumerate(names) if name not in silent] if masked else []
        )
        digests = (
            bytes.fromhex(text) for text in (begun.plan or "", self.plan.roster or "", begun.key)
        )
        plan, roster, key = digests
        keys: dict[str, Advertise | None] = {name: self._keys.get(name) for name in names}
        return view_of(plan, roster, key, begun.round, keys, dealers, survivors).hex()


def _ascending(names: tuple[str, ...]) -> bool:
    return list(names) == sorted(set(names))


def _said(problem: Exception) -> str:
    return problem.problem if isinstance(problem, SecureSumError) else "missing"
