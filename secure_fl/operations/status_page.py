"""The status page: one file, which asks for no other, written anew when something has happened.

It says what the transcript says, and what this process has seen since it began: who is there, how
far the federation is, what rounds took, what was refused. A browser that has it open reads it again
by itself.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from secure_fl import __version__
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.federation.place import Place
from secure_fl.files import write_atomically
from secure_fl.operations.expiry import expiries
from secure_fl.operations.view import Course, Observer, Told, View
from secure_fl.quantities import counted, duration, size
from secure_fl.report.page import environment
from secure_fl.report.tables import NONE, Cell, Mark, Table, count, some, table
from secure_fl.report.tiles import Line, Tile

AGAIN = 5
"""Seconds after which a browser reads it again, and after which it is written again at the
earliest."""
_STILL = 60.0
"""Seconds after which it is written although nothing has happened: so its time shows that the
process lives."""
_SHOWN = 50
_SOON = 30
"""Days before its end at which a certificate is pointed out."""


class StatusPage(Observer):
    """Writes the page. Raises DependencyError: jinja2 is not installed; FileError: the page cannot
    be written.

    Args:
        path: of the page.
        view: what is known now.
        tls: of this end, whose certificates' days are shown.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        path: Path,
        view: View,
        tls: TlsFiles | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._template = environment("operations", "report").get_template("status.html.j2")
        self._path, self._tls, self._clock = path, tls, clock
        self._news, self._written, self._waits = False, clock(), view.waits
        self.write(view)

    def write(self, view: View, *, ends: bool = False) -> None:
        """Write it now; where this process ends, so that nobody reads it again. Raises FileError:
        it cannot be written.
        """
        text = self._template.render(
            view=view,
            again=0 if ends else AGAIN,
            now=_when(time.time()),
            version=__version__,
            title=view.plan.federation if view.plan else "federation",
            tiles=_tiles(view, expiries(self._tls)),
            tables=[each for each in _tables(view) if each.rows],
        )
        write_atomically(self._path, text)
        self._news, self._written, self._waits = False, self._clock(), view.waits

    def turned(self, view: View) -> None:
        wait = AGAIN if self._news or view.waits != self._waits else _STILL
        if self._clock() - self._written >= wait or (self._news and view.over):
            self.write(view)

    def peer(self, view: View, name: str, reason: str) -> None:
        self._news = True

    def ended(self, view: View, course: Course) -> None:
        self._news = True

    def began(self, view: View, course: Course) -> None:
        self._news = True

    def stage(self, view: View) -> None:
        self._news = True


def _when(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _tiles(view: View, days: dict[str, float]) -> list[Tile]:
    gone = sorted(view.peers.keys() - set(view.there))
    answer = f"{len(view.there)} of {len(view.peers)}" if view.peers else "nobody yet"
    lines = [Line(some(view.there))] if view.there else []
    mark: Mark = "bad" if gone and not view.over else ""
    lines += [Line(f"gone: {some(gone)}", mark)] if gone else []
    lines += (
        [Line(f"joined: {counted(len(view.members), 'party')}")] if view.role == "server" else []
    )
    who = Tile("Who is there?", answer, mark, tuple(lines), "machines")
    return [who, _how_far(view), _what_was_refused(view), _good_for(days)]


def _how_far(view: View) -> Tile:
    question, lines = "How far is it?", list[Line]()
    if view.number >= 0:
        lines.append(Line(f"attempt {view.attempt}, number {view.number}"))
    if view.stage and not view.over:
        lines.append(Line(f"waits for: {view.stage}"))
    if view.over:
        lines.append(Line(f"failed: {view.why}" if view.why else "the federation has ended"))
        if view.why:
            return Tile(question, "failed", "bad", tuple(lines), "rounds")
        return Tile(question, "done", "", tuple(lines), "rounds")
    return Tile(question, _place(view.place), "", tuple(lines), "rounds")


def _place(place: Place | None) -> str:
    return "not begun" if place is None else f"step {place.step + 1}, round {place.round + 1}"


def _what_was_refused(view: View) -> Tile:
    total = view.refusals.total()
    lines = [Line(f"{count} {reason}") for reason, count in view.refusals.most_common(4)]
    lines.append(Line("since this process began", "quiet"))
    return Tile("What was refused?", str(total), "", tuple(lines), "refusals")


def _good_for(days: dict[str, float]) -> Tile:
    question = "Until when is it good?"
    if not days:
        return Tile(
            question, "unknown", "quiet", (Line("no certificate can be read here"),), "bytes"
        )
    lines = [
        Line(f"{name} certificate: {counted(round(left), 'day')}", "bad" if left < _SOON else "")
        for name, left in sorted(days.items())
    ]
    least = min(days.values())
    mark: Mark = "bad" if least < _SOON else ""
    return Tile(question, counted(round(least), "day"), mark, tuple(lines), "bytes")


def _tables(view: View) -> list[Table]:
    shown = (_machines, _waits, _rounds, _phases, _pools, _refusals, _traffic)
    return [each(view) for each in shown]


def _machines(view: View) -> Table:
    rows: list[list[Cell]] = []
    for name, peer in sorted(view.peers.items()):
        now = Cell("there") if peer.there else Cell("gone", mark="" if view.over else "bad")
        rows.append([Cell(name), now, Cell(_when(peer.since)), count(peer.losses)])
    return table("Machines", "/machine/ | /now/ | /since/ | times lost", rows)


def _waits(view: View) -> Table:
    rows = [
        [Cell(phase), Cell(_when(wait.since)), count(len(wait.names)), Cell(some(wait.names))]
        for phase, wait in ({} if view.over else view.waits).items()
    ]
    return table("Waits for", "/phase/ | /since/ | parties | /who/", rows)


def _rounds(view: View) -> Table:
    """Of the transcript, with what this process saw of each; the last ones first."""
    seen = {course.number: course for course in view.courses}
    told: dict[int, list[Told]] = {}
    for (number, _), each in view.rounds.items():
        told.setdefault(number, []).append(each)
    numbers = sorted(told.keys() | seen.keys(), reverse=True)[:_SHOWN]
    rows = [_round(number, told.get(number, []), seen.get(number)) for number in numbers]
    titles = "/number/ | /step/ | round | attempt | called | in the sum | missed | /outcome/ | time"
    return table("Rounds, the last first", titles, rows)


def _round(number: int, told: Sequence[Told], course: Course | None) -> list[Cell]:
    first = told[0].entry if told else None
    sums = [one for each in told for one in each.sums]
    running = course is not None and course.outcome == "running"
    outcome = "running" if running else "opened" if sums else "not opened"
    if not told and course is not None:
        outcome = course.outcome
    attempt = first.attempt if first else course.attempt if course else None
    return [
        Cell(str(number)),
        Cell(first.step if first else NONE),
        count(first.place[1] + 1 if first else None),
        count(attempt),
        count(sum(len(each.entry.cohort) - len(each.entry.left_out) for each in told) or None),
        count(sum(len(one.survivors) for one in sums) if sums else None),
        count(sum(len(one.missed) for one in sums) if sums else None),
        Cell(outcome, mark="bad" if outcome in ("not opened", "again") else ""),
        Cell(_time(course.seconds) if course else NONE),
    ]


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def _phases(view: View) -> Table:
    """Of the newest attempts: where the time went."""
    shown = [course for course in view.courses if course.legs][-6:]
    rows: list[list[Cell]] = []
    for name in dict.fromkeys(name for course in shown for name in course.legs):
        legs = [course.legs.get(name) for course in shown]
        cells = [Cell(NONE if leg is None else _time(leg.seconds)) for leg in legs]
        rows.append([Cell(name), *cells])
    titles = " | ".join(["/phase/", *(f"number {course.number}" for course in shown)])
    return table("Seconds by phase, of the last attempts", titles, rows)


def _pools(view: View) -> Table:
    rows = [
        [Cell(f"pool {pool}", pool=pool), Cell(f"{members:.3g}")]
        for pool, members in sorted(view.pools.items())
    ]
    return table("Pools, as their counts were opened last", "/pool/ | members", rows)


def _refusals(view: View) -> Table:
    words = sorted(view.refusals.keys() | view.refused.keys())
    rows = [[Cell(word), count(view.refusals[word]), count(view.refused[word])] for word in words]
    titles = "/reason/ | since this process began | in the transcript"
    return table("Refusals, by reason", titles, rows)


def _traffic(view: View) -> Table:
    rows: list[list[Cell]] = []
    for phase in sorted({phase for _, phase in view.messages}, key=_weight(view), reverse=True):
        cells = [Cell(phase)]
        for way in ("in", "out"):
            cells += [count(view.messages[way, phase]), Cell(size(view.bytes[way, phase]))]
        rows.append(cells)
    return table("Traffic", "/phase/ | messages in | bytes in | messages out | bytes out", rows)


def _weight(view: View) -> Callable[[str], int]:
    return lambda phase: view.bytes["in", phase] + view.bytes["out", phase]
