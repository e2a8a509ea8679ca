"""All parties of a secure sum in one process, for tests and measurements.

`EmbeddedFederation` makes identities, roster and keys; `begin` runs ADVERTISE and SHARE; then
`protect` and `add` for each client as its vector comes; `open` runs everything after the uploads.
Clients that send nothing until then have dropped out. What that guarantees stands in
`embedded_round`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.secure_sum.embedded_round import EmbeddedRound, Outcome, Tap
from secure_fl.crypto.envelope import NO_KEY, Phase
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster
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
from secure_fl.he.parameters import KeyHolder, ParameterSet
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
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.protections import layout_of, parameters_of
from secure_fl.secure_sum.server import RoundServer
from secure_fl.secure_sum.store import MemoryStore


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
        if isinstance(clients, int):
            names = [f"client-{number:04d}" for number in range(clients)]
        else:
            names = list(clients)
        self.clients = {client: Identity.generate(client) for client in names}
        self._coordinator = Identity.generate("coordinator", "coordinator")
        self._server = Identity.generate("server", "server")
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
        plan = self._planned(round_number, shape, tuple(cohort), rules)
        keys = self._keys_for(plan)
        plan = replace(plan, key_fingerprint=keys.fingerprint)
        server = RoundServer(plan, self._server, cipher=keys.server)
        authority = None
        if plan.opener == "authority" and keys.holder is not None:
            authority = Authority(plan, self._authority, keys.holder)
        members = self._members(plan, keys)
        stores = {name: self._stores[name] for name in plan.cohort}
        return EmbeddedRound(
            plan, server, members, authority, stores, kills or {}, self.tap, self._clock
        )

    def _planned(
        self, round_number: int, shape: BlockShape, cohort: tuple[str, ...], rules: dict[str, Any]
    ) -> RoundPlan:
        """The round's plan, its key still open."""
        return RoundPlan(
            self.protection,
            self.roster,
            round_number,
            shape,
            "server",
            cohort,
            self.key_holder,
            "authority",
            parameters=self.parameters,
            **{"appliers": 1, **rules},
        )

    def _keys_for(self, plan: RoundPlan) -> _Keys:
        """The keys that serve this round, made by a ceremony where the last ones do not."""
        if plan.encrypted and (self._keys is None or plan.round not in self._keys.epoch):
            self._keys = self._ceremony(plan)
        return self._keys or _Keys(Epoch.of(plan.round, self.roster))

    def _members(self, plan: RoundPlan, keys: _Keys) -> dict[str, RoundClient]:
        """The cohort's clients, each with what it remembers between rounds."""
        holder, verified = keys.holder if plan.opener == "clients" else None, Verified()
        return {
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
        epoch = Epoch.of(plan.round, self.roster)
        kind: KeyHolder = "clients" if plan.opener == "clients" else "authority"
        check_noise_budget(self.parameters, kind, len(self.clients))
        maker = self.clients[plan.cohort[0]] if kind == "clients" else self._authority
        key = new_key(self.parameters, kind)
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
        ciphers = (client_cipher(plan, granted[0]), server, holder_cipher(plan, holder))
        return _Keys(epoch, fingerprint, len(grant), *ciphers)
