"""The server's `Link` where only Flower's own port is open: its messages carry ours.

A site has one message of Flower's under way at a time. It brings all that the server has said to
the site's parties; its answer, which comes when these are done, brings all that they have said
since. An answer carries as many bytes as it was given room for; what finds none is fetched by
another message. The rooms of all messages under way are bounded together, so large uploads come in
waves, and the server takes one answer at a time; neither the SuperLink nor the server holds more.

Guarantee: the same bytes go as by any other link. A message or an answer that is lost, with a
machine or in Flower's database, is noticed: the site's parties are told to say again that they are
there, and are told again what they missed.
Assumes: Flower's grid is used by this object alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from secure_fl.engines.flower.calling import LOOK, code_in
from secure_fl.engines.flower.door import MOST, Answer, Question, ends
from secure_fl.engines.flower.nodes import Node, Seats, nodes_of
from secure_fl.engines.flower.packing import pack
from secure_fl.engines.session.link import CLOSED, Arrived, Back, Event, Lost
from secure_fl.federation.parties.party import Message

ROOM = 1 << 28
"""Bytes of answers under way at a time, at the most; a single larger one comes alone."""
POKE, PARTING = 30.0, 5.0
"""Seconds after which a site is asked although there is nothing to say; and where it was told that
the federation has ended, so that it can say farewell.
"""
_QUICK, _SLOW, _SLOWER = 0.3, 1.0, 1.2
_AGAIN = 5.0
OFFLINE = "offline"


@dataclass
class _Line:
    """The way to one site.

    Attributes:
        node: its node, as it was when the message under way was sent.
        outbox: what the server has said to its parties, and to whom.
        message: Flower's number of the message under way; empty where there is none.
        room: bytes that its answer may carry.
        due: when the site is asked again at the latest.
        epoch: how often it was lost.
        got: number of its last answer.
        ready: bytes that found no room in it.
        reached: whether its last answer was good.
        ended: whether a party there was told that the federation has ended.
    """

    node: Node
    outbox: deque[tuple[str, bytes | memoryview]] = field(default_factory=deque, repr=False)
    message: str = ""
    room: int = 0
    due: float = 0.0
    epoch: int = 0
    got: int = 0
    ready: int = 0
    reached: bool = False
    ended: bool = False


class GridLink:
    """Flower's grid as a link.

    Args:
        grid: Flower's.
        seats: who is who.
        word: of the run; another one for every life of the server.
        ttl: seconds that an answer may take, the longest training included.
        most: bytes of the longest message that anybody may send.
        server: name of the server's party.
        nodes: finds the sites' nodes.
        clock: seconds that only grow.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        grid: Any,
        seats: Seats,
        word: str,
        *,
        ttl: float,
        most: int = MOST,
        server: str = "server",
        nodes: Callable[[Any, Seats], Mapping[str, Node]] = nodes_of,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._grid, self._seats, self._word, self._ttl = grid, seats, word, ttl
        self._nodes, self._most = nodes, most
        self._server, self._clock, self._sleep = server, clock, sleep
        self._lines, self._events = dict[str, _Line](), deque[Event]()
        self._homes = dict[str, str]()
        self._asking = deque[str]()
        """Sites whose answer is asked for in this turn."""
        self._look = self._poll = 0.0
        self._pause = _QUICK

    @property
    def peers(self) -> frozenset[str]:
        """Sites whose last answer was good."""
        return frozenset(site for site, line in self._lines.items() if line.reached)

    def send(self, sender: str, message: Message) -> None:
        """For the next message to its site."""
        line = self._lines.get(self._homes.get(message.to, ""))
        if line is not None and line.reached:
            line.outbox.append((message.to, message.data))
            line.ended |= ends(message.data)

    def receive(self, seconds: float) -> Event | None:
        """The next event. Nothing is sent before all events of an answer are done, so that what
        follows from them goes in one message.
        """
        until = self._clock() + seconds
        while not self._events:
            self._turn()
            left = until - self._clock()
            if self._events or left <= 0:
                break
            self._sleep(min(left, max(0.0, self._poll - self._clock())))
        return self._events.popleft() if self._events else None

    def close(self) -> None:
        """Send what is left; what sites answer to it nobody hears."""
        self._send(self._clock())

    def _turn(self) -> None:
        """What is due: look who is there, send, and ask for one answer."""
        now = self._clock()
        if now >= self._look:
            self._look = now + LOOK
            self._find(now)
        self._send(now)
        if not self._asking and now >= self._poll:
            self._asking.extend(site for site, line in self._lines.items() if line.message)
            self._poll, self._pause = now + self._pause, min(_SLOW, self._pause * _SLOWER)
        while self._asking and not self._events:
            self._hear(self._asking.popleft(), now)

    def _find(self, now: float) -> None:
        """Sites that came, went, or came again: a node that began anew has lost its message."""
        nodes = self._nodes(self._grid, self._seats)
        self._homes = {name: site for site, seat in self._seats().items() for name in seat.parties}
        for site, node in nodes.items():
            line = self._lines.setdefault(site, _Line(node))
            if line.node != node:
                self._lose(site, OFFLINE, now)
                line.node, line.due = node, now
        for site in self._lines.keys() - nodes.keys():
            if self._lines[site].reached or self._lines[site].message:
                self._lose(site, OFFLINE, now)
            self._lines[site].due = now + LOOK

    def _send(self, now: float) -> None:
        """A message to each site that has none under way and to which there is something to say."""
        from flwr.app import Message as FlowerMessage

        sent = dict[str, _Line]()
        share = ROOM // max(1, len(self._lines))
        for site, line in self._lines.items():
            if line.message or not (line.outbox or line.ready or now >= line.due):
                continue
            under_way = sum(other.room for other in self._lines.values() if other.message)
            line.room = max(line.ready, share)
            if line.ready > share and under_way and under_way + line.room > ROOM:
                continue  # in the next wave
            line.message = "…"
            sent[site] = line
        messages = list[Any]()
        for site, line in sent.items():
            to, frames = self._loaded(site, line)
            epoch = f"{self._word}-{line.epoch}"
            head = Question("exchange", site, epoch, line.got, line.room, to)
            content = pack(head, frames)
            messages.append(FlowerMessage(content, line.node.number, "query", ttl=self._ttl))
        if messages:
            self._pause = _QUICK
            for line, number in zip(sent.values(), self._grid.push_messages(messages), strict=True):
                line.message = str(number or "")
                line.due = now + (PARTING if line.ended else POKE)

    def _most_at(self, site: str) -> int:
        """Bytes that go at once, either way: as many as a message for each party there may have."""
        return self._most * max(1, sum(home == site for home in self._homes.values()))

    def _loaded(
        self, site: str, line: _Line
    ) -> tuple[tuple[str, ...], tuple[bytes | memoryview, ...]]:
        """What is said next to a site, and to whom; the rest waits for the next message."""
        room, taken = self._most_at(site), list[tuple[str, bytes | memoryview]]()
        while line.outbox and (not taken or len(line.outbox[0][1]) <= room):
            taken.append(line.outbox.popleft())
            room -= len(taken[-1][1])
        return tuple(to for to, _ in taken), tuple(data for _, data in taken)

    def _hear(self, site: str, now: float) -> None:
        """The answer of a site, if it is there."""
        line = self._lines[site]
        if not line.message:
            return
        for reply in self._grid.pull_messages([line.message]):
            line.message, self._pause = "", _QUICK
            code, answer, frames = code_in(reply)
            if code:
                self._lose(site, code, now)
            else:
                self._take(site, line, answer, frames)

    def _take(self, site: str, line: _Line, answer: Answer, frames: list[bytes]) -> None:
        if not line.reached:
            line.reached = True
            self._events.append(Back(site))
        line.got, line.ready = answer.number, min(answer.ready, self._most_at(site))
        self._events.extend(Arrived(self._server, frame) for frame in frames)
        if answer.farewell:
            self._lose(site, CLOSED, self._clock())

    def _lose(self, site: str, word: str, now: float) -> None:
        """What was said to a site may not have come, and what it said neither."""
        line = self._lines[site]
        if line.reached:
            self._events.append(Lost(site, word))
        line.reached, line.message, line.ready, line.got = False, "", 0, 0
        line.outbox.clear()
        line.epoch, line.due = line.epoch + 1, now + _AGAIN
