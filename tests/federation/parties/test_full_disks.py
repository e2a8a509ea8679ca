"""A disk that refuses once, for want of space or of permission, at one call after the other.

| who | what comes of it |
|---|---|
| a client | it answers once it can write, or is left out until it is heard again |
| the authority | the same question is answered once it can write; nobody is left out |
| the server | `FileError`: its process ends and sends nothing; or it goes on as before |
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from federation.parties.faulty import FullDisk, Wrapped
from federation.parties.kills import Federation, Kind
from federation.parties.toy_federation import Toy, identities
from federation.parties.trials import KINDS, trial

from secure_fl.engines.queue import Here, Queue
from secure_fl.errors import FileError
from secure_fl.federation.parties.participant import PATIENCE
from secure_fl.federation.parties.party import Message, Party

CALLS = ["open", "write", "fsync", "ftruncate", "replace", "unlink", "link", "mkdir", "fchmod"]
STEP = {"client-0002": 29, "authority": 17, "server": 16}
"""Every so many calls one refuses; a step of 1 takes minutes and finds the same."""


@dataclass
class Refusing:
    """A system that refuses one of a party's calls.

    Attributes:
        at: which call, from 1.
        code: what it says.
        heard: how many there were.
        on: whether the party is at work.
    """

    at: int
    code: int
    heard: int = 0
    on: bool = False

    def check(self) -> None:
        self.heard += self.on
        if self.on and self.heard == self.at:
            raise OSError(self.code, os.strerror(self.code))

    @contextmanager
    def over_files(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name in CALLS:
                real = getattr(os, name) if name != "fsync" else lambda handle: None  # no power cut
                stack.enter_context(patch.object(os, name, self._under(real)))
            yield

    def _under(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            self.check()
            return real(*args, **more)

        return call


class Watched(Wrapped):
    """A party on that system; it is dead once its error came out, which must be a typed one."""

    def __init__(self, party: Party, system: Refusing) -> None:
        super().__init__(party)
        self._system = system
        self.failed: FileError | None = None

    @property
    def over(self) -> bool:
        return self.failed is not None or self.party.over

    @property
    def due(self) -> float | None:
        return None if self.failed else self.party.due

    def tick(self, now: float) -> list[Message]:
        return self._at_work(lambda: self.party.tick(now))

    def receive(self, data: bytes | memoryview) -> list[Message]:
        return self._at_work(lambda: self.party.receive(data))

    def _at_work(self, work: Callable[[], list[Message]]) -> list[Message]:
        self._system.on = self.failed is None
        try:
            return work() if self.failed is None else []
        except FileError as error:
            self.failed = error
            return []
        finally:
            self._system.on = False


@dataclass
class Outcome:
    """Of one run: its server's last word, survivors by client, and the victim's error."""

    ended: str
    survivors: list[list[int]]
    error: FileError | None
    heard: int


def run(folder: Path, kind: tuple[str, str], victim: str, system: Refusing, people: Any) -> Outcome:
    made = Federation(folder, Kind(*kind, Toy(4, 2)), people=people)
    parties: list[Any] = [made.server(), *map(made.client, made.names)]
    parties += [made.keeper()] if made.authority else []
    watched = next(Watched(one, system) for one in parties if one.name == victim)
    hosts = [watched if one.name == victim else one for one in parties]
    queue = Queue([Here(hosts[:1]), others := Here(hosts[1:])], "server")
    with system.over_files():
        queue.run(most=60)
        others.tick(queue.now + PATIENCE)  # who could not write says that it is there
        queue.run(most=60)
    failed = parties[0].failed
    ended = "" if failed is None else str(getattr(failed, "reason", failed.code))
    clients = [one for one in parties if one.name in made.names and one.state is not None]
    states = {one.state.digest: one.state.facts["survivors"] for one in clients}
    for one in parties:
        one.folder.close()
    return Outcome(ended, list(states.values()), watched.failed, system.heard)


@pytest.mark.parametrize(
    ("kind", "victim"), [(KINDS[1], "client-0002"), (KINDS[3], "authority"), (KINDS[1], "server")]
)
def test_a_call_that_fails_once(kind: tuple[str, str], victim: str, tmp_path: Path) -> None:
    people, at, outcomes = identities(4), 1, list[Outcome]()
    while not outcomes or at <= outcomes[-1].heard + STEP[victim]:
        code = (errno.ENOSPC, errno.EACCES)[len(outcomes) % 2]
        outcome = run(tmp_path / f"{at}", kind, victim, Refusing(at, code), people)
        outcomes.append(outcome)
        at += STEP[victim]
    assert len(outcomes) > 12
    assert {one.ended for one in outcomes} == {""}
    wholes = [one for one in outcomes if one.error is None]
    assert all(len(one.survivors) == 1 for one in wholes), "two states of one place"
    found = {tuple(one.survivors[0]) for one in wholes}
    left_out = {(3, 4), (4, 3), (3, 3)} if victim == "client-0002" else set()
    assert {(4, 4)} <= found <= {(4, 4)} | left_out
    if victim == "server":
        errors = [one.error for one in outcomes if one.error is not None]
        assert errors
        assert all("Remedy: check the path" in str(error) for error in errors)
    else:
        assert len(wholes) == len(outcomes)


@pytest.mark.parametrize("left", [0, 2, 5])
@pytest.mark.parametrize(("protection", "key_holder"), KINDS)
def test_a_store_whose_errors_are_the_systems(protection: str, key_holder: str, left: int) -> None:
    """A client says `no-answer`, as for a typed error, and the others go on."""
    one = trial(protection, key_holder)
    one.made.clients[3]._store = store = FullDisk(left, OSError)
    one.run()
    one.check()
    assert one.ended == ""
    assert store.failed
    assert {said["reason"] for said in one.made.server.said} == {"no-answer"}
    assert one.made.clients[3].refusals.counts["no-answer"] > 0
