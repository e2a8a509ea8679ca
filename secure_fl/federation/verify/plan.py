"""Who a transcript's parties are: coordinator, roster, signed plan, and who joined under it.

Guarantee: where nothing is found, the coordinator on the roster signed roster and plan, the entry
says what they say, and whoever joined signed that for this very plan.
Assumes: the coordinator's identity is the right one: its fingerprint is among the facts to be
compared with what is known from elsewhere.
Not covered: what sites thought of the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.identities import Member
from secure_fl.crypto.roster import Roster
from secure_fl.errors import SecureSumError
from secure_fl.federation.plan import Plan
from secure_fl.federation.transcript.entries import JoinedEntry, PlanEntry, facts_of, plan_facts
from secure_fl.federation.wire import Post, open_post

_SIGNED = ("digest", "federation", "protection", "key_holder", "clients", "fewest", "colluders")
Problems = Iterator[tuple[str, str]]
"""Field and problem of each thing that does not fit."""


@dataclass(frozen=True)
class Agreed:
    """What was signed.

    Attributes:
        coordinator: who signed.
    """

    entry: PlanEntry
    coordinator: Member
    roster: Roster
    plan: Plan

    @classmethod
    def of(cls, entry: PlanEntry, evidence: Sequence[bytes]) -> Agreed:
        """Raises: ValueError, SecureSumError: the evidence is not what an entry of it needs."""
        card, named, signed = evidence
        coordinator = Member.from_card(card)
        roster = Roster.open(named, coordinator)
        roster.member(coordinator.name)
        return cls(entry, coordinator, roster, Plan.open(signed, roster))

    def problems(self) -> Problems:
        """What the entry says otherwise."""
        itself = self.roster.member(self.coordinator.name)
        told, said = facts_of(self.entry), plan_facts(self.plan, self.roster)
        for name in (*_SIGNED, "roster", "revision"):
            if told[name] != (tuple(said[name]) if name == "clients" else said[name]):
                yield name, f"not what the signed {'plan' if name in _SIGNED else 'roster'} says"
        if (itself.role, itself.fingerprint) != ("coordinator", self.coordinator.fingerprint):
            yield "evidence", "not the coordinator on the signed roster"

    def joined(self, entry: JoinedEntry, evidence: Sequence[bytes]) -> Problems:
        """What does not fit of somebody who takes part."""
        plan = self.plan
        try:
            (data,) = evidence
            member = self.roster.member(entry.client)
            post = self.post(data, Phase.JOIN, member.role)
        except (ValueError, SecureSumError) as problem:
            yield "evidence", f"no signed acceptance: {said_of(problem)}"
            return
        if entry.client not in (*plan.clients, plan.authority) or post.sender != entry.client:
            yield "client", "not who signed the acceptance, or not of the plan"
        if member.fingerprint != entry.fingerprint:
            yield "fingerprint", "not the one on the roster"

    def post(self, data: bytes, phase: Phase, role: str) -> Post:
        """A signed message around rounds, under this plan. Raises SecureSumError: another phase."""
        digest, most = self.plan.digest.hex(), self.plan.most(phase)
        post = open_post(data, self.roster, digest, most=most, role=role)
        if post.header.phase != phase:
            raise ValueError(phase)
        return post


def said_of(problem: Exception) -> str:
    """One clause."""
    return problem.problem if isinstance(problem, SecureSumError) else "missing"
