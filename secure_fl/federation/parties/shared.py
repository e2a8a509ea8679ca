"""What parties of one process may share.

A simulation's memory and time should not grow with the number of its clients. Everything is found
by the digest of the very bytes that each party received, so a party that is shown something else
does its own work. A party on a machine of its own has one of these to itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from blake3 import blake3

from secure_fl.crypto.strict_json import canonical
from secure_fl.federation.parties.calling import Call
from secure_fl.federation.plan import Plan
from secure_fl.federation.state import State
from secure_fl.federation.transcript.following import Checked
from secure_fl.he.keys import HolderKey, PublicKey, SecretKey
from secure_fl.secure_sum.block_codec import (
    ClientCipher,
    HolderCipher,
    client_cipher,
    holder_cipher,
)
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.verified import Verified

_ROUNDS = 2
"""Rounds that are under way: one that runs, one that is prepared."""


@dataclass
class Shared:
    """Checks, ciphers and states, each made once."""

    followed: Checked = field(default_factory=Checked, repr=False)
    _verified: dict[int, Verified] = field(default_factory=dict, repr=False)
    _plan: dict[bytes, Plan] = field(default_factory=dict, repr=False)
    _plans: dict[bytes, tuple[RoundPlan, ...]] = field(default_factory=dict, repr=False)
    _ciphers: dict[bytes, ClientCipher | None] = field(default_factory=dict, repr=False)
    _holders: dict[bytes, HolderCipher | None] = field(default_factory=dict, repr=False)
    _states: WeakValueDictionary[bytes, State] = field(
        default_factory=WeakValueDictionary, repr=False
    )

    def plan(self, data: bytes, make: Callable[[], Plan]) -> Plan:
        """The plan of these signed bytes."""
        name = blake3(data).digest()
        if name not in self._plan:
            self._plan = {name: make()}
        return self._plan[name]

    def plans(
        self, plan: Plan, call: Call, make: Callable[[], tuple[RoundPlan, ...]]
    ) -> tuple[RoundPlan, ...]:
        """The plans of a call's sums."""
        name = plan.digest + canonical(call.document())
        if name not in self._plans:
            self._plans = dict([*self._plans.items()][1 - _ROUNDS :]) | {name: make()}
        return self._plans[name]

    def verified(self, number: int) -> Verified:
        """Checks of one round; those of rounds long before are forgotten."""
        if number not in self._verified:
            known = dict([*self._verified.items()][1 - _ROUNDS :])
            self._verified = known | {number: Verified()}
        return self._verified[number]

    def cipher(self, plan: RoundPlan, key: SecretKey | PublicKey | None) -> ClientCipher | None:
        """What clients encrypt with."""
        if plan.key_fingerprint not in self._ciphers:
            self._ciphers = {plan.key_fingerprint: client_cipher(plan, key)}
        return self._ciphers[plan.key_fingerprint]

    def holder(self, plan: RoundPlan, key: HolderKey | None) -> HolderCipher | None:
        """What key holders decrypt with."""
        if plan.key_fingerprint not in self._holders:
            self._holders = {plan.key_fingerprint: holder_cipher(plan, key)}
        return self._holders[plan.key_fingerprint]

    def known(self, digest: bytes) -> State | None:
        """The state of that digest, where anybody holds it."""
        return self._states.get(digest)

    def state(self, name: bytes, make: Callable[[], State]) -> State:
        """The state of that name, as long as anybody holds it; made where nobody does."""
        found = self._states.get(name)
        if found is None:
            found = make()
            found = self._states.setdefault(found.digest, found)
            self._states[name] = found
        return found
