"""What is seen of a federation is what happened, and nothing of that reaches the driver."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from federation.parties.toy_federation import make
from operations.watched import ROUNDS, Watched, rounds
from operations.wires import Net

from secure_fl.engines.session.link import Arrived, Back, Lost
from secure_fl.federation.parties.party import Message
from secure_fl.federation.place import Place
from secure_fl.federation.transcript.entries import Entry, RoundEntry, SumEntry
from secure_fl.operations.view import Course, Observer, View, known_reason
from secure_fl.operations.watching import Watching, watch_of


class Notes(Observer):
    """Everything that it is told, in words."""

    def __init__(self) -> None:
        self.peers: list[tuple[str, bool, str]] = []
        self.refusals: list[tuple[str, int, Mapping[str, object]]] = []
        self.entries: list[Entry] = []
        self.stages: list[str] = []
        self.turns = 0

    def peer(self, view: View, name: str, reason: str) -> None:
        self.peers.append((name, view.peers[name].there, reason))

    def refused(self, view: View, facts: Mapping[str, object], reason: str, count: int) -> None:
        self.refusals.append((reason, count, facts))

    def entry(self, view: View, entry: Entry) -> None:
        self.entries.append(entry)

    def stage(self, view: View) -> None:
        self.stages.append(view.stage)

    def turned(self, view: View) -> None:
        self.turns += 1


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Watched, Notes, Notes]:
    notes = Notes(), Notes()
    made = Watched(tmp_path_factory.mktemp("fl"), [notes[0]], [notes[1]])

    def junk(net: Net) -> None:
        net.queues["server"].put(Arrived("server", b"junk" * 9))
        net.queues["server"].put(Lost("south", "silent"))
        net.queues["server"].put(Back("south"))

    made.run(junk)
    return made, *notes


def test_every_round_is_seen_at_server_and_site(watched: tuple[Watched, Notes, Notes]) -> None:
    made, _, _ = watched
    for watch in (made.server, made.site):
        assert rounds(watch) == [(number, "done") for number in range(ROUNDS)]
        assert [course.place for course in watch.view.courses] == [
            Place(0, number) for number in range(ROUNDS)
        ]
        assert [course.attempt for course in watch.view.courses] == [1] * ROUNDS


def test_a_round_is_cut_into_its_phases(watched: tuple[Watched, Notes, Notes]) -> None:
    for watch in (watched[0].server, watched[0].site):
        for course in watch.view.courses:
            assert {"begin", "upload", "agree", "apply"} <= course.legs.keys()
            spent = sum(leg.seconds for leg in course.legs.values())
            assert spent == pytest.approx(course.seconds, abs=1e-6)
            assert all(
                0 <= leg.began <= leg.ended <= course.seconds for leg in course.legs.values()
            )
            assert course.legs["upload"].bytes.total() > 0


def test_bytes_and_messages_are_counted_both_ways(watched: tuple[Watched, Notes, Notes]) -> None:
    server, site = watched[0].server.view, watched[0].site.view
    assert server.messages["in", "upload"] == 4 * ROUNDS
    assert site.messages["out", "upload"] == 2 * ROUNDS
    assert server.bytes["in", "upload"] == 2 * site.bytes["out", "upload"]
    assert server.messages["in", "unreadable"] == 1


def test_the_state_of_the_federation_is_known(watched: tuple[Watched, Notes, Notes]) -> None:
    made, server, _ = watched
    view = made.server.view
    assert view.over
    assert (view.place, view.number, view.failed, view.end) == (
        Place(0, ROUNDS),
        ROUNDS - 1,
        "",
        "done",
    )
    assert view.members == set(made.made.names)
    assert view.pools == {0: 3.0, 1: 1.0}
    assert server.stages[0] == "join"
    assert server.stages[-1] == "over"
    assert made.site.view.over
    assert made.site.view.place == Place(0, ROUNDS)
    assert server.turns > ROUNDS


def test_comings_and_goings_and_refusals_are_told(watched: tuple[Watched, Notes, Notes]) -> None:
    made, server, _ = watched
    assert ("south", False, "silent") in server.peers
    assert server.peers[-1][:2] == ("south", True) or ("south", True, "") in server.peers
    assert made.server.view.peers["south"].losses >= 1
    assert made.server.view.refusals["truncated"] == 1
    assert ("truncated", 1, {"party": "server"}) in server.refusals


def test_the_transcript_is_told_as_it_grows(watched: tuple[Watched, Notes, Notes]) -> None:
    made, server, site = watched
    for notes in (server, site):
        assert sum(isinstance(entry, RoundEntry) for entry in notes.entries) == ROUNDS
        assert sum(isinstance(entry, SumEntry) for entry in notes.entries) == ROUNDS
    assert made.site.view.plan is not None
    assert made.site.view.pools == {0: 3.0, 1: 1.0}


def test_who_begins_later_knows_what_was_and_tells_nobody(
    watched: tuple[Watched, Notes, Notes],
) -> None:
    made, _, _ = watched
    notes = Notes()
    watch = watch_of(made.made.folder / "server", notes)
    watch.turned()
    assert len(watch.view.rounds) == ROUNDS
    assert watch.view.pools == made.server.view.pools
    assert watch.view.end == "done"
    assert notes.entries == []


def test_following_another_federation_forgets_the_one_before(
    watched: tuple[Watched, Notes, Notes], tmp_path: Path
) -> None:
    made, _, _ = watched
    watch = watch_of(made.made.folder / "server")
    watch.back("north")
    watch.turned()
    watch.follow(tmp_path)
    watch.turned()
    assert (watch.view.rounds, watch.view.pools, watch.view.place) == ({}, {}, None)
    assert watch.view.there == ["north"]


class Breaks(Observer):
    """Fails whatever it is told."""

    def __getattribute__(self, name: str) -> Any:
        if name in vars(Observer):
            raise RuntimeError(name)
        return super().__getattribute__(name)


def test_nothing_that_an_observer_does_reaches_the_driver(tmp_path: Path) -> None:
    made = Watched(tmp_path, [Breaks()])
    made.run()
    assert made.server.view.over
    assert len(made.server.view.courses) == ROUNDS


def test_a_damaged_transcript_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "transcript.jsonl").write_text("no line of a transcript\n")
    watch = watch_of(tmp_path)
    watch.turned()
    watch.stepped(make().server)
    assert watch.view.stage == "join"


def test_a_place_that_stays_is_another_attempt(tmp_path: Path) -> None:
    made, ended = make(), list[Course]()

    class Ends(Observer):
        def ended(self, view: View, course: Course) -> None:
            ended.append(course)

    from secure_fl.crypto.envelope import Phase

    watch = Watching(None, [Ends()])
    watch.stepped(made.server)
    wire = made.server._wire
    facts = {"place": [0, 0], "attempt": 1, "left_out": [], "state": "", "head": ""}
    for number in (0, 0, 1):  # said twice, it is one
        data = wire.sign(Phase.BEGIN, facts, number=number)
        watch.sent("server", Message("client-0000", data))
    assert [(one.number, one.outcome) for one in ended] == [(0, "again")]
    # who is not the server may claim to call as much as it likes
    watch.received("server", wire.sign(Phase.BEGIN, facts, number=9), 0.0)
    assert watch.view.courses[-1].number == 1


def test_reasons_are_ours_or_other() -> None:
    assert known_reason("stale") == "stale"
    assert known_reason("too-few") == "too-few"
    assert known_reason("patient 17 has died") == "other"
