"""Digests of what clients opened: a server that sends them different sums is proved to, and a
client that lies about them ends nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from secure_sum.round_helpers import SHAPE, check_exact, make_federation, make_vectors
from secure_sum.test_one_client import Meddling

from bench.secure_sum.embedded import EmbeddedFederation
from bench.secure_sum.embedded_round import EmbeddedRound
from secure_fl.crypto.envelope import Phase, head_bytes, read_header, sign_envelope
from secure_fl.crypto.refusals import RefusedError
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.digests import Applied
from secure_fl.secure_sum.framing import frames
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError

LIAR = "client-0001"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"digest": bytes(32)}, "forked"),
        ({"state": bytes([1] * 32)}, "forked"),
        ({"place": (0, 1)}, "forked"),
        ({"sums": b"another head"}, "malformed"),
        ({"digest": b"short"}, "truncated"),
    ],
)
def test_a_client_that_lies_about_what_it_opened_ends_nothing(
    change: dict[str, bytes], reason: str
) -> None:
    def lie(body: bytes) -> bytes:
        return (
            b"short" if reason == "truncated" else replace(Applied.decode(body), **change).encode()
        )

    tape = Meddling(Phase.APPLY, lie, sender=LIAR)
    tape.federation = federation = make_federation("bfv+masked", "clients", tape=tape)
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 0))
    outcome = federation.round(0, vectors, SHAPE, appliers=None)
    check_exact(outcome, SHAPE, vectors, list(federation.clients), 2)
    assert [(refusal.sender, refusal.phase, refusal.reason) for refusal in outcome.refusals] == [
        (LIAR, "apply", reason)
    ]


def opened() -> tuple[EmbeddedFederation, EmbeddedRound, RoundClient]:
    federation = make_federation("bfv+masked", "clients")
    running = federation.begin(0, SHAPE, appliers=None)
    for name, vector in make_vectors(SHAPE, dict.fromkeys(federation.clients, 0)).items():
        running.add(running.protect(name, vector))
    running.open()
    client = running.clients["client-0000"]
    client._state.seen.digests.clear()
    return federation, running, client


def shown(federation: EmbeddedFederation, running: EmbeddedRound, digests: list[Applied]) -> bytes:
    """What the server passes on; the n-th digest is signed by the n-th client."""
    signed = [
        sign_envelope(identity, running.plan.header(Phase.APPLY, name), applied.encode())
        for (name, identity), applied in zip(federation.clients.items(), digests, strict=False)
    ]
    return sign_envelope(
        federation._server,
        running.plan.header(Phase.APPLY, "server", chunk=1, chunks=2),
        frames(signed),
    )


def test_a_server_that_sent_another_client_other_sums_is_proved_to() -> None:
    federation, running, client = opened()
    assert client._state.mine is not None
    mine = client._state.mine
    others = sign_envelope(
        federation._server, running.plan.header(Phase.APPLY, "server", chunks=2), b"other sums"
    )
    proof = replace(mine, sums=others[: head_bytes(read_header(others))])
    for digests in (
        [mine, mine, mine, proof],
        [mine, mine, mine, replace(proof, digest=bytes(32))],
    ):
        client._state.seen.digests.clear()
        client._state.step = client._state.step.APPLIED
        with pytest.raises(RoundRefusedError, match="another client was sent other sums") as caught:
            client.receive(shown(federation, running, digests))
        assert caught.value.reason == RoundReason.FORKED


def test_what_proves_nothing_is_not_counted() -> None:
    """Heads that the server did not sign, or that are the same; beyond half, a client goes by what
    the others say of its own.
    """
    federation, running, client = opened()
    assert client._state.mine is not None
    mine, show = client._state.mine, partial(shown, federation, running)
    unsigned = replace(mine, digest=bytes(32), sums=mine.sums[:-1] + bytes([mine.sums[-1] ^ 1]))
    other = replace(mine, digest=bytes(32))
    assert client.receive(show([mine, other, unsigned, mine, mine])) == []
    assert len(client.confirmed) == 3
    client._state.seen.digests.clear()
    with pytest.raises(RoundRefusedError, match="other clients opened other sums"):
        client.receive(show([mine, other, other, mine]))


def test_what_follows_from_the_sums_is_signed_with_them_and_kept_once_it_is_compared() -> None:
    federation = make_federation("masked", clients=3)
    running = federation.begin(0, SHAPE, appliers=None)
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 0))
    for client in running.clients.values():
        client._apply_sums = lambda opened: (opened.digest[::-1], (2, 7))
    for name, vector in vectors.items():
        running.add(running.protect(name, vector))
    digest = running.open().opened.digest
    claims = {applied.claim for applied in running.server.applied.values()}
    assert claims == {(digest, digest[::-1], (2, 7))}
    for client in running.clients.values():
        assert client.confirmed == tuple(running.server.signed.values())


def test_appliers_of_one_sum_who_make_different_states_of_it_end_the_round() -> None:
    federation = make_federation("masked", clients=4)
    running = federation.begin(0, SHAPE, appliers=None)
    for number, client in enumerate(running.clients.values()):
        client._apply_sums = lambda opened, half=number // 2: (bytes([half] * 32), (0, 1))
    for name, vector in make_vectors(SHAPE, dict.fromkeys(federation.clients, 0)).items():
        running.add(running.protect(name, vector))
    with pytest.raises(RoundRefusedError, match="forked"):
        running.open()


@pytest.mark.parametrize("phase", [Phase.UPLOAD, Phase.SUM, Phase.KEYS])
def test_what_no_server_sends_is_refused_by_its_header(phase: Phase) -> None:
    federation = make_federation("bfv+masked", "authority", clients=3)
    running = federation.begin(0, SHAPE)
    message = sign_envelope(federation._server, running.plan.header(phase, "server"), b"body")
    assert running._authority is not None
    for party in (running.clients["client-0000"], running._authority):
        with pytest.raises(RefusedError, match="wrong-phase"):
            party.receive(message)
