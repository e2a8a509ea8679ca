"""A toy federation whose parties are killed at moments that a seed draws, and made again."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from federation.parties.toy_federation import Toy, ToyAnswers, identities, plan_of, roster_of

from secure_fl.crypto.identities import Identity
from secure_fl.engines.queue import Queue
from secure_fl.federation.parties.authority_store import KeptAuthority
from secure_fl.federation.parties.client import Site
from secure_fl.federation.parties.client_store import KeptClient
from secure_fl.federation.parties.party import Message, Party
from secure_fl.federation.parties.party_folder import PartyFolder
from secure_fl.federation.parties.server_record import Journal
from secure_fl.federation.parties.server_store import KeptServer
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.budget import BudgetGate
from secure_fl.federation.releases.run_state import RunState
from secure_fl.federation.state import State
from secure_fl.federation.transcript.chain import Line, Transcript
from secure_fl.federation.transcript.entries import plan_facts
from secure_fl.federation.transcript.following import KeptFollower
from secure_fl.privacy.adjacency import PrivacyUnit
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.ledger import PrivacyLedger, Release
from secure_fl.secure_sum.grid import Blocks


class KilledError(BaseException):
    """The process is gone: no handler of the package sees it."""


@dataclass
class Knife:
    """Counts writes and messages down, and kills where a count ends."""

    writes: int | None = None
    killed: int = 0

    @contextmanager
    def over_files(self) -> Iterator[None]:
        """While every write passes under it: of the one that kills half is written, of those that
        the dead still try nothing.
        """
        write, cut = os.write, os.ftruncate

        def half(handle: int, data: bytes | memoryview) -> int:
            if self.writes is not None:
                self.writes -= 1
                if self.writes == -1:
                    write(handle, memoryview(data)[: len(data) // 2])
                if self.writes < 0:
                    raise KilledError
            return write(handle, data)

        def whole(handle: int, end: int) -> None:
            if self.writes is None or self.writes >= 0:
                cut(handle, end)

        with (
            patch("os.write", half),
            patch("os.ftruncate", whole),
            patch("os.fsync"),  # a process that is killed loses nothing that it gave to the system
        ):
            yield


@dataclass
class Mortal:
    """A host of one party, which is killed now and then and made again from its folder."""

    make: Callable[[], Any]
    knife: Knife
    coins: random.Random
    kills: int
    party: Any = None
    pause: int = 0
    busy: bool = False
    _sent: list[tuple[str, Message]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.party = self.make()
        self.names: Sequence[str] = (self.party.name,)
        self._draw()

    @property
    def due(self) -> float | None:
        return self.party.due  # type: ignore[no-any-return]

    @property
    def over(self) -> bool:
        return bool(self.party.over)

    def give(self, to: str, data: bytes | memoryview) -> None:
        self._live(lambda party: party.receive(data))

    def tick(self, now: float) -> None:
        if self.party.due is not None and self.party.due <= now:
            self._live(lambda party: party.tick(now))

    def collect(self) -> list[tuple[str, Message]]:
        sent, self._sent = self._sent, []
        return sent

    def _live(self, work: Callable[[Party], list[Message]]) -> None:
        """Do it, or be killed: before, after, or in a write."""
        self.pause -= 1
        how = self.coins.choice(["before", "after", "in a write"]) if self.pause == 0 else "not"
        if how == "before":
            return self._die()
        self.knife.writes = self.coins.randrange(6) if how == "in a write" else None
        sent: list[Message] = []
        with suppress(KilledError):
            sent = work(self.party)
        self.knife.writes = None
        if how != "not":
            return self._die()  # what it said is lost
        self._sent += [(self.party.name, message) for message in sent]
        return None

    def _die(self) -> None:
        self.knife.killed += 1
        self.party.folder.close()
        self.party = None
        self._draw()
        self.party = self.make()

    def _draw(self) -> None:
        """When it is killed next."""
        self.pause = self.coins.randint(1, 12) if self.kills > 0 else 0
        self.kills -= 1


def lived(
    makes: Mapping[str, Callable[[], Any]], seed: int, kills: Mapping[str, int]
) -> tuple[list[Mortal], int]:
    """Parties, by name, that went to the end with so many kills of each; how many there were."""
    knife, coins = Knife(), random.Random(seed)
    with knife.over_files():
        hosts = [
            Mortal(make, knife, random.Random(coins.random()), kills.get(name, 0))
            for name, make in makes.items()
        ]
        queue = Queue(hosts, "server")
        for _ in range(9):  # the last words may have been lost with their reader
            queue.run(most=300)
            if all(host.over for host in hosts):
                break
            for host in hosts:
                host.tick(queue.now)
    return hosts, knife.killed


@dataclass(frozen=True)
class Noisy(ToyAnswers):
    """Adds noise to every answer; `given` has the different ones of each question, of all lives."""

    box: ReleaseBox
    given: dict[str, set[bytes]]
    noise: bool

    def releases(self, state: State, position: int) -> Sequence[Release]:
        return (toy_release(self._key(state), state.place.round, self.client),)

    def answer(self, state: State, position: int) -> Blocks:
        blocks, key = super().answer(state, position), self._key(state)

        def make() -> dict[str, torch.Tensor]:
            size = 5 if self.noise else 1
            drawn = torch.randint(0, size, blocks.pools.shape)
            return {"noise": drawn * (blocks.head[:, None] > 0)}

        noise = self.box.once(key, make)["noise"]
        self.given.setdefault(key, set()).add(noise.numpy().tobytes())
        return Blocks(blocks.head, blocks.shared, blocks.pools + noise)

    def _key(self, state: State) -> str:
        return f"toy/{state.place.round}/client-{self.client}/{state.digest.hex()}"


def toy_release(key: str, number: int, client: int) -> Release:
    event = GaussianEvent(1.0, 1.0, 1)
    return Release(key, "toy", number, "step", PrivacyUnit.EXAMPLE, (client,), event, "declared")


@dataclass(frozen=True)
class Kind:
    """Of a federation."""

    protection: str
    key_holder: str = "clients"
    program: Toy = field(default_factory=lambda: Toy(4, 3))
    publish: bool = False


class Federation:
    """All parties in folders of their own, in this process, sharing nothing."""

    def __init__(
        self,
        folder: Path,
        kind: Kind,
        *,
        people: dict[str, Identity] | None = None,
        noise: bool = False,
    ) -> None:
        self.folder, self.noise = folder, noise
        self.program = kind.program
        self.people = people or identities(self.program.clients)
        self.roster = roster_of(self.people)
        plan = plan_of(self.roster, self.program, kind.protection, kind.key_holder, kind.publish)
        self.plan, self.signed = plan, plan.sign(self.people["coordinator"], self.roster)
        self.names = plan.clients
        self.authority = kind.key_holder == "authority"
        self.given: dict[str, set[bytes]] = {}
        self.hosts: list[Mortal] = []

    def party_folder(self, name: str) -> PartyFolder:
        key = self.folder / "keys" / name
        whose = self.people[name]
        return PartyFolder(self.folder / name, whose, self.roster.federation, key=key)

    def server(self) -> KeptServer:
        folder, coordinator = self.party_folder("server"), self.people["coordinator"]
        path = folder.path / "transcript.jsonl"
        told = Transcript.open(path) if path.is_file() else Transcript.new(path)
        if not len(told):
            evidence = [coordinator.card(), self.roster.sign(coordinator), self.signed]
            told.append("plan", plan_facts(self.plan, self.roster), evidence)
        journal = Journal(told.append, told.after, lambda: told.head)
        who = self.people["server"], self.roster, self.signed, self.program
        return KeptServer(*who, folder, journal=journal)

    def keeper(self) -> KeptAuthority:
        folder = self.party_folder("authority")
        make = lambda _: self.program  # noqa: E731
        return KeptAuthority(self.people["authority"], self.roster, make, folder)

    def client(self, name: str) -> KeptClient:
        folder, number = self.party_folder(name), self.names.index(name)
        state = RunState(f"toy-{self.folder.name}-{name}")
        path = folder.path / "ledger.json"
        config = self.config()
        gate = BudgetGate(config, path, state, resumed=path.is_file())
        box = ReleaseBox(folder.path / "box" / "results", state, gate.charged)
        answers = Noisy(number, box, self.given, self.noise)
        admit = lambda releases: gate.admit(releases, box.answers)  # noqa: E731
        follow = KeptFollower(folder.path / "transcript.jsonl")
        site = Site(lambda _: (self.program, answers), admit=admit, follow=follow)
        return KeptClient(self.people[name], self.roster, site, folder)

    @staticmethod
    def config() -> Any:
        from secure_fl.config import PrivacyConfig

        return PrivacyConfig(unit="example", epsilon=50.0, delta=1e-5)

    def run(self, seed: int = 0, kills: dict[str, int] | None = None) -> int:
        """To the end, with so many kills of each; how many there were."""
        makes: dict[str, Callable[[], Any]] = {"server": self.server}
        makes |= {name: lambda name=name: self.client(name) for name in self.names}
        makes |= {"authority": self.keeper} if self.authority else {}
        self.hosts, killed = lived(makes, seed, kills or {})
        return killed

    def close(self) -> None:
        for host in self.hosts:
            host.party.folder.close()

    def pools(self) -> list[torch.Tensor]:
        clients = [host.party for host in self.hosts if host.names[0] in self.names]
        return [client.state.tensors["pools"] for client in clients]

    def ledgers(self) -> dict[str, list[str]]:
        """Keys of what each client's own ledger holds."""
        return {
            name: [
                release.key
                for release in PrivacyLedger.load(self.folder / name / "ledger.json").releases
            ]
            for name in self.names
        }

    def lines(self) -> list[Line]:
        """Of the server's transcript."""
        return list(Transcript.open(self.folder / "server" / "transcript.jsonl").lines())


def seeds(few: int = 3) -> range:
    """Of kills: a few in the suite, as many as `SECURE_FL_KILL_SEEDS` says elsewhere, from
    `SECURE_FL_KILL_FIRST` on.
    """
    first = int(os.environ.get("SECURE_FL_KILL_FIRST", "0"))
    return range(first, first + int(os.environ.get("SECURE_FL_KILL_SEEDS", str(few))))
