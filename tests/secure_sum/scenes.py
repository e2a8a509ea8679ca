"""A round that is stopped at its uploads, and uploads for it that were changed on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from secure_sum.round_helpers import SHAPE, make_vectors, read_end, shared_federation

from bench.secure_sum.embedded import EmbeddedFederation
from bench.secure_sum.embedded_round import EmbeddedRound
from secure_fl.crypto.envelope import Phase, sign_envelope
from secure_fl.crypto.identities import Identity
from secure_fl.secure_sum.blocks import BlockVector
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.plan import RoundPlan


@dataclass
class Scene:
    """A round at its uploads: the first client's is ready, the others' are in."""

    federation: EmbeddedFederation
    running: EmbeddedRound
    vectors: dict[str, BlockVector]
    upload: bytes
    earlier: bytes

    @property
    def plan(self) -> RoundPlan:
        return self.running.plan

    @property
    def me(self) -> Identity:
        return self.federation.clients[next(iter(self.vectors))]

    def changed(self, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
        return frames(change(unframe(self.upload)))

    def forged(
        self,
        *,
        identity: Identity | None = None,
        body: Callable[[bytes], bytes] = bytes,
        block: int = 2,
        **header: object,
    ) -> bytes:
        """One block's envelope made anew."""
        envelopes, who = unframe(self.upload), identity or self.me
        inner = envelopes[block][read_end(envelopes[block]) :]
        plan_header = replace(
            self.plan.header(Phase.UPLOAD, who.name, chunk=block, chunks=len(envelopes)), **header
        )  # type: ignore[arg-type]
        envelopes[block] = sign_envelope(who, plan_header, body(inner))
        return frames(envelopes)


def make_scene(protection: str, key_holder: str) -> Scene:
    rounds = shared_federation(protection, key_holder)
    federation, names = rounds.federation, list(rounds.federation.clients)
    vectors = make_vectors(SHAPE, dict(zip(names, [0, 0, 1, 1, 1], strict=True)))
    first = federation.begin(rounds.next(), SHAPE)
    earlier = first.protect(names[0], vectors[names[0]])
    running = federation.begin(rounds.next(), SHAPE)
    for name in names[1:]:
        assert running.add(running.protect(name, vectors[name])) is None
    return Scene(
        federation,
        running,
        vectors,
        bytes(running.protect(names[0], vectors[names[0]])),
        bytes(earlier),
    )
