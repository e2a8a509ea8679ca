"""What a round shows beside its sums: nothing that depends on a pool choice; no secret twice; and
the tests find planted faults.

(c) lengths, order and headers of every message are those of every other choice with the same
    opened counts.
(e) a choice in a header, a survivor set switched between openings, a seed reused across rounds:
    each is found.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from secure_sum.round_helpers import (
    COMBINATIONS,
    MASKED,
    Tape,
    check_exact,
    make_federation,
    make_vectors,
)

from bench.secure_sum.embedded import EmbeddedFederation
from secure_fl.crypto.envelope import Header, Phase, read_header, sign_envelope
from secure_fl.crypto.key_streams import Terms
from secure_fl.crypto.shares import Share
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum import client as round_client
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.masks import UsedSeeds
from secure_fl.secure_sum.messages import (
    MASK_KEY,
    Advertise,
    Boxes,
    OpenRequest,
    Revealed,
    RoundRefusedError,
)

SHAPE = BlockShape(pools=3, width=6)
Outside = list[tuple[str, str, int, tuple[Header, ...]]]


def envelopes(data: bytes) -> list[bytes]:
    return [data] if data[:4] == b"SFE1" else unframe(data)


def outside(tape: Tape) -> Outside:
    """What somebody who opens no body sees: who, to whom, how long, and headers (but for hashes of
    bodies and keys of this run).
    """
    seen = []
    for sender, recipient, data in tape.messages:
        headers = tuple(
            replace(
                read_header(part),
                body_hash=bytes(32),
                key_fingerprint=bytes(32),
                roster_digest=bytes(32),
            )
            for part in envelopes(data)
        )
        seen.append((sender, recipient, len(data), headers))
    return seen


def recorded(
    protection: str,
    key_holder: str,
    choices: tuple[int, ...],
    kills: dict[str, Phase] | None = None,
) -> Tape:
    tape = Tape()
    federation = make_federation(protection, key_holder, len(choices), tape)
    vectors = make_vectors(
        SHAPE, dict(zip(federation.clients, choices, strict=True)), seed=hash(choices) % 1000
    )
    federation.round(0, vectors, SHAPE, kills=kills, threshold=3)
    return tape


@pytest.mark.parametrize(("protection", "key_holder"), COMBINATIONS)
def test_the_same_bytes_outside_for_every_choice(protection: str, key_holder: str) -> None:

    views = [
        outside(recorded(protection, key_holder, choices))
        for choices in sorted(set(permutations((0, 0, 1, 2))))[::3]
    ]
    assert len(views) == 4
    assert all(view == views[0] for view in views[1:])


@pytest.mark.parametrize(("protection", "key_holder"), MASKED)
def test_the_same_bytes_outside_with_a_drop_out(protection: str, key_holder: str) -> None:
    kills = {"client-0003": Phase.UPLOAD}
    views = [
        outside(recorded(protection, key_holder, choices, kills))
        for choices in ((0, 0, 1, 2), (0, 1, 0, 2), (1, 0, 0, 0))
    ]
    assert views[0] == views[1] == views[2]


@pytest.mark.parametrize(("protection", "key_holder"), COMBINATIONS)
def test_uploads_have_one_length_whatever_is_in_them(protection: str, key_holder: str) -> None:
    rng = np.random.default_rng(0)
    federation = make_federation(protection, key_holder, 3)
    name = "client-0000"
    lengths = set()
    for number, choice in enumerate([0, 1, 2, 2]):
        running = federation.begin(number, SHAPE)
        values = rng.integers(-1000, 1000, 6) if number < 3 else np.zeros(6, np.int64)
        upload = running.protect(name, BlockVector.one_hot(SHAPE, choice, values))
        lengths.add(tuple(len(part) for part in envelopes(upload)))
    assert len(lengths) == 1
    assert len(set(next(iter(lengths))[1:])) == 1


@pytest.mark.parametrize(
    "fault", ["in the parameters", "blocks in another order", "a block left out", "in the length"]
)
def test_a_choice_that_shows_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker of (c) fails on each planted fault; the server refuses those that reach it."""
    honest = RoundClient.upload

    def planted(self: RoundClient, vector: BlockVector) -> bytes:
        choice = int(np.argmax(vector.head))
        parts = unframe(bytes(honest(self, vector)))
        if fault == "in the parameters":
            header = replace(
                self._plan.header(Phase.UPLOAD, self.name, chunk=0, chunks=4),
                parameters=f"pool-{choice}",
            )
            parts[0] = sign_envelope(self._identity, header, b"body")
        elif fault == "blocks in another order":
            parts[1], parts[1 + choice] = parts[1 + choice], parts[1]
        elif fault == "a block left out":
            parts = parts[: 2 + choice]
        else:
            parts[-1] += bytes(choice)
        return frames(parts)

    monkeypatch.setattr(RoundClient, "upload", planted)
    views, refused = [], 0
    for choices in ((0, 0, 1, 2), (2, 1, 0, 0)):
        tape = Tape()
        federation = make_federation("masked", tape=tape, clients=4)
        running = federation.begin(0, SHAPE)
        for name, vector in make_vectors(
            SHAPE, dict(zip(federation.clients, choices, strict=True))
        ).items():
            refused += running.add(running.protect(name, vector)) is not None
        views.append(outside(tape))
    assert views[0] != views[1]
    assert refused >= 2


# One survivor set


def revealed_kinds(tape: Tape) -> dict[int, set[str]]:
    """Which kinds of a client's secrets the server got shares of, in the whole round."""
    kinds: dict[int, set[str]] = {}
    for sender, recipient, data in tape.messages:
        if recipient == "server" and sender.startswith("client") and data[:4] == b"SFE1":
            header = read_header(data)
            if header.phase in (Phase.OPEN_COUNTS, Phase.OPEN_POOLS):
                for place, owner, _ in Revealed.decode(data[-header.body_length :]).shares:
                    kinds.setdefault(owner, set()).add(
                        "mask key" if place == MASK_KEY else "self seed"
                    )
    return kinds


class Switching(Tape):
    """A server that asks for client 2's mask key at the second opening, after its self seed at
    the first.
    """

    federation: EmbeddedFederation | None = None

    def change(self, sender: str, recipient: str, data: bytes) -> bytes:
        if (
            sender != "server"
            or self.federation is None
            or read_header(data).phase != Phase.OPEN_POOLS
        ):
            return data
        header = read_header(data)
        request = OpenRequest.decode(data[-header.body_length :])
        switched = replace(request, survivors=(0, 1, 3), dropped=(2,))
        return sign_envelope(
            self.federation._server,
            replace(header, body_length=0, body_hash=bytes(32)),
            switched.encode(),
        )


def switching_round() -> Switching:
    tape = Switching()
    federation = make_federation("masked", clients=4, tape=tape)
    tape.federation = federation
    federation.round(
        0, make_vectors(SHAPE, dict.fromkeys(federation.clients, 0)), SHAPE, threshold=3
    )
    return tape


def test_a_switched_survivor_set_gets_nothing() -> None:
    with pytest.raises(RoundRefusedError, match="survivors-switched"):
        switching_round()


def test_the_checker_finds_clients_that_would_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: clients that check nothing and reveal what the request names."""
    honest = RoundClient._reveal

    def gullible(self: RoundClient, phase: Phase, passing: tuple[int, ...], wanted: Any) -> bytes:
        return honest(
            self, phase, passing, [*wanted, *((MASK_KEY, owner) for owner in self._gullible)]
        )  # type: ignore[attr-defined]

    def unchecked(self: RoundClient, request: OpenRequest) -> None:
        self._gullible = request.dropped  # type: ignore[attr-defined]

    monkeypatch.setattr(round_client, "proved_head", lambda *_: np.array([4, 0, 0]))
    monkeypatch.setattr(RoundClient, "_same_sets", unchecked)
    monkeypatch.setattr(RoundClient, "_reveal", gullible)
    tape = Switching()
    federation = make_federation("masked", clients=4, tape=tape)
    tape.federation = federation
    with pytest.raises(SecureSumError):
        federation.round(
            0, make_vectors(SHAPE, dict.fromkeys(federation.clients, 0)), SHAPE, threshold=3
        )
    assert any(len(kinds) == 2 for kinds in revealed_kinds(tape).values())


@pytest.mark.parametrize(("protection", "key_holder"), MASKED)
def test_one_kind_of_secret_for_each_client(protection: str, key_holder: str) -> None:
    tape = recorded(protection, key_holder, (0, 0, 1, 2), {"client-0001": Phase.UPLOAD})
    kinds = revealed_kinds(tape)
    assert kinds[1] == {"mask key"}
    assert [kinds[owner] for owner in (0, 2, 3)] == [{"self seed"}] * 3


@pytest.mark.parametrize(("protection", "key_holder"), MASKED)
def test_self_seeds_of_closed_pools_are_not_revealed(protection: str, key_holder: str) -> None:
    """Choices 0, 0, 1, 2 with a minimum of 2: nobody gives out shares for the blocks of pools 1
    and 2.
    """
    tape = recorded(protection, key_holder, (0, 0, 1, 2))
    blocks = Counter[int]()
    for sender, recipient, data in tape.messages:
        if (
            recipient == "server"
            and sender.startswith("client")
            and data[:4] == b"SFE1"
            and "OPEN" in read_header(data).phase.name
        ):
            blocks.update(
                place
                for place, _, _ in Revealed.decode(data[-read_header(data).body_length :]).shares
            )
    assert set(blocks) == {0, 1}


# Nothing twice


class Ledger:
    """Every secret, nonce and key of several rounds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used: list[tuple[str, bytes]] = []
        honest = round_client.mask_terms

        def watched(*, own: int, self_seed: bytes, pairs: dict[int, bytes], **rest: Any) -> Terms:
            self.used.append(("self seed", self_seed))
            # both ends use a pair seed, once each: note it at the lower end
            self.used.extend(("pair seed", seed) for other, seed in pairs.items() if own < other)
            return honest(own=own, self_seed=self_seed, pairs=pairs, **rest)

        monkeypatch.setattr(round_client, "mask_terms", watched)

    def read(self, tape: Tape, *, federation: EmbeddedFederation) -> None:
        for sender, recipient, data in tape.messages:
            if recipient != "server" or not sender.startswith("client"):
                continue
            for part in envelopes(data):
                header = read_header(part)
                body = part[-header.body_length :]
                if header.phase == Phase.ADVERTISE:
                    keys = Advertise.decode(body)
                    self.used += [("round key", keys.sealing), ("round key", keys.masking)]
                elif header.phase == Phase.SHARE and header.chunk == 0:
                    self.used += [("box salt", box[:32]) for _, box in Boxes.decode(body).boxes]
                    self.used += [("box", box) for _, box in Boxes.decode(body).boxes]
                elif header.phase == Phase.UPLOAD:
                    self.used.append(("upload block", body))
                    if federation.parameters is not None and federation.key_holder == "clients":
                        count = federation.parameters.ciphertexts(federation.parameters.degree)
                        self.used += [
                            ("encryption seed", body[73 + 64 * k : 137 + 64 * k])
                            for k in range(count)
                        ]

    def twice(self) -> set[str]:
        return {kind for (kind, _), count in Counter(self.used).items() if count > 1}


@pytest.mark.parametrize(("protection", "key_holder"), MASKED)
def test_no_seed_nonce_or_key_is_used_twice(
    protection: str, key_holder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, tape = Ledger(monkeypatch), Tape()
    federation = EmbeddedFederation(
        4, protection=protection, key_holder=key_holder, rotation_rounds=2, tap=tape
    )
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 1))
    for number in range(4):
        check_exact(federation.round(number, vectors, SHAPE), SHAPE, vectors, list(vectors), 2)
    ledger.read(tape, federation=federation)
    kinds = Counter(kind for kind, _ in ledger.used)
    assert kinds["self seed"] == 4 * 4 * 4
    assert kinds["pair seed"] == 4 * 4 * 6
    assert kinds["round key"] == 4 * 4 * 2
    assert kinds["box salt"] == 4 * 4 * 3
    if key_holder == "clients" and "bfv" in protection:
        assert kinds["encryption seed"] == 4 * 4 * 4
    assert ledger.twice() == set()


class Replayed:
    """`randomness` whose state a restored snapshot brings back."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, size: int) -> bytes:
        self.count += 1
        return (self.count.to_bytes(4, "big") * 17)[:size]


def test_a_seed_reused_across_rounds_is_refused() -> None:
    source = Replayed()
    federation = EmbeddedFederation(3, protection="masked", randomness=source)
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 0))
    federation.round(0, vectors, SHAPE)
    source.count = 0
    with pytest.raises(SecureSumError, match="used once"):
        federation.round(1, vectors, SHAPE)


def test_the_checker_finds_a_reused_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the client's record of spent seeds is gone as well."""
    monkeypatch.setattr(UsedSeeds, "spend", lambda self, seeds: None)
    ledger, source, tape = Ledger(monkeypatch), Replayed(), Tape()
    federation = EmbeddedFederation(3, protection="masked", randomness=source, tap=tape)
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 0))
    for number in range(2):
        source.count = 0
        federation.round(number, vectors, SHAPE)
    ledger.read(tape, federation=federation)
    assert ledger.twice() == {"self seed"}


def test_secrets_stay_out_of_what_is_shown() -> None:
    federation = make_federation("bfv+masked", clients=3)
    running = federation.begin(0, SHAPE)
    client = running.clients["client-0000"]
    running.protect("client-0001", make_vectors(SHAPE, {"client-0001": 0})["client-0001"])
    secrets = [
        *client._state.self_seeds,
        client._state.masking.private_bytes_raw(),
        client._state.sealing.private_bytes_raw(),
    ]
    own = Share.from_bytes(client._state.rows[client._position][0])
    shown = "".join(map(repr, (client, running, running.server, federation, running.plan, own)))
    for secret in secrets:
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
    assert str(own.value) not in shown
