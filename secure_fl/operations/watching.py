"""Watches a driver's parties, and tells observers what they do.

**Guarantee.** Of a message its header is read, and nothing behind it; of a party what it says to
everybody: where it is, who has joined, what it refused. Nothing that an observer does, or fails to
do, reaches the driver.

**Not covered.** Headers are read as they are claimed: whoever may send can make phases look busier
than they are.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from secure_fl.crypto.envelope import Header, Phase
from secure_fl.crypto.refusals import RefusedError
from secure_fl.engines.session.link import Watch
from secure_fl.federation.parties.participant import Participant
from secure_fl.federation.parties.party import Message, Party, RefusalLog
from secure_fl.federation.parties.server import FederationServer
from secure_fl.federation.place import Place
from secure_fl.federation.transcript.entries import StateEntry
from secure_fl.federation.wire import route
from secure_fl.operations import logs
from secure_fl.operations.view import Course, Leg, Observer, Peer, Tail, View, known_reason
from secure_fl.operations.waits import Waits
from secure_fl.secure_sum.steps import Refusal

_MOST_PEERS = 1024
_PHASES = frozenset(phase.name.lower() for phase in Phase)
_ROUND = frozenset(
    {
        *(phase for phase in Phase if Phase.KEYS < phase < Phase.HELLO),
        Phase.BEGIN,
        Phase.GIVE,
        Phase.PART,
        Phase.PARTS,
        Phase.RESULT,
        Phase.RESULTS,
    }
)
"""Phases of a round, whose messages have its number."""


def watch_of(
    record: Path | None, *observers: Observer, role: str = "server", name: str = "server"
) -> Watching:
    """A watch for a driver.

    Args:
        record: folder with the transcript; None where `Watching.follow` will say it.
        observers: are told what is seen; more may be added to `Watching.observers`.
        role: `server` or `site`.
        name: of it.
    """
    return Watching(record, observers, role=role, name=name)


class Watching(Watch):
    """A watch over the parties of one process.

    Args:
        record: folder with the transcript, `transcript.jsonl`; None where `follow` will say it.
        role: `server` or `site`.
        name: of it.
        observers: are told.
        clock: seconds that only grow.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        record: Path | None,
        observers: Sequence[Observer] = (),
        *,
        role: str = "server",
        name: str = "server",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._wall, self.observers = clock, wall, tuple(observers)
        self.view = View(role, name, wall())
        self._tail, self._ailing = Tail(record), set[str]()
        self._counted, self._parties = dict[str, Counter[str]](), dict[str, Party]()
        self._waits = Waits(wall)
        self._began = self._last = clock()
        self._first, self._called = True, -1

    def follow(self, record: Path, ledgers: Mapping[str, Path] | None = None) -> None:
        """Watch another federation from now on.

        Args:
            record: folder with its transcript.
            ledgers: of a site's clients in it, by name.
        """
        self.view.anew()
        self.view.ledgers = ledgers or {}
        self._tail, self._first, self._called = Tail(record), True, -1
        self._parties, self._counted = {}, {}

    # What the driver says

    def turned(self) -> None:
        """The loop goes on."""
        if self._first:
            self._read()
        self._tell("turned")

    def back(self, peer: str) -> None:
        """A machine is there."""
        self._met(peer, there=True, reason="")

    def lost(self, peer: str, reason: str) -> None:
        """A machine is gone."""
        self._met(peer, there=False, reason=reason)

    def received(self, to: str, data: bytes | memoryview, seconds: float) -> None:
        """A message was taken."""
        self._message("in", data, seconds)

    def sent(self, sender: str, message: Message) -> None:
        """A message goes out."""
        self._message("out", message.data, None)

    def stepped(self, party: Party) -> None:
        """A party is further, or is not."""
        with self._safely("watch"):
            if isinstance(party, FederationServer | Participant):
                self._parties[party.name] = party
                self._refusals(party.name, party.refusals)
            self._read()
            self._look()

    # What follows

    def _met(self, name: str, *, there: bool, reason: str) -> None:
        known = self.view.peers.get(name)
        if known is None and len(self.view.peers) >= _MOST_PEERS:
            return
        losses = (0 if known is None else known.losses) + (not there)
        self.view.peers[name] = Peer(there, self._wall(), losses)
        self._tell("peer", name, reason)

    def _message(self, direction: str, data: bytes | memoryview, seconds: float | None) -> None:
        with self._safely("watch"):
            try:
                header: Header | None = route(data)
            except RefusedError:
                header = None
            phase = "unreadable" if header is None else header.phase.name.lower()
            self.view.phase = phase
            self.view.messages[direction, phase] += 1
            self.view.bytes[direction, phase] += len(data)
            if header is not None:
                self._follow(header, direction, len(data), self._clock() - (seconds or 0.0))
            self._tell("message", direction, phase, len(data), seconds)

    def _follow(self, header: Header, direction: str, size: int, at: float) -> None:
        """What a message means for the round that runs. What a party does with it counts to the
        message that comes next, which is its answer.
        """
        if header.phase in (Phase.BEGIN, Phase.END) and direction == self._calls:
            self._look()  # the party is where the message leads already
            if header.phase == Phase.END:
                self._end()
            elif header.round > self._called:
                self._begin(header.round, at)
        course = self.view.course
        if course is None or header.phase not in _ROUND or header.round != course.number:
            return
        now, phase = max(at, self._last), header.phase.name.lower()
        leg = course.legs.setdefault(phase, Leg(self._last - self._began))
        leg.seconds += now - self._last
        leg.bytes[direction] += size
        leg.ended = course.seconds = now - self._began
        self._last = now

    @property
    def _calls(self) -> str:
        """Which way the server's calls go, as seen from here."""
        return "out" if self.view.role == "server" else "in"

    def _begin(self, number: int, at: float) -> None:
        self._end()
        self._called, view = number, self.view
        self._began = self._last = at
        if view.role != "server":
            last = view.courses[-1] if view.courses else None
            again = last is not None and last.place == view.place
            view.number, view.attempt = number, last.attempt + 1 if last and again else 1
        began = self._wall() - (self._clock() - at)
        view.courses.append(Course(number, view.attempt, view.place, began))
        self._tell("began", view.courses[-1])

    def _end(self) -> None:
        course = self.view.course
        if course is not None:
            course.outcome = "again" if course.place == self.view.place else "done"
            self._tell("ended", course)

    def _look(self) -> None:
        """Where the parties say that they are."""
        view, parties = self.view, self._parties.values()
        before = view.stage, view.over, view.place
        view.over = bool(parties) and all(party.over for party in parties)
        for party in parties:
            if isinstance(party, FederationServer):
                view.place, view.stage, view.members = party.place, str(party.stage), party.members
                view.number, view.attempt = party.number, party.attempt
                self._waits.look(party)
                view.waits = self._waits.now
                reason = getattr(party.failed, "reason", getattr(party.failed, "code", ""))
                view.failed = str(reason)
            else:
                view.place = max(filter(None, (view.place, _place(party))), default=None)
        if view.role == "server" and view.place != before[2]:
            self._end()
        if (view.stage, view.over) != before[:2]:
            self._tell("stage")

    def _refusals(self, name: str, log: RefusalLog) -> None:
        """What a party has turned away since it was looked at last."""
        before = self._counted.setdefault(name, Counter())
        if log.counts.total() == before.total():
            return
        for word, count in (log.counts - before).items():
            reason = known_reason(word)
            self.view.refusals[reason] += count
            last = log.first[-1]
            shown = count == 1 and log.counts.total() == len(log.first)
            facts = self._claimed(last) if shown else {}
            self._tell("refused", {"party": name, **facts}, reason, count)
        self._counted[name] = Counter(log.counts)

    def _claimed(self, refusal: Refusal) -> dict[str, object]:
        """What a message that was refused claims to be, as far as that is a name that is known."""
        known = {*self._parties, *(self.view.plan.clients if self.view.plan else ())}
        facts = {"sender": refusal.sender} if refusal.sender in known else {}
        return {**facts, "phase": refusal.phase} if refusal.phase in _PHASES else {**facts}

    def _read(self) -> None:
        """New lines of the transcript; those of an earlier life are nobody's news."""
        with self._safely("transcript"):
            first, self._first = self._first, False
            entries = self._tail.more()
            for entry in entries:
                self.view.take(entry)
                if first and isinstance(entry, StateEntry):
                    self.view.place = Place(*entry.place)
                if not first:
                    self._tell("entry", entry)
            if first and entries:
                logs.say("goes-on", count=len(entries))

    # Nothing of this reaches the driver

    def _tell(self, what: str, *args: Any) -> None:
        for observer in self.observers:
            with self._safely(type(observer).__name__.lower()):
                getattr(observer, what)(self.view, *args)

    @contextmanager
    def _safely(self, kind: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if kind not in self._ailing:
                self._ailing.add(kind)
                logs.failed("observer-failed", error, logging.WARNING, kind=kind)


def _place(party: Party) -> Place | None:
    state: Any = getattr(party, "state", None)
    return None if state is None else state.place
