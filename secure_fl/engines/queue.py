"""A federation in one process: a queue over parties, and a clock.

What a party sends is bytes; they are delivered one message after the other, those to the server
first, so that one upload at a time is in memory. Where nothing is under way, time goes on to the
next deadline. Parties may live behind `Host`s, in this process or in others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from secure_fl.engines.pipes import Remote, wait_for
from secure_fl.errors import TrainingError
from secure_fl.federation.parties.party import Message, Party

Tap = Callable[[str, str, bytes | memoryview], bytes | memoryview | None]
"""Sees every message as (sender, recipient, bytes); what it returns is delivered, None nothing."""


class Host(Protocol):
    """Where parties live. One message is given to a host at a time."""

    @property
    def names(self) -> Sequence[str]:
        """Of its parties."""

    @property
    def due(self) -> float | None:
        """When one of its parties is to be told the time."""

    @property
    def busy(self) -> bool:
        """Whether it works on a message, so that `collect` has something to wait for."""

    @property
    def over(self) -> bool:
        """Whether the federation has ended for all its parties."""

    def give(self, to: str, data: bytes | memoryview) -> None:
        """A message for one of its parties."""

    def tick(self, now: float) -> None:
        """Tell all its parties the time."""

    def collect(self) -> list[tuple[str, Message]]:
        """What its parties have sent since, each with its sender; waits where it is busy."""


class Here:
    """Parties of this process."""

    def __init__(self, parties: Iterable[Party]) -> None:
        self._parties = {party.name: party for party in parties}
        self.names: Sequence[str] = tuple(self._parties)
        self._sent: list[tuple[str, Message]] = []
        self.busy = False

    @property
    def due(self) -> float | None:
        found = [party.due for party in self._parties.values()]
        return min((due for due in found if due is not None), default=None)

    @property
    def over(self) -> bool:
        return all(party.over for party in self._parties.values())

    def give(self, to: str, data: bytes | memoryview) -> None:
        self._sent += [(to, message) for message in self._parties[to].receive(data)]

    def tick(self, now: float) -> None:
        for name, party in self._parties.items():
            if party.due is not None and party.due <= now:
                self._sent += [(name, message) for message in party.tick(now)]

    def collect(self) -> list[tuple[str, Message]]:
        sent, self._sent = self._sent, []
        return sent


class Queue:
    """Delivers what parties send until nothing is left to be done.

    Args:
        hosts: where the parties live.
        first: whose messages are delivered before all others: the server's name.
        tap: sees every message, and may change or keep it; for transcripts and tests.
    """

    def __init__(self, hosts: Sequence[Host], first: str, *, tap: Tap | None = None) -> None:
        self._hosts, self._first, self._tap = hosts, first, tap
        self._at = {name: host for host in hosts for name in host.names}
        self._urgent = deque[Message]()
        self._waiting: dict[int, deque[Message]] = {id(host): deque() for host in hosts}
        self.now = 0.0

    def run(self, *, until: Callable[[], bool] = lambda: False, most: int = 10_000) -> None:
        """Go on until the first party has ended the federation and nothing is under way. Raises
        TrainingError: nothing is under way, and nobody waits for a deadline.

        Args:
            until: asked after each message: whether to stop before, and to go on another time.
            most: deadlines that may pass; more are an error, so that nothing runs for ever.
        """
        for _ in range(most):
            if self._deliver(until):
                return
            due = min((host.due for host in self._hosts if host.due is not None), default=None)
            if self._at[self._first].over:
                return
            if due is None:
                break
            self.now = max(self.now, due)
            for host in self._hosts:
                host.tick(self.now)
        problem, remedy = "nobody goes on", "read what the parties refused"
        raise TrainingError(problem, "federation", self.now, remedy)

    def _deliver(self, until: Callable[[], bool]) -> bool:
        """Give every message to its reader, as long as there are any; whether to stop."""
        given = True
        while given:
            for host in self._hosts:
                if not host.busy:
                    self._sort(host.collect())
            if until():
                return True
            given = self._give()
            busy = [host for host in self._hosts if isinstance(host, Remote) and host.busy]
            if busy and not given:
                self._sort(wait_for(busy).collect())
                given = True
        return until()

    def _give(self) -> bool:
        """One message to the first party; where there is none, one to each host that is idle."""
        if self._urgent:
            host = self._at[self._first]
            if host.busy:
                return False
            host.give(self._first, self._urgent.popleft().data)
            return True
        given = False
        for host in self._hosts:
            waiting = self._waiting[id(host)]
            if waiting and not host.busy and not self._urgent:
                message = waiting.popleft()
                host.give(message.to, message.data)
                given = True
                if not host.busy:
                    self._sort(host.collect())
        return given

    def _sort(self, sent: Iterable[tuple[str, Message]]) -> None:
        for sender, message in sent:
            data = message.data
            if self._tap is not None:
                seen = self._tap(sender, message.to, data)
                if seen is None:
                    continue
                data = seen
            if message.to not in self._at:
                continue
            if message.to == self._first:
                self._urgent.append(Message(message.to, data))
            else:
                self._waiting[id(self._at[message.to])].append(Message(message.to, data))
