"""What a server heard and wrote before it was killed counts when it is made again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federation.parties.kills import Federation, KilledError, Kind
from federation.parties.test_kills import check_record
from federation.parties.toy_federation import Toy, ToyAnswers

from secure_fl.crypto.envelope import Phase
from secure_fl.engines.queue import Here, Queue, Tap
from secure_fl.errors import TrainingError
from secure_fl.federation.parties.attempt import Deadlines
from secure_fl.federation.parties.client_store import KeptClient
from secure_fl.federation.parties.server_record import Stage
from secure_fl.federation.parties.server_store import KeptServer
from secure_fl.federation.state import State
from secure_fl.federation.transcript.chain import Transcript
from secure_fl.federation.transcript.entries import RoundEntry, SumEntry
from secure_fl.federation.verify.rounds import Rounds
from secure_fl.federation.wire import route
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.steps import Step

LAST = "client-0003"


class Fails(ToyAnswers):
    """A client that cannot answer, as its training fails."""

    def answer(self, state: State, position: int) -> Blocks:
        raise TrainingError("no loss", field="loss", value="nan", remedy="none")


def clients_of(made: Federation, *, failing: bool = False) -> list[KeptClient]:
    clients = [made.client(name) for name in made.names]
    if failing:
        site = clients[-1]._site
        clients[-1]._site = replace(site, prepare=lambda _: (made.program, Fails(3)))
    return clients


def run(server: KeptServer, clients: list[KeptClient], tap: Tap | None = None) -> float:
    """To the end; the time then."""
    queue = Queue([Here([server]), Here(clients)], "server", tap=tap)
    queue.run()
    return queue.now


def killed_at(
    kind: str, made: Federation, clients: list[KeptClient], monkeypatch: pytest.MonkeyPatch
) -> KeptServer:
    """The server's next life; killed when the line is in the transcript, before it says it."""
    honest = Transcript.append

    def append(self: Transcript, word: str, facts: Any, evidence: Any = ()) -> bytes:
        head = honest(self, word, facts, evidence)
        if word == kind:
            raise KilledError
        return head

    with monkeypatch.context() as patched:
        patched.setattr(Transcript, "append", append)
        server = made.server()
        with pytest.raises(KilledError):
            run(server, clients)
    server.folder.close()
    return made.server()


def entries(made: Federation, kind: type) -> list[Any]:
    return [line.entry for line in made.lines() if isinstance(line.entry, kind)]


def test_who_refused_is_not_waited_for(tmp_path: Path) -> None:
    made = Federation(tmp_path, Kind("masked", program=Toy(4, 1)))
    server, clients = made.server(), clients_of(made, failing=True)
    heard = lambda: server._attempt is not None and bool(server._attempt.gone)  # noqa: E731
    Queue([Here([server]), Here(clients)], "server").run(until=heard)
    server.folder.close()
    again = made.server()
    assert again._attempt is not None
    assert again._attempt.gone == {LAST: "no-answer"}
    assert run(again, clients) < Deadlines().answer
    assert again.failed is None
    [found] = entries(made, SumEntry)
    assert found.missed == {LAST: "upload"}
    assert Rounds().read(made.lines()).findings == []


def test_whom_members_blamed_is_left_out_of_the_next_attempt(tmp_path: Path) -> None:
    made = Federation(tmp_path, Kind("masked", program=Toy(4, 1)))
    server, clients = made.server(), clients_of(made)
    started = lambda: server.stage == Stage.SUM  # noqa: E731
    Queue([Here([server]), Here(clients)], "server").run(until=started)
    assert server._attempt is not None
    for name in made.names[:2]:
        server._attempt.leave(name, "not-proved", [LAST, LAST, "a stranger"])
    server._attempt.leave(made.names[2], "no-answer", [])
    server._safe([])
    server.folder.close()
    again = made.server()
    assert again._attempt is not None
    assert again._attempt.blamed() == {LAST}
    again._attempt.leave(made.names[2], "no-answer", [made.names[0]])
    again._attempt.leave(made.names[2], "no-answer", [made.names[0]])  # once, however often
    assert again._attempt.blamed() == {LAST}


def test_who_was_silent_is_not_called_to_the_next_round(tmp_path: Path) -> None:
    """Its verified transcript says in which phase it was missed, from before the kill."""
    made = Federation(tmp_path, Kind("masked", program=Toy(4, 2)))
    server, clients = made.server(), clients_of(made)

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        joins = route(data).phase in (Phase.HELLO, Phase.PLAN, Phase.JOIN)
        return data if joins or LAST not in (sender, to) else None

    def agreeing() -> bool:
        attempt = server._attempt
        return attempt is not None and attempt.sums[0].step == Step.AGREE

    Queue([Here([server]), Here(clients)], "server", tap=tap).run(until=agreeing)
    server.folder.close()
    again = made.server()
    assert again._attempt is not None
    assert again._attempt.silent == {LAST}
    run(again, clients[:3])
    assert again.failed is None
    assert [entry.missed for entry in entries(made, SumEntry)] == [{LAST: "advertise"}, {}]
    assert [entry.left_out for entry in entries(made, RoundEntry)] == [(), (LAST,)]
    assert Rounds().read(made.lines()).findings == []


@pytest.mark.parametrize("kind", ["joined", "keys", "round", "sum", "state", "end"])
def test_what_was_written_down_is_not_written_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Federation(tmp_path, Kind("bfv+masked", program=Toy(4, 1), publish=True))
    clients = clients_of(made)
    again = killed_at(kind, made, clients, monkeypatch)
    run(again, clients)
    assert again.failed is None
    kinds = [line.entry.kind for line in made.lines() if line.entry.kind != "refused"]
    assert kinds == ["plan", *["joined"] * 4, "keys", "round", "sum", "state", "end"]
    assert check_record(made) == [((0, 0), made.names)]
    assert again.models is not None
    assert again.models.digest == again.state


def test_a_call_that_nobody_heard_counts_where_another_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written down without the last client, who comes before it is made again."""
    made = Federation(tmp_path, Kind("masked", program=Toy(4, 1)))
    clients = clients_of(made)
    again = killed_at("round", made, clients[:3], monkeypatch)
    there = lambda: LAST in again._members  # noqa: E731
    Queue([Here([again]), Here(clients[3:])], "server").run(until=there)
    run(again, clients)
    assert again.failed is None
    calls = [(one.round, one.attempt, one.left_out) for one in entries(made, RoundEntry)]
    assert calls == [(0, 1, (LAST,)), (1, 2, ())]
    assert check_record(made) == [((0, 0), made.names)]
