"""Who is connected to a server, and whom it waits for, in a file that others read; and lines that
say how far it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from secure_fl.engines.session.link import Watch
from secure_fl.errors import RunFolderError
from secure_fl.federation.parties.party import Party
from secure_fl.federation.parties.server import FederationServer
from secure_fl.files import held, holder_of, is_file, read_json, remove, write_json
from secure_fl.lock_holder import this_process
from secure_fl.operations.waits import Wait, Waits
from secure_fl.quantities import counted
from secure_fl.records import Record, document

_PRESENT = "present.json"
_EVERY = 1.0
"""Seconds for which what is written stays, while answers come in."""


@dataclass(frozen=True)
class Present(Record):
    """A server that runs.

    Attributes:
        process: its number.
        host: on which machine.
        user: whose it is.
        since: it runs, in UTC.
        sites: that are connected.
        waits: whom it waits for, by phase.
    """

    process: int
    host: str
    user: str
    since: str
    sites: list[str]
    waits: dict[str, Wait] = field(default_factory=dict)


class Presence(Watch):
    """Keeps the file in a server's folder while it runs."""

    def __init__(self, folder: Path) -> None:
        self._path, self._note, self._sites = folder / _PRESENT, this_process(), set[str]()
        self._waits, self._news, self._written = Waits(), False, 0.0
        self._write()

    def close(self) -> None:
        """It runs no more."""
        remove(self._path)

    def back(self, peer: str) -> None:
        self._sites.add(peer)
        self._write()

    def lost(self, peer: str, reason: str) -> None:
        self._sites.discard(peer)
        self._write()

    def stepped(self, party: Party) -> None:
        if isinstance(party, FederationServer):
            self._news |= self._waits.look(party)

    def turned(self) -> None:
        if self._news and time.monotonic() - self._written >= _EVERY:
            self._write()

    def _write(self) -> None:
        self._news, self._written = False, time.monotonic()
        facts = {"sites": sorted(self._sites), "waits": document(self._waits.now)}
        write_json(self._path, self._note | facts)


def present(folder: Path, record: Path) -> Present | None:
    """The server that runs in a folder, in whatever process; None where none does, or it is not up
    yet. Raises FileError: nobody can say.

    Args:
        folder: the server's.
        record: of its federation, which a server that runs holds.
    """
    path = folder / _PRESENT
    if not is_file(path) or not record.is_dir():
        return None
    try:
        with held(record):
            remove(path)  # of one that was killed
        return None
    except RunFolderError:
        if not is_file(path):
            return None  # it has ended meanwhile
        found, holder = read_json(path, Present, "look again in a moment"), holder_of(record)
        # else an earlier one wrote it, whose number may be anybody's by now
        same = (found.process, found.host) == (holder.get("process"), holder.get("host"))
        return found if same else None


class Lines(Watch):
    """Says in a line what changes: who comes and goes, and each round.

    Args:
        say: takes a line.
        steps: names of the program's steps, in order.
    """

    def __init__(self, say: Callable[[str], None], steps: Sequence[str]) -> None:
        self._say, self._steps = say, steps
        self._at: tuple[object, ...] = ()
        self._since = time.monotonic()

    def back(self, peer: str) -> None:
        self._say(f"{peer} is connected")

    def lost(self, peer: str, reason: str) -> None:
        self._say(f"{peer} is gone: {reason}")

    def stepped(self, party: Party) -> None:
        if not isinstance(party, FederationServer):
            return
        at = (party.over, party.place, party.number)
        if at != self._at:
            self._at, taken = at, time.monotonic() - self._since
            self._since = time.monotonic()
            self._say(f"{self._where(party)}, {taken:.1f} s since the line before")

    def _where(self, party: FederationServer) -> str:
        refused = sum(party.refusals.counts.values())
        at = (party.place.step, party.place.round)
        where = "over" if party.over else where_it_is(self._steps, at, party.number)
        return f"{where}, {counted(len(party.members), 'member')}, {counted(refused, 'refusal')}"


def where_it_is(steps: Sequence[str], place: tuple[int, int], number: int) -> str:
    """A place in a program in words.

    Args:
        steps: names of its steps, in order.
        place: step, and rounds finished in it.
        number: of the attempt that was called last; below 0 before the first.
    """
    step, done = place
    name = steps[step] if step < len(steps) else "the end"
    return f"{name}, round {done + 1}, call {number}" if number >= 0 else "waits for sites"
