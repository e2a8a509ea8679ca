"""One round of the secure sum whose parties are all in one process: for tests and measurements.

Guarantee: the parties exchange the bytes that they would send over a network, and nothing else;
results equal those of a deployment.
Assumes: no party leaves its state machine; a tap stands in for one that does.
Not covered: one process holds everybody's keys, so against whoever reads its memory nothing is
hidden. It is a simulation, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from secure_fl.crypto.envelope import Phase, read_header
from secure_fl.crypto.refusals import Reason
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.authority import Authority
from secure_fl.secure_sum.blocks import BlockVector
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.messages import RoundReason
from secure_fl.secure_sum.opener import Opened
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.server import RoundServer
from secure_fl.secure_sum.steps import PHASES, Message, Refusal, Step, claimed
from secure_fl.secure_sum.store import MemoryStore

Tap = Callable[[str, str, bytes], bytes]
"""Sees every message, as (sender, recipient, bytes); what it returns is delivered."""


@dataclass(frozen=True)
class Outcome:
    """What a round gave, and its record.

    Args:
        opened: the sums; what the key holder has, not the server (under `plain` and `masked` the
            server as well).
        survivors: names in the sums, U.
        missed: name → first phase it was silent in, was left out of or left by itself; a survivor
            here was silent after its upload.
        refusals: messages that the server turned away, and those of the server's that clients did.
        view: 32 bytes that bind plan, keys and U.
        uploads: name → SHA-256 over its upload's headers, which hold their bodies' hashes.
        digest: 32 bytes over `opened`.
        up: phase → bytes from clients and key holder to the server.
        down: phase → bytes from the server.
        seconds: phase → party (`clients`, all of them; `server`; `holder`) → seconds of the
            federation's clock.
    """

    opened: Opened
    survivors: tuple[str, ...]
    missed: Mapping[str, str]
    refusals: tuple[Refusal, ...]
    view: bytes
    uploads: Mapping[str, bytes]
    digest: bytes
    up: Mapping[str, int]
    down: Mapping[str, int]
    seconds: Mapping[str, Mapping[str, float]]


class EmbeddedRound:
    """One round of an `EmbeddedFederation`, made by its `begin`: `protect` at clients, `add` at the
    server, `open` at the key holder.
    """

    def __init__(
        self,
        plan: RoundPlan,
        server: RoundServer,
        clients: dict[str, RoundClient],
        authority: Authority | None,
        stores: dict[str, MemoryStore],
        kills: Mapping[str, Phase],
        tap: Tap | None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._tap, self._clock = tap, clock
        self.plan, self.server, self.clients = plan, server, clients
        self._authority, self._stores, self._kills = authority, stores, kills
        self._missed: dict[str, str] = {}
        self._refused: dict[str, tuple[Refusal, SecureSumError]] = {}
        self.up: dict[str, int] = {}
        self.down: dict[str, int] = {}
        self.seconds: dict[str, dict[str, float]] = {}
        if plan.masked:
            for name, client in clients.items():
                self._answer(name, Phase.ADVERTISE, partial(_begun, client))
            while server.step < Step.UPLOAD:
                self._deliver(self._advance())
            self._missed |= dict.fromkeys(server.left_out, Phase.SHARE.name.lower())

    def silent(self, name: str, phase: Phase) -> bool:
        """Whether a client is killed by then, has dropped out, was left out, or left because it was
        told what it must refuse.
        """
        early = self._missed.get(name, "") in ("advertise", "share")
        return phase >= self._kills.get(name, Phase.APPLY + 1) or early or name in self._refused

    @property
    def closed(self) -> bool:
        """Whether no client has sent what opens a pool, or counts that noise hides: then nothing
        but exact counts can be known of the uploads.
        """
        opening = {Phase.OPEN_POOLS.name.lower()} | (
            {Phase.OPEN_COUNTS.name.lower()} if self.plan.noised_head else set()
        )
        return not opening & self.up.keys()

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Messages turned away so far: by the server, the first of them; by clients, the one that
        each left for.
        """
        return (*self.server.refusals, *(refusal for refusal, _ in self._refused.values()))

    def protect(self, client: str, vector: BlockVector) -> memoryview:
        """The client's upload.

        Raises:
            SecureSumError: a vector that does not fit, or a client that cannot upload in this
                round (again).
        """
        with self._timed(Phase.UPLOAD, "clients"):
            return self.clients[client].upload(vector)

    def add(self, upload: bytes | memoryview) -> str | None:
        """Give an upload to the server. Its bytes are forgotten here; a client over a network keeps
        them until the round ends.
        """
        reason = self._to_server(Phase.UPLOAD, upload, claimed(upload)[0])
        for store in self._stores.values():
            store.release()
        return reason

    def open(self) -> Outcome:
        """End the uploads, and run the round to its end.

        Raises:
            SecureSumError: too few clients are left; nothing was opened then that was not already.
        """
        while self.server.step != Step.DONE:
            self._deliver(self._advance())
        opened = self._opened()
        return Outcome(
            opened,
            self.server.survivors,
            dict(self._missed),
            self.refusals,
            self.server.view,
            dict(self.server.uploads),
            opened.digest,
            dict(self.up),
            dict(self.down),
            {phase: dict(parties) for phase, parties in self.seconds.items()},
        )

    def _opened(self) -> Opened:
        if self._authority is not None:
            found = self._authority.opened
        else:
            sums = (client.opened for client in self.clients.values())
            found = next((opened for opened in sums if opened is not None), None)
        if found is None:
            raise SecureSumError(
                "nobody opened the sums",
                field="round",
                value=self.plan.round,
                remedy="discard the round, begin the next",
            )
        return found

    def _advance(self) -> list[Message]:
        ended = PHASES[self.server.step]
        for name in sorted(self.server.waiting):
            self._missed.setdefault(name, ended.name.lower())
        try:
            with self._timed(ended, "server"):
                return self.server.advance()
        except SecureSumError as error:
            refused = [cause for _, cause in self._refused.values()]
            blaming = [cause for cause in (error, *refused) if getattr(cause, "blamed", ())]
            # too few are left because of what a client refused
            cause = (blaming or refused or [error])[0]
            raise cause from (None if cause is error else error)

    def _deliver(self, messages: list[Message]) -> None:
        answers = PHASES[self.server.step]
        for message in messages:
            name, data = message.recipient, message.data
            data = self._tap("server", name, data) if self._tap else data
            self._count(self.down, read_header(message.data).phase, data)
            if name in self.clients:
                self._answer(name, answers, partial(self.clients[name].receive, data))
            else:
                assert self._authority is not None
                with self._timed(answers, "holder"):
                    replies = self._authority.receive(data)
                for reply in replies:
                    self._to_server(answers, reply, "authority")

    def _answer(self, name: str, phase: Phase, call: Callable[[], list[bytes]]) -> None:
        if self.silent(name, phase):
            return
        with self._timed(phase, "clients"):
            try:
                replies = call()
            except SecureSumError as error:
                # a client that refuses is silent from then on, and the round goes on without it; a
                # fork concerns everybody
                reason = getattr(error, "reason", Reason.MALFORMED)
                if reason == RoundReason.FORKED:
                    raise
                self._refused[name] = (
                    Refusal(self.plan.server, phase.name.lower(), str(reason), 0, by=name),
                    error,
                )
                self._missed.setdefault(name, phase.name.lower())
                return
        for reply in replies:
            self._to_server(phase, reply, name)

    def _to_server(self, phase: Phase, data: bytes | memoryview, sender: str) -> str | None:
        data = self._tap(sender, "server", bytes(data)) if self._tap else data
        self._count(self.up, phase, data)
        with self._timed(phase, "server"):
            return self.server.receive(data)

    def _count(self, table: dict[str, int], phase: Phase, data: bytes | memoryview) -> None:
        name = phase.name.lower()
        table[name] = table.get(name, 0) + len(data)

    @contextmanager
    def _timed(self, phase: Phase, party: str) -> Iterator[None]:
        begin = self._clock()
        try:
            yield
        finally:
            row = self.seconds.setdefault(phase.name.lower(), {})
            row[party] = row.get(party, 0.0) + self._clock() - begin


def _begun(client: RoundClient) -> list[bytes]:
    return [client.advertise()]
