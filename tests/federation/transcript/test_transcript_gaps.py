"""A client that could not write the transcript's lines is behind, and accuses nobody of a fork."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from federation.parties.faulty import no_space
from federation.parties.trials import Trial, chunk_of, trial

from secure_fl.crypto.envelope import Phase
from secure_fl.federation.parties.client_round import forked
from secure_fl.federation.parties.server_record import Journal

VICTIM, NUMBER = "client-0003", 3


@dataclass
class Lines:
    """A transcript of numbers; a head is how many there are."""

    count: int = 0
    refuses: set[int] = field(default_factory=set)
    heard: int = 0

    def write(self, kind: str, facts: Mapping[str, Any], _: Sequence[bytes]) -> None:
        self.count += 1

    def head(self) -> bytes:
        return self.count.to_bytes(32, "big")

    def after(self, head: bytes) -> list[bytes]:
        return [b"%d" % number for number in range(int.from_bytes(head, "big"), self.count)]

    def follow(self, lines: Sequence[bytes]) -> bytes:
        for line in lines:
            number = int(bytes(line))
            if number > self.count:
                raise forked("no such line", number)
            if self.heard in self.refuses:
                self.heard += 1
                raise no_space()
            self.heard += 1
            self.count = max(self.count, number + 1)
        return self.head()


def followed(one: Trial, refuses: set[int]) -> Lines:
    """Everybody follows what the server writes; the victim's disk refuses some of the lines."""
    told, kept = Lines(), Lines(refuses=refuses)
    entries = one.entries

    def write(kind: str, facts: Mapping[str, Any], more: Sequence[bytes]) -> None:
        entries.append((kind, dict(facts)))
        told.write(kind, facts, more)

    one.made.server._journal = Journal(write, told.after, told.head)
    for number, client in enumerate(one.made.clients):
        lines = kept if number == NUMBER else Lines()
        client._site = replace(client._site, follow=lines.follow)
        client._progress.head = lines.head()
    return kept


@pytest.mark.parametrize("line", [0, 3, 8])
def test_a_gap_is_no_fork(line: int) -> None:
    """It is told what it missed once it says where it is; here while another is waited for."""
    one = trial("masked", clients=8, rounds=6)
    kept = followed(one, {line})

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        phase, _, number = chunk_of(data)
        late = who == "client-0002" and phase == Phase.ADVERTISE and number == 3
        return None if late else data

    one.run(tap)
    one.check()
    assert one.ended == ""
    words = {said["reason"] for said in one.made.server.said if said["sender"] == VICTIM}
    assert words == {"no-answer"}
    assert one.survivors[-1].count(NUMBER) == 1
    assert kept.count == len(one.entries)
