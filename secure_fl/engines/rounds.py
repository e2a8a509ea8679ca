"""One round of a phase: clients are asked, their replies added and summed, and asked once more where one of them made the sum fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.federation.budget import BudgetGate, digest_of
from secure_fl.federation.messages import BlockUpdate, Request, TrainEncoder, TrainPool, payload_bytes
from secure_fl.federation.phase import Call, Phase, RoundRecord
from secure_fl.federation.summing import Cost, ProtectedSum, RunningSum, Summing
from secure_fl.secure_sum.round_messages import RoundRefusedError

ATTEMPTS = 3
"""Of one round. Each leaves out more clients, and the numbers that must survive stay those of the round as it was called."""


class Rounds:
    """Runs rounds. Before anybody is asked, what the answers will release is in the ledger.

    **Guarantee.** A round is tried again only where no client has sent what opens a pool of the attempt before, or a count that noise hides, and
    each asked again gives the answer that it gave: nothing is released twice, and no two sums of the same updates are opened, whose difference
    is an update. Clients see to that themselves, by the digest of what they are asked, whatever is said here.
    **Assumes.** Clients answer a request that comes again as they did before: from what is stored, or by the same coins.
    **Not covered.** A round that is run again after a resume, whose sum may have been opened before the process died.
    """

    def __init__(self, engine: EmbeddedEngine, summing: Summing, gate: BudgetGate, heard: Callable[[int, int, int], None]) -> None:
        """`heard` is told after each reply whose it is, how many there are, and how many will be."""
        self._engine, self._summing, self._gate, self._heard = engine, summing, gate, heard

    def run(self, phase: Phase) -> RoundRecord:
        """One round, counted in the phase's state.

        Raises:
            SecureSumError: a sum that failed where nobody can be blamed, or may have been known when it failed; too few clients are left
                without who can be blamed, or a private answer is not stored.
            PrivacyError: the budget would be passed.
        """
        started, tally, without = time.perf_counter(), _Tally(), frozenset[int]()
        for attempt in range(1, ATTEMPTS + 1):
            call = replace(phase.open(), without=without)
            try:
                self._attempt(phase, call, tally)
                break
            except RoundRefusedError as error:
                without |= self._summing.blamed(error)
                if attempt == ATTEMPTS or without == call.without or not self._can_repeat(phase, replace(call, without=without), tally):
                    raise
                tally.again += [f"{name} attempt {attempt}: {error.reason}" for name in error.blamed]
        refused = [*tally.again, *tally.cost.refused]
        metrics: dict[str, Any] = {"refused": refused} if refused else {}
        metrics |= phase.close() | self._gate.spent()
        phase.state.round += 1
        down, up, sum_seconds = tally.down + tally.cost.bytes_down, tally.up + tally.cost.bytes_up, tally.cost.seconds
        seconds = time.perf_counter() - started
        return RoundRecord(phase.name, phase.state.round, len(call.clients), down, up, seconds, metrics, sum_seconds)

    def _attempt(self, phase: Phase, call: Call, tally: _Tally) -> None:
        """Ask, add, and take the sum; what it cost is tallied also where it fails."""
        self._gate.admit(self._engine.releases(call), self._engine.results.answers)
        tally.down += payload_bytes(call.request) * len(call.answering)
        running: RunningSum | None = None
        try:
            for done, (client, reply) in enumerate(self._engine.ask(call), 1):
                if isinstance(reply, BlockUpdate) and reply.blocks is not None:
                    running = running or self._summing.begin(reply.blocks, call.clients, phase.opening, call.without, _question(call.request))
                    running.add(client, reply.blocks)
                    reply = replace(reply, blocks=None)
                else:
                    tally.up += payload_bytes(reply)
                phase.add(client, reply)
                self._heard(client, done, len(call.answering))
            if running is not None:
                phase.take(running.open())
        finally:
            if running is not None:
                tally.cost += running.cost
                tally.closed = isinstance(running, ProtectedSum) and running.closed

    def _can_repeat(self, phase: Phase, call: Call, tally: _Tally) -> bool:
        """Whether nothing can have been opened, enough clients are left, and each has its private answer stored."""
        if not tally.closed or not self._summing.suffices(call.clients, phase.opening, call.without):
            return False
        return all(self._engine.results.find(release.key) is not None for release in self._engine.releases(call))


def _question(request: Request | None) -> bytes:
    """Names a request for an update, whose answer is the same whenever it is asked; sketches and votes bring noise of their own along."""
    return bytes.fromhex(digest_of(request)) if isinstance(request, TrainEncoder | TrainPool) else b""


@dataclass
class _Tally:
    """What a round has cost over its attempts, who made the earlier ones fail, and whether the last one's sum is unknown to everybody."""

    down: int = 0
    up: int = 0
    cost: Cost = field(default_factory=Cost)
    again: list[str] = field(default_factory=list)
    closed: bool = True
