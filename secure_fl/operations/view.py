"""What one process knows of its federation, in public facts; and who is told when it changes."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from secure_fl.crypto.refusals import Reason
from secure_fl.federation.place import Place
from secure_fl.federation.transcript.chain import Line
from secure_fl.federation.transcript.entries import (
    EndEntry,
    Entry,
    PlanEntry,
    RefusedEntry,
    RoundEntry,
    SumEntry,
)
from secure_fl.operations.waits import Wait
from secure_fl.secure_sum.messages import RoundReason

_REASONS = frozenset(map(str, (*Reason, *RoundReason)))
OTHER = "other"
_LONGEST = 400
"""Rounds that are kept to be shown."""


def known_reason(word: str) -> str:
    """A refusal's word, if it is one of ours: who refuses may say anything."""
    return str(word) if word in _REASONS else OTHER


@dataclass
class Leg:
    """One phase of an attempt: the messages of its kind, and the time that was waited for them.

    Attributes:
        began, ended: seconds since the attempt began.
        seconds: from the message before, of whatever kind, to each message of this kind, together.
        bytes: by direction, `in` and `out`.
    """

    began: float
    ended: float = 0.0
    seconds: float = 0.0
    bytes: Counter[str] = field(default_factory=Counter)


@dataclass
class Course:
    """An attempt at a round, as this process saw it.

    Attributes:
        number: of the attempt, used once in a federation.
        attempt: at the round of its place, from 1.
        place: where the program was; None where that is not known here.
        began: in seconds since 1970.
        seconds: until its last message so far.
        outcome: `running`, `done`, or `again` where the place stayed.
        legs: by phase.
    """

    number: int
    attempt: int
    place: Place | None
    began: float
    seconds: float = 0.0
    outcome: str = "running"
    legs: dict[str, Leg] = field(default_factory=dict)


@dataclass
class Peer:
    """A machine; `since` when it is there, or gone, in seconds since 1970."""

    there: bool
    since: float
    losses: int = 0


@dataclass
class Told:
    """A round of the transcript."""

    entry: RoundEntry
    sums: list[SumEntry] = field(default_factory=list)


@dataclass
class View:
    """What is known now.

    Attributes:
        role: `server` or `site`.
        name: of it.
        began: when this process began to watch, in seconds since 1970.
        stage: what a server waits for; empty at a site.
        phase: of the message that came or went last.
        place, number, attempt: how far the federation is.
        members: clients and authority that have joined, at a server.
        peers: machines that were there once.
        waits: whom a server waits for, by phase.
        refusals: by reason, as this process' own parties count them.
        bytes, messages: by direction and phase.
        courses: attempts of this process' life, the last of them.
        plan, rounds, refused, end: as the transcript has them.
        pools: of each pool, members as they were opened last.
        failed: a word for why the federation failed; empty where it did not.
        ledgers: of a site's own clients, by name.
    """

    role: str
    name: str
    began: float
    stage: str = ""
    phase: str = ""
    place: Place | None = None
    number: int = -1
    attempt: int = 1
    over: bool = False
    failed: str = ""
    members: frozenset[str] = frozenset()
    peers: dict[str, Peer] = field(default_factory=dict)
    waits: Mapping[str, Wait] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    bytes: Counter[tuple[str, str]] = field(default_factory=Counter)
    messages: Counter[tuple[str, str]] = field(default_factory=Counter)
    courses: deque[Course] = field(default_factory=lambda: deque(maxlen=_LONGEST))
    plan: PlanEntry | None = None
    rounds: dict[tuple[int, str], Told] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    pools: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    end: str = ""
    ledgers: Mapping[str, Path] = field(default_factory=dict)

    def anew(self) -> None:
        """Another federation begins: what was known of the one before is forgotten."""
        fresh = View(self.role, self.name, self.began)
        for name in _OF_ONE:
            setattr(self, name, getattr(fresh, name))

    @property
    def course(self) -> Course | None:
        """The attempt that runs."""
        last = self.courses[-1] if self.courses else None
        return last if last is not None and last.outcome == "running" else None

    @property
    def why(self) -> str:
        """A word for why the federation failed; empty where it did not, or not yet."""
        return self.failed or (self.end if self.end != "done" else "")

    @property
    def there(self) -> list[str]:
        """Machines that can be reached."""
        return sorted(name for name, peer in self.peers.items() if peer.there)

    def take(self, entry: Entry) -> None:
        """What an entry of the transcript says."""
        match entry:
            case PlanEntry():
                self.plan = entry
            case RoundEntry():
                self.rounds[entry.round, entry.plan or ""] = Told(entry)
                while len(self.rounds) > _LONGEST:
                    del self.rounds[next(iter(self.rounds))]
            case SumEntry():
                self._opened(entry)
            case RefusedEntry():
                self.refused[known_reason(entry.reason)] += 1
            case EndEntry():
                self.end = entry.reason

    def _opened(self, entry: SumEntry) -> None:
        """Occupancy is what the counts say; sums over groups of one round are added."""
        told = self.rounds.get((entry.round, entry.plan or ""))
        if told is None:
            return
        told.sums.append(entry)
        if not entry.counts or not told.entry.unit:
            return
        sums = [each for (number, _), each in self.rounds.items() if number == entry.round]
        self.pools = occupancy([(each.entry.unit, one) for each in sums for one in each.sums])


def occupancy(sums: list[tuple[int, SumEntry]]) -> dict[int, float]:
    """Members of each pool in one round, from its opened sums, each with what one member adds."""
    found: dict[int, float] = defaultdict(float)
    for unit, one in sums:
        for pool, count in enumerate(one.counts or ()):
            found[pool] += count / unit
    return found


_OF_ONE = (
    *(
        "stage",
        "phase",
        "waits",
        "place",
        "number",
        "attempt",
        "over",
        "failed",
        "members",
        "courses",
    ),
    *("plan", "rounds", "refused", "pools", "end", "ledgers"),
)


class Observer:
    """Is told what changes in a view; this one takes no notice. It is told while the driver waits,
    so it takes no time to speak of.
    """

    def peer(self, view: View, name: str, reason: str) -> None:
        """A machine came, or went for a reason."""

    def message(
        self, view: View, direction: str, phase: str, size: int, seconds: float | None
    ) -> None:
        """A message went `out` or came `in`; a party took so long for it."""

    def refused(self, view: View, facts: Mapping[str, object], reason: str, count: int) -> None:
        """Messages were turned away; of one alone, who is said to have sent it, and when."""

    def began(self, view: View, course: Course) -> None:
        """An attempt was called."""

    def ended(self, view: View, course: Course) -> None:
        """An attempt is over, whatever came of it."""

    def stage(self, view: View) -> None:
        """A server waits for something else, or the federation is over."""

    def entry(self, view: View, entry: Entry) -> None:
        """The transcript has a new line."""

    def turned(self, view: View) -> None:
        """The driver's loop has gone round."""


class Tail:
    """Reads what a transcript says, as it grows.

    Args:
        record: folder with its file, which need not be there yet; None where there is none.
    """

    def __init__(self, record: Path | None) -> None:
        self._path = None if record is None else record / "transcript.jsonl"
        self._read = 0

    def more(self) -> list[Entry]:
        """Entries that are new since the last time. Raises RefusedError: a line is damaged;
        OSError: the file cannot be read.
        """
        if self._path is None or not self._path.is_file():
            return []
        size = self._path.stat().st_size
        if size <= self._read:
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            data = file.read(size - self._read)
        data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        return [Line.read(line).entry for line in data.splitlines()]
