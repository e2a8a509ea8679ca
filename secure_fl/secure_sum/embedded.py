"""`SecureSum`: protect at clients, add at the server, open at the key holder. And all parties of a
round in one process.

`EmbeddedFederation` makes identities, roster and keys; `begin` runs ADVERTISE and SHARE; then
`protect` and `add` for each client as its vector comes; `open` runs everything after the uploads.
Clients that send nothing until then have dropped out.

Guarantee: the parties exchange the bytes that they would send over a network, and nothing else;
results equal those of a deployment.
Assumes: no party leaves its state machine; a tap stands in for one that does.
Not covered: one process holds everybody's keys, so against whoever reads its memory nothing is
hidden. It is a simulation, and says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from secure_fl.crypto.envelope import NO_KEY, Phase, read_header
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import Reason
from secure_fl.crypto.roster import Roster
from secure_fl.errors import SecureSumError
from secure_fl.he.bfv import check_noise_budget
from secure_fl.he.ceremony import (
    Epoch,
    GrantExpected,
    accept_grant,
    granted_fingerprint,
    make_grant,
    new_key,
)
from secure_fl.he.keys import HolderKey, SecretKey
from secure_fl.he.parameters import ParameterSet
from secure_fl.secure_sum.authority import Authority
from secure_fl.secure_sum.block_codec import (
    ClientCipher,
    HolderCipher,
    ServerCipher,
    client_cipher,
    holder_cipher,
    server_cipher,
)
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.key_directory import Verified
from secure_fl.secure_sum.masks import UsedSeeds
from secure_fl.secure_sum.messages import RoundReason
from secure_fl.secure_sum.opener import Opened
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.protections import layout_of, parameters_of
from secure_fl.secure_sum.server import RoundServer
from secure_fl.secure_sum.steps import PHASES, Message, Refusal, Step, claimed
from secure_fl.secure_sum.store import MemoryStore

Tap = Callable[[str, str, bytes], bytes]


class SecureSum(Protocol):
    """One round's sum, whatever protects it."""

    def protect(self, client: str, vector: BlockVector) -> memoryview:
        """What a client sends: every block, protected."""

    def add(self, upload: bytes | memoryview) -> str | None:
        """Add it to the sum and drop it; why it was refused, if it was."""

    def open(self) -> Outcome:
        """The sums over all that were added: counts, then the blocks that may be opened."""


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


@dataclass
class _Keys:
    """One epoch's key and what every party makes of it."""

    epoch: Epoch
    fingerprint: bytes = NO_KEY
    grant_bytes: int = 0
    client: ClientCipher | None = field(default=None, repr=False)
    server: ServerCipher | None = field(default=None, repr=False)
    holder: HolderCipher | None = field(default=None, repr=False)


class EmbeddedFederation:
    """All parties in one process: identities, roster, keys and what clients remember
    between rounds.

    Args:
        clients: their names, or how many.
        protection: `plain`, `masked` or `bfv+masked`.
        key_holder: `clients` or `authority`.
        name: the federation's.
        rotation_rounds: R, rounds that one encryption key serves.
        parameters: of the encryption; None for the default of protection and key holder.
        randomness: uniform secret bytes for seeds and shares.
        tap: sees every message, as (sender, recipient, bytes); what it returns is delivered. For
            transcripts and tests.
        clock: what `Outcome.seconds` are read from; a measurement on a shared machine
            takes `time.process_time`.

    Raises:
        SecureSumError: a protection or key holder that does not exist.
        DependencyError: an encrypted protection without tenseal.
    """

    def __init__(
        self,
        clients: int | Sequence[str],
        *,
        protection: str = "bfv+masked",
        key_holder: str = "clients",
        name: str = "embedded",
        rotation_rounds: int = 10,
        parameters: ParameterSet | None = None,
        randomness: Callable[[int], bytes] = os.urandom,
        tap: Tap | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.tap, self._clock = tap, clock
        self.layout = layout_of(protection)
        self.protection, self.key_holder, self._randomness = protection, key_holder, randomness
        default = parameters_of(protection, key_holder)
        self.parameters = default and (parameters or default)
        names = (
            [f"client-{number:04d}" for number in range(clients)]
            if isinstance(clients, int)
            else list(clients)
        )
        self.clients = {client: Identity.generate(client) for client in names}
        self._coordinator, self._server = (
            Identity.generate("coordinator", "coordinator"),
            Identity.generate("server", "server"),
        )
        self._authority = Identity.generate("authority", "authority")
        everyone = (self._coordinator, self._server, self._authority, *self.clients.values())
        unsigned = Roster(name, tuple(identity.member for identity in everyone), rotation_rounds)
        signed = unsigned.sign(self._coordinator)
        self.credentials = (self._coordinator.card(), signed)
        """The coordinator's identity card, and the roster that it signed."""
        self.roster = Roster.open(signed, self._coordinator.member)
        self._used = {client: UsedSeeds() for client in names}
        self._stores = {client: MemoryStore() for client in names}
        self._keys: _Keys | None = None
        self._fingerprints: frozenset[bytes] = frozenset()

    def begin(
        self,
        round_number: int,
        shape: BlockShape,
        *,
        cohort: Sequence[str] = (),
        kills: Mapping[str, Phase] | None = None,
        **rules: Any,
    ) -> EmbeddedRound:
        """ADVERTISE and SHARE of a round; vectors may come then.

        Args:
            round_number: counted up, over all phases of a run; a client takes part in each
                number once.
            shape: blocks of an upload.
            cohort: clients asked; empty for all.
            kills: name → phase from which on the client is silent; for tests and simulations.
            rules: `fewest`, `minimum`, `count_unit`, `threshold`, `degree`, `colluders`, `bound`,
                `head_bound`, `margin`, `appliers`, `question` of `RoundPlan`.

        Raises:
            SecureSumError: rules that contradict each other, or too few clients.
        """
        rules.setdefault("appliers", 1)
        asked, holds = tuple(cohort), (self.key_holder, "authority")
        plan = RoundPlan(
            self.protection,
            self.roster,
            round_number,
            shape,
            "server",
            asked,
            *holds,
            NO_KEY,
            self.parameters,
            **rules,
        )
        if plan.encrypted and (self._keys is None or round_number not in self._keys.epoch):
            self._keys = self._ceremony(plan)
        keys = self._keys or _Keys(Epoch.of(round_number, self.roster))
        plan = replace(plan, key_fingerprint=keys.fingerprint)
        holder = keys.holder if plan.opener == "clients" else None
        verified = Verified()
        members = {
            name: RoundClient(
                plan,
                self.clients[name],
                cipher=keys.client,
                holder=holder,
                used=self._used[name],
                store=self._stores[name],
                randomness=self._randomness,
                verified=verified,
            )
            for name in plan.cohort
        }
        server = RoundServer(plan, self._server, cipher=keys.server)
        authority = (
            Authority(plan, self._authority, keys.holder)
            if plan.opener == "authority" and keys.holder is not None
            else None
        )
        stores = {name: self._stores[name] for name in plan.cohort}
        return EmbeddedRound(
            plan, server, members, authority, stores, kills or {}, self.tap, self._clock
        )

    def round(
        self,
        round_number: int,
        vectors: Mapping[str, BlockVector],
        shape: BlockShape,
        **settings: Any,
    ) -> Outcome:
        """A whole round over vectors that are there already, by client; clients of the cohort
        without one have dropped out.
        """
        running = self.begin(round_number, shape, **settings)
        for name, vector in vectors.items():
            if name in running.plan.cohort and not running.silent(name, Phase.UPLOAD):
                running.add(running.protect(name, vector))
        return running.open()

    def _ceremony(self, plan: RoundPlan) -> _Keys:
        """A fresh key, granted by its holder, taken by every client; the server takes
        its fingerprint.

        Raises:
            RefusedError: `noise-budget`: so many clients would leave less than two bits.
        """
        assert self.parameters is not None
        epoch, by_clients = Epoch.of(plan.round, self.roster), plan.opener == "clients"
        check_noise_budget(
            self.parameters, "clients" if by_clients else "authority", len(self.clients)
        )
        maker = self.clients[plan.cohort[0]] if by_clients else self._authority
        key = new_key(self.parameters, "clients" if by_clients else "authority")
        grant = make_grant(maker, self.roster, key, epoch, self.protection)
        expected = GrantExpected(
            maker.name, key.key_holder, self.parameters, self.protection, epoch, self._fingerprints
        )
        fingerprint = granted_fingerprint(grant, self.roster, expected)
        granted = [
            accept_grant(grant, self.roster, client, expected).for_round(plan.round)
            for client in self.clients.values()
        ]
        self._fingerprints |= {fingerprint}
        holder = HolderKey(granted[0]) if isinstance(granted[0], SecretKey) else key
        # all clients hold the same key here, so one encryptor serves them
        server = server_cipher(replace(plan, key_fingerprint=fingerprint))
        return _Keys(
            epoch,
            fingerprint,
            len(grant),
            client_cipher(plan, granted[0]),
            server,
            holder_cipher(plan, holder),
        )


class EmbeddedRound(SecureSum):
    """One round of an `EmbeddedFederation`; a `SecureSum`. Made by `begin`."""

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
            found = next(
                (client.opened for client in self.clients.values() if client.opened is not None),
                None,
            )
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
            cause = (blaming or refused or [error])[
                0
            ]  # too few are left because of what a client refused
            raise cause from (None if cause is error else error)

    def _deliver(self, messages: list[Message]) -> None:
        answers = PHASES[self.server.step]
        for message in messages:
            data = (
                self._tap("server", message.recipient, message.data) if self._tap else message.data
            )
            self._count(self.down, read_header(message.data).phase, data)
            if message.recipient in self.clients:
                self._answer(
                    message.recipient,
                    answers,
                    partial(self.clients[message.recipient].receive, data),
                )
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
