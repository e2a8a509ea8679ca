"""Digests of what clients opened: a server that sends them different sums is proved to, and a client that lies about them ends nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from secure_sum.round_helpers import SHAPE, check_exact, make_federation, make_vectors
from secure_sum.test_one_client import Meddling

from secure_fl.secure_sum.envelope import Phase, head_bytes, read_header, sign_envelope
from secure_fl.secure_sum.round_client import RoundClient
from secure_fl.secure_sum.round_digests import Applied
from secure_fl.secure_sum.round_messages import RoundReason, RoundRefusedError, frames
from secure_fl.secure_sum.secure_sum import EmbeddedFederation, EmbeddedRound

LIAR = "client-0001"


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"digest": bytes(32)}, "forked"), ({"sums": b"another head"}, "malformed"), ({"digest": b"short"}, "truncated")],
)
def test_a_client_that_lies_about_what_it_opened_ends_nothing(change: dict[str, bytes], reason: str) -> None:
    def lie(body: bytes) -> bytes:
        return b"short" if reason == "truncated" else replace(Applied.decode(body), **change).encode()

    tape = Meddling(Phase.APPLY, lie, sender=LIAR)
    tape.federation = federation = make_federation("bfv+masked", "clients", tape=tape)
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 0))
    outcome = federation.round(0, vectors, SHAPE, appliers=None)
    check_exact(outcome, SHAPE, vectors, list(federation.clients), 2)
    assert [(refusal.sender, refusal.phase, refusal.reason) for refusal in outcome.refusals] == [(LIAR, "apply", reason)]


def opened() -> tuple[EmbeddedFederation, EmbeddedRound, RoundClient]:
    federation = make_federation("bfv+masked", "clients")
    running = federation.begin(0, SHAPE, appliers=None)
    for name, vector in make_vectors(SHAPE, dict.fromkeys(federation.clients, 0)).items():
        running.add(running.protect(name, vector))
    running.open()
    client = running.clients["client-0000"]
    client._seen.digests.clear()
    return federation, running, client


def shown(federation: EmbeddedFederation, running: EmbeddedRound, digests: list[Applied]) -> bytes:
    """What the server passes on; the n-th digest is signed by the n-th client."""
    signed = [
        sign_envelope(identity, running.plan.header(Phase.APPLY, name), applied.encode())
        for (name, identity), applied in zip(federation.clients.items(), digests, strict=False)
    ]
    return sign_envelope(federation._server, running.plan.header(Phase.APPLY, "server", chunk=1, chunks=2), frames(signed))


def test_a_server_that_sent_another_client_other_sums_is_proved_to() -> None:
    federation, running, client = opened()
    assert client.opened is not None
    mine = Applied(client.opened.digest, client._sums)
    others = sign_envelope(federation._server, running.plan.header(Phase.APPLY, "server", chunks=2), b"other sums")
    proof = replace(mine, sums=others[: head_bytes(read_header(others))])
    for digests in ([mine, mine, mine, proof], [mine, mine, mine, replace(proof, digest=bytes(32))]):
        client._seen.digests.clear()
        client._step = client._step.APPLIED
        with pytest.raises(RoundRefusedError, match="another client was sent other sums") as caught:
            client.confirm(shown(federation, running, digests))
        assert caught.value.reason == RoundReason.FORKED


def test_what_proves_nothing_is_not_counted() -> None:
    """Heads that the server did not sign, or that are the same; beyond half, a client goes by what the others say of its own."""
    federation, running, client = opened()
    assert client.opened is not None
    mine, show = Applied(client.opened.digest, client._sums), partial(shown, federation, running)
    unsigned = replace(mine, digest=bytes(32), sums=client._sums[:-1] + bytes([client._sums[-1] ^ 1]))
    other = replace(mine, digest=bytes(32))
    assert client.confirm(show([mine, other, unsigned, mine, mine])) == 3
    client._seen.digests.clear()
    with pytest.raises(RoundRefusedError, match="other clients opened other sums"):
        client.confirm(show([mine, other, other, mine]))
