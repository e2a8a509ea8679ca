"""Runs parties of this process in real time: gives them what arrives and the time, sends what they
say. One thread; whatever a party does, it does alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from secure_fl.engines.session.link import CLOSED, Arrived, Back, Link, Lost, Watch
from secure_fl.federation.parties.participant import Participant
from secure_fl.federation.parties.party import Message, Party

_GLANCE = 0.5
"""Seconds after which `until` is asked again while nothing happens."""


class Driver:
    """Parties on a link.

    Args:
        parties: of this process.
        link: to those of others.
        watch: is told what happens.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        parties: Sequence[Party],
        link: Link,
        *,
        watch: Watch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parties = {party.name: party for party in parties}
        self._link, self._watch = link, watch or Watch()
        self._clock, self._began = clock, clock()
        self._told = dict[str, float]()
        self._expected = set[str]()
        """Machines that came, and did not say that they go; by events, which come after `peers`."""

    @property
    def over(self) -> bool:
        """Whether the federation has ended for every party here."""
        return all(party.over for party in self._parties.values())

    def run(
        self,
        *,
        until: Callable[[], bool] = lambda: False,
        linger: float = 0.0,
        settle: float = 10.0,
    ) -> bool:
        """Go on until the federation has ended here; whether it has. Raises FileError: a party
        cannot write what it must; nothing that follows from it was sent.

        Args:
            until: asked now and then: whether to stop before that.
            linger: seconds for which whoever comes late is still answered when it is over here;
                less where everybody has gone, and said so.
            settle: seconds from the beginning in which those come back who were there in an earlier
                life of this process; nobody has gone before.
        """
        ended: float | None = None
        while not until():
            now = self._now
            ended = ended if ended is not None or not self.over else now
            if ended is not None and (
                now - ended >= linger or (now >= settle and not self._expected)
            ):
                return True
            self._step(now)
        return self.over

    @property
    def _now(self) -> float:
        return self._clock() - self._began

    def _step(self, now: float) -> None:
        """What is due, or else the next event."""
        self._watch.turned()
        due = [party for party in self._parties.values() if party.due is not None]
        for party in due:
            told = self._told.get(party.name)
            # waits that begin with a message count from the time that was told last
            late = told is None or now - told >= _GLANCE
            if party.due is not None and (late or party.due <= now):
                self._told[party.name] = now
                self._said(party, party.tick(now))
        coming = min((party.due for party in due if party.due is not None), default=now + _GLANCE)
        event = self._link.receive(max(0.0, min(coming - self._now, _GLANCE)))
        match event:
            case Arrived(to, data):
                self._arrived(to, data)
            case Back(peer):
                self._expected.add(peer)
                self._watch.back(peer)
                for party in self._parties.values():
                    if isinstance(party, Participant):
                        party.back()
            case Lost(peer, reason):
                if reason == CLOSED:
                    self._expected.discard(peer)
                self._watch.lost(peer, reason)

    def _arrived(self, to: str, data: bytes | memoryview) -> None:
        party = self._parties.get(to)
        if party is None:
            return
        started = time.perf_counter()
        sent = party.receive(data)
        self._watch.received(to, data, time.perf_counter() - started)
        self._said(party, sent)

    def _said(self, party: Party, sent: Sequence[Message]) -> None:
        for message in sent:
            self._watch.sent(party.name, message)
            self._link.send(party.name, message)
        self._watch.stepped(party)
