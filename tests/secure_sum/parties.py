"""The parties of one round, with folders of their own, and what carries their messages."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secure_sum.round_helpers import make_federation

from bench.secure_sum.embedded import EmbeddedFederation
from secure_fl.secure_sum.authority import Authority
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.opener import Opened
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.server import RoundServer
from secure_fl.secure_sum.steps import Message, Step
from secure_fl.secure_sum.store import FolderStore


@dataclass
class Parties:
    """A round that a test carries: `exchange` brings what the server says, and what is answered."""

    federation: EmbeddedFederation
    plan: RoundPlan
    folder: Path
    keys: dict[str, bytes]
    clients: dict[str, RoundClient] = field(default_factory=dict)
    vectors: Mapping[str, BlockVector] = field(default_factory=dict)
    authority: Authority | None = None
    answered: list[tuple[str, bytes]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        folder: Path,
        vectors: Callable[[list[str]], Mapping[str, BlockVector]],
        shape: BlockShape,
        protection: str = "masked",
        key_holder: str = "clients",
        *,
        clients: int = 3,
        round_number: int = 0,
        **rules: Any,
    ) -> Parties:
        federation = make_federation(protection, key_holder, clients)
        running = federation.begin(round_number, shape, appliers=None, **rules)
        names = list(federation.clients)
        made = cls(federation, running.plan, folder, {name: os.urandom(32) for name in names})
        made.vectors = vectors(names)
        made.keys["authority"] = os.urandom(32)
        if running._authority is not None:
            made.authority_again()
        for name in running.plan.cohort:
            made.again(name)
        return made

    def store(self, name: str) -> FolderStore:
        return FolderStore(self.folder / name, self.keys[name])

    def again(self, name: str, plan: RoundPlan | None = None) -> RoundClient:
        """The client, from nothing but its identity, the plan and its folder."""
        keys = self.federation._keys
        assert keys is not None or not self.plan.encrypted
        holder = keys.holder if keys is not None and self.plan.opener == "clients" else None
        self.clients[name] = RoundClient(
            plan or self.plan,
            self.federation.clients[name],
            cipher=None if keys is None else keys.client,
            holder=holder,
            store=self.store(name),
            applied=lambda opened: (opened.digest[::-1], (1, self.plan.round)),
        )
        return self.clients[name]

    def authority_again(self) -> Authority:
        """The authority, from its folder."""
        keys = self.federation._keys
        assert keys is not None
        assert keys.holder is not None
        who, store = self.federation._authority, self.store("authority")
        self.authority = Authority(self.plan, who, keys.holder, store=store)
        return self.authority

    def server(self) -> RoundServer:
        keys = self.federation._keys
        cipher = None if keys is None else keys.server
        return RoundServer(self.plan, self.federation._server, cipher=cipher)

    def answers(self, message: Message) -> list[bytes]:
        """What a party answers, and its vector once it is ready for it."""
        if message.recipient not in self.clients:
            assert self.authority is not None
            return self.authority.receive(message.data)
        client = self.clients[message.recipient]
        answers = client.receive(message.data)
        if client.ready and message.recipient in self.vectors:
            answers.append(bytes(client.upload(self.vectors[message.recipient])))
        return answers

    def run(
        self,
        server: RoundServer | None = None,
        answer: Callable[[Message], list[bytes]] | None = None,
        advance: Callable[[RoundServer], tuple[RoundServer, list[Message]]] | None = None,
    ) -> RoundServer:
        """A whole round."""
        server, answer = server or self.server(), answer or self.answers
        for name, client in self.clients.items():
            self.give(server, name, client.advertise())
        while server.step != Step.DONE:
            server, messages = advance(server) if advance else (server, server.advance())
            for message in messages:
                for data in answer(message):
                    self.give(server, message.recipient, data)
        return server

    def give(self, server: RoundServer, name: str, data: bytes) -> None:
        self.answered.append((name, bytes(data)))
        assert server.receive(data) is None

    def opened(self) -> Opened:
        parties = [*self.clients.values(), *([self.authority] if self.authority else [])]
        return next(party.opened for party in parties if party.opened is not None)
