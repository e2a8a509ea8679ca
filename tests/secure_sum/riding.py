"""Several rounds of a federation whose set-up rides; each party has a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from secure_sum.round_helpers import make_federation

from bench.secure_sum.embedded import EmbeddedFederation
from secure_fl.secure_sum.ahead import ClientRounds, ServerRounds
from secure_fl.secure_sum.authority import Authority
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.journal import RoundJournal
from secure_fl.secure_sum.masks import UsedSeeds
from secure_fl.secure_sum.opener import Opened
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.server import RoundServer
from secure_fl.secure_sum.steps import Message, Step
from secure_fl.secure_sum.store import FolderStore

Sent = tuple[str, str, bytes]


class KilledError(BaseException):
    """The process is gone."""


def upload(vector: BlockVector, client: ClientRounds) -> list[bytes]:
    """The vector's upload; what was stored where there is one, since it may not have arrived."""
    if client.current.ready:
        return [bytes(client.current.upload(vector))]
    stored = client.current.resend()
    return [] if stored is None else [bytes(stored)]


@dataclass
class Riding:
    """Carries messages, and counts how often the server waits for answers of clients."""

    federation: EmbeddedFederation
    base: RoundPlan
    folder: Path
    keys: dict[str, bytes]
    clients: dict[str, ClientRounds] = field(default_factory=dict)
    used: dict[str, UsedSeeds] = field(default_factory=dict)
    server: ServerRounds = field(init=False)
    authority: Authority | None = None
    sent: list[Sent] = field(default_factory=list)
    opened: list[Opened] = field(default_factory=list)
    waits: int = 0
    plans: tuple[RoundPlan, ...] = ()
    tap: Callable[[str, str, bytes], bytes | None] = lambda sender, recipient, data: data

    @classmethod
    def of(
        cls,
        folder: Path,
        shape: BlockShape,
        protection: str = "masked",
        key_holder: str = "clients",
        *,
        clients: int = 4,
        **rules: Any,
    ) -> Riding:
        federation = make_federation(protection, key_holder, clients)
        base = federation.begin(0, shape, appliers=None, **rules).plan
        names = list(federation.clients)
        made = cls(federation, base, folder, {name: os.urandom(32) for name in names})
        made.used = {name: UsedSeeds() for name in names}
        for name in names:
            made.again(name)
        made.server = ServerRounds(made.make_server)
        return made

    def plan(self, number: int, **change: Any) -> RoundPlan:
        return replace(self.base, round=number, **change)

    def make_client(self, name: str) -> Callable[[RoundPlan], RoundClient]:
        keys = self.federation._keys
        holds = keys is not None and self.base.opener == "clients"
        return lambda plan: RoundClient(
            plan,
            self.federation.clients[name],
            cipher=None if keys is None else keys.client,
            holder=keys.holder if keys is not None and holds else None,
            used=self.used[name],
            store=FolderStore(self.folder / name, self.keys[name]),
        )

    def make_server(self, plan: RoundPlan) -> tuple[RoundServer, list[Message]]:
        keys = self.federation._keys
        server = RoundServer(
            plan, self.federation._server, cipher=None if keys is None else keys.server
        )
        return server, server.resume(RoundJournal(self.folder / "server", plan))

    def again(self, name: str, *plans: RoundPlan) -> None:
        """A client from nothing but its folder: in these rounds, the second one prepared."""
        self.clients[name], self.used[name] = ClientRounds(self.make_client(name)), UsedSeeds()
        works = (self.clients[name].begin, self.clients[name].prepare)
        for plan, work in zip(plans, works, strict=False):
            work(plan)

    def attempt(self, name: str, work: Callable[[ClientRounds], list[bytes]]) -> list[bytes]:
        """What a client does; where it is killed at that, its next life does it."""
        killed = False
        while True:
            try:
                if killed:
                    self.again(name, *self.plans)
                return work(self.clients[name])
            except KilledError:
                killed = True

    def start(
        self, plan: RoundPlan, ahead: RoundPlan | None = None, silent: Sequence[str] = ()
    ) -> None:
        """Begin a round, and prepare one."""
        self.waits, self.plans = 0, (plan,) if ahead is None else (plan, ahead)
        if plan.opener == "authority":
            keys = self.federation._keys
            assert keys is not None
            assert keys.holder is not None
            self.authority = Authority(plan, self.federation._authority, keys.holder)
        self.server.begin(plan)
        if ahead is not None:
            self.server.prepare(ahead)
        for name in self.clients:
            if name in plan.cohort and name not in silent:
                self.give(name, self.attempt(name, lambda client: client.begin(plan)))
            if ahead is not None and name in ahead.cohort and name not in silent:
                self.give(name, self.attempt(name, lambda client: client.prepare(ahead)))

    def uploads(self, vectors: Mapping[str, BlockVector], silent: Sequence[str] = ()) -> None:
        plan = self.server.current.plan
        for name, vector in vectors.items():
            if name in plan.cohort and name not in silent:
                self.give(name, self.attempt(name, partial(upload, vector)))

    def run(
        self,
        vectors: Mapping[str, BlockVector],
        silent: Sequence[str] = (),
        before: Callable[[str], None] = lambda name: None,
    ) -> Opened:
        """To the end of the round that was begun."""
        self.uploads(vectors, silent)
        while self.server.current.step != Step.DONE:
            self.waits += self.server.current.step not in (Step.COUNTS, Step.POOLS)
            for message in self.server.advance():
                if message.recipient in silent:
                    continue
                before(message.recipient)
                data = self.carried("server", message.recipient, message.data)
                if data is None:
                    continue
                running: Authority | RoundClient | None = self.authority
                if message.recipient in self.clients:
                    take = partial(ClientRounds.receive, data=data)
                    self.give(message.recipient, self.attempt(message.recipient, take))
                    running = self.clients[message.recipient]._current
                elif self.authority is not None:
                    self.give(message.recipient, self.authority.receive(data))
                if running is not None and running.opened is not None:
                    self.opened.append(running.opened)
            if self.server.current.step == Step.UPLOAD:
                self.uploads(vectors, silent)
        return self.opened[-1]

    def give(self, name: str, answers: Sequence[bytes]) -> None:
        for answer in answers:
            data = self.carried(name, "server", answer)
            if data is not None:
                self.server.receive(data)

    def carried(self, sender: str, recipient: str, data: bytes) -> bytes | None:
        changed = self.tap(sender, recipient, data)
        if changed is not None:
            self.sent.append((sender, recipient, changed))
        return changed
