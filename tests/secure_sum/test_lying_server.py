"""A server that lies: shorter lists, counts of its own making, signatures that are not there.
Honest clients reveal nothing for it.

Every attack is run against a planted fault as well, where it must succeed: a test that cannot see
the fault says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from secure_sum.round_helpers import MASKED, Tape, flip, make_federation, make_vectors, read_end

from bench.secure_sum.embedded import EmbeddedFederation
from bench.secure_sum.embedded_round import EmbeddedRound
from secure_fl.crypto.envelope import Phase, read_header, sign_envelope
from secure_fl.crypto.refusals import RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum import authority as holders
from secure_fl.secure_sum import client, store
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.messages import (
    MASK_KEY,
    CountProof,
    OpenRequest,
    Revealed,
    RoundReason,
    RoundRefusedError,
)
from secure_fl.secure_sum.plan import RoundPlan

SHAPE = BlockShape(pools=3, width=6)
CHOICES = (0, 0, 0, 1, 1, 1, 2, 0)
"""Eight clients; the seventh is alone in pool 2."""


def signed(federation: EmbeddedFederation, plan: RoundPlan, phase: Phase, body: bytes) -> bytes:
    return sign_envelope(federation._server, plan.header(phase, "server"), body)


# Shorter lists


def shown(clients: int, listed: int, **rules: int) -> Callable[[], list[bytes]]:
    """The first client's answer to a list of so many, every one signed by its owner."""
    federation = make_federation(clients=clients)
    plan = federation.begin(0, SHAPE, **rules).plan
    parties = [RoundClient(plan, identity) for identity in federation.clients.values()]
    keys = [party.advertise() for party in parties[:listed]]
    return lambda: parties[0].receive(signed(federation, plan, Phase.ADVERTISE, frames(keys)))


@pytest.mark.parametrize(
    ("clients", "rules", "fewest"),
    [
        (16, {}, 11),
        (16, {"fewest": 2}, 11),
        (16, {"threshold": 9}, 9),
        (16, {"fewest": 14}, 14),
        (16, {"degree": 8}, 11),
        (16, {"degree": 8, "fewest": 2}, 7),
        (33, {"degree": 14}, 23),
    ],
)
def test_a_list_shorter_than_the_plan_asks_for_is_refused(
    clients: int, rules: dict[str, int], fewest: int
) -> None:
    for listed in (1, 2, fewest - 1):
        with pytest.raises(RoundRefusedError) as caught:
            shown(clients, listed, **rules)()
        assert caught.value.reason == RoundReason.TOO_FEW
    assert shown(clients, fewest, **rules)()


def test_thresholds_that_follow_the_list_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: n_min and t of the two that are shown."""
    attack = shown(16, 2)
    monkeypatch.setattr(RoundPlan, "survivors_needed", 2)
    monkeypatch.setattr(RoundPlan, "shares_needed", 2)
    assert attack()


# Counts


class Forger(Tape):
    """Signs its own version of the request for pools' shares: `edit` makes evidence out of the
    true one's.
    """

    def __init__(
        self, edit: Callable[[tuple[bytes, ...]], Sequence[bytes]], phase: Phase = Phase.OPEN_POOLS
    ) -> None:
        super().__init__()
        self.edit, self.phase = edit, phase
        self.federation: EmbeddedFederation | None = None

    def change(self, sender: str, recipient: str, data: bytes) -> bytes:
        if self.federation is None or sender != "server" or read_header(data).phase != self.phase:
            return data
        header, request = read_header(data), OpenRequest.decode(data[read_end(data) :])
        edited = replace(request, evidence=tuple(self.edit(request.evidence)))
        return sign_envelope(
            self.federation._server,
            replace(header, body_length=0, body_hash=bytes(32)),
            edited.encode(),
        )

    @property
    def blocks(self) -> set[int]:
        """Blocks of which the server got self-mask shares."""
        found = set[int]()
        for sender, recipient, data in self.messages:
            if (
                recipient == "server"
                and sender.startswith("client")
                and data[:4] == b"SFE1"
                and "OPEN" in read_header(data).phase.name
            ):
                found |= {
                    place
                    for place, _, _ in Revealed.decode(data[read_end(data) :]).shares
                    if place != MASK_KEY
                }
        return found


def begun(
    protection: str, key_holder: str, tape: Forger | None = None
) -> tuple[EmbeddedFederation, EmbeddedRound]:
    federation = make_federation(protection, key_holder, len(CHOICES), tape)
    if tape is not None:
        tape.federation = federation
    running = federation.begin(
        0,
        SHAPE,
        minimum=3,
        bound=1000,
        head_bound=1,
        appliers=None,
        kills={"client-0007": Phase.UPLOAD},
    )
    vectors = make_vectors(SHAPE, dict(zip(federation.clients, CHOICES, strict=True)))
    for name, vector in list(vectors.items())[:-1]:
        assert running.add(running.protect(name, vector)) is None
    return federation, running


def instead(
    at: int, change: Callable[[bytes], bytes]
) -> Callable[[tuple[bytes, ...]], Sequence[bytes]]:
    """Another part in place `at` of the evidence."""
    return lambda evidence: [
        change(part) if number == at % len(evidence) else part
        for number, part in enumerate(evidence)
    ]


FORGED: dict[str, Callable[[tuple[bytes, ...]], Sequence[bytes]]] = {
    "no evidence": lambda evidence: [],
    "the server's word": lambda evidence: [b"counts: 4 3 3"],
    "a head is missing": lambda evidence: evidence[1:],
    "a head more": lambda evidence: [evidence[0], *evidence],
    "one head twice": lambda evidence: [evidence[0], evidence[0], *evidence[2:]],
    "heads in another order": lambda evidence: [evidence[1], evidence[0], *evidence[2:]],
    "a head that was changed": instead(6, lambda head: flip(head, len(head) - 1)),
    "a head's signature": instead(6, lambda head: flip(head, read_end(head) - 1)),
    "a seed that was changed": instead(-2, lambda seeds: flip(seeds, 3)),
    "seeds in another order": instead(-2, lambda seeds: seeds[32:64] + seeds[:32] + seeds[64:]),
    "a seed is missing": instead(-2, lambda seeds: seeds[32:]),
    "a mask key that was changed": instead(-1, lambda keys: bytes([keys[0] ^ 8]) + keys[1:]),
    "no mask key": instead(-1, lambda keys: b""),
}


@pytest.mark.parametrize(
    ("protection", "key_holder"), [("masked", "clients"), ("bfv+masked", "clients")]
)
@pytest.mark.parametrize("what", list(FORGED))
def test_counts_without_proof_open_no_pool(what: str, protection: str, key_holder: str) -> None:
    tape = Forger(FORGED[what])
    _, running = begun(protection, key_holder, tape)
    with pytest.raises((RefusedError, RoundRefusedError)):
        running.open()
    assert tape.blocks == {0}


@pytest.mark.parametrize("what", [each for each in FORGED if each != "the server's word"])
def test_an_authority_takes_no_word_on_counts(what: str) -> None:
    def edit(evidence: tuple[bytes, ...]) -> Sequence[bytes]:
        # keys and agreements come first, and the answer to clients has one part
        return [*evidence[:2], *FORGED[what](evidence[2:])] if len(evidence) > 2 else evidence

    tape = Forger(edit, Phase.OPEN_COUNTS)
    _, running = begun("bfv+masked", "authority", tape)
    tape.edit = lambda evidence: edit(evidence) if len(evidence) > len(CHOICES) else evidence
    with pytest.raises((RefusedError, RoundRefusedError)):
        running.open()
    assert tape.blocks == {0}


def pool_blocks(message: tuple[str, str, bytes]) -> list[bytes]:
    """The envelopes of an upload of the seventh client."""
    sender, _, data = message
    return unframe(data) if sender == "client-0006" and data[:4] != b"SFE1" else []


def test_another_blocks_envelope_is_no_count() -> None:
    """A pool's block is signed by its client too."""
    tape = Forger(tuple)
    _, running = begun("masked", "clients", tape)
    upload: list[bytes] = []
    tape.edit = lambda evidence: [*evidence[:6], upload[1], *evidence[7:]]
    tape.messages = [
        message for message in tape.messages if not upload.extend(pool_blocks(message))
    ]
    with pytest.raises(RoundRefusedError, match="not the block of counts"):
        running.open()
    assert tape.blocks == {0}


@pytest.mark.parametrize(("protection", "key_holder"), MASKED)
def test_a_server_that_opens_counts_of_its_own_gets_no_seed_of_a_pool_of_one(
    protection: str, key_holder: str
) -> None:
    """It decides that pool 2 passes; the clients decide otherwise."""
    tape = Forger(tuple)
    _, running = begun(protection, key_holder, tape)
    running.server._passing = (0, 1, 2)
    outcome = running.open()
    assert tape.blocks == {0, 1, 2}
    assert set(outcome.opened.pools) == {0, 1}


@pytest.mark.parametrize("key_holder", ["clients", "authority"])
def test_believed_counts_are_found(key_holder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: whoever opens believes that pool 2 has three members."""
    for party in (client, holders):
        monkeypatch.setattr(party, "proved_head", lambda *_: np.array([2, 2, 3]))
    tape = Forger(tuple)
    _, running = begun("bfv+masked", key_holder, tape)
    running.open()
    assert 3 in tape.blocks


def test_counts_that_are_not_one_a_client_end_the_round() -> None:
    """A client that counts itself three times for pool 2, alone or with another's taken away."""
    for head in ([0, 0, 3], [-1, 0, 2], [1, 1, 1]):
        federation = make_federation("masked", clients=5)
        vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 1))
        vectors["client-0002"] = replace(vectors["client-0002"], head=np.array(head))
        with pytest.raises(RefusedError) as caught:
            federation.round(0, vectors, SHAPE, minimum=3, bound=1000, head_bound=1)
        assert caught.value.reason == "out-of-range"


# Signatures


def test_an_authority_wants_t_signatures_of_survivors() -> None:
    """Nine clients, t = 7: five of nine are a majority and not enough; a dropped client's counts
    for nothing.
    """
    for edit in (
        lambda agreements: agreements[:5],
        lambda agreements: agreements[:6],
        lambda agreements: [*agreements[:6], agreements[0]],
    ):

        def cut(
            evidence: tuple[bytes, ...], edit: Callable[[list[bytes]], list[bytes]] = edit
        ) -> Sequence[bytes]:
            if len(evidence) <= 9:
                return evidence
            return [evidence[0], frames(edit(unframe(evidence[1]))), *evidence[2:]]

        tape = Forger(cut, Phase.OPEN_COUNTS)
        federation = make_federation("bfv+masked", "authority", 9, tape)
        tape.federation = federation
        with pytest.raises((RefusedError, RoundRefusedError)) as caught:
            federation.round(0, make_vectors(SHAPE, dict.fromkeys(federation.clients, 0)), SHAPE)
        assert caught.value.reason in (RoundReason.NOT_AGREED, "replayed")


def test_an_authority_wants_the_keys_that_the_view_was_made_of() -> None:
    def fewer(evidence: tuple[bytes, ...]) -> Sequence[bytes]:
        return [frames(unframe(evidence[0])[:-1]), *evidence[1:]] if len(evidence) > 9 else evidence

    tape = Forger(fewer, Phase.OPEN_COUNTS)
    federation = make_federation("bfv+masked", "authority", 9, tape)
    tape.federation = federation
    with pytest.raises(RoundRefusedError, match="survivors-switched"):
        federation.round(0, make_vectors(SHAPE, dict.fromkeys(federation.clients, 0)), SHAPE)


def test_a_proof_is_cut_where_it_was_joined() -> None:
    proof = CountProof((b"a", b"bc"), (bytes(32), bytes([1] * 32)), (bytes([2] * 32),))
    assert CountProof.of(proof.evidence(), 2, 1, masked=True) == proof
    for survivors, dropped, masked in ((3, 1, True), (2, 0, True), (1, 1, True), (2, 1, False)):
        with pytest.raises(RoundRefusedError, match="not-proved"):
            CountProof.of(proof.evidence(), survivors, dropped, masked=masked)


# Answers that stand still


def asked_again(
    shape: BlockShape, first: dict[str, Phase], margin: int
) -> tuple[set[str], set[str]]:
    """Who takes part in two rounds of one question: in the first, kills end it."""
    federation = make_federation("masked", clients=6)
    vectors = make_vectors(shape, dict.fromkeys(federation.clients, 0))
    rules: dict[str, object] = {
        "question": bytes([7] * 32),
        "threshold": 4,
        "bound": 1000,
        "head_bound": 1,
        "margin": margin,
    }
    asked: list[set[str]] = []
    for number, kills in enumerate((first, {})):
        try:
            outcome = federation.round(number, vectors, shape, kills=kills, **rules)
        except RoundRefusedError:
            asked.append(set())
        else:
            asked.append(set(outcome.survivors))
    return asked[0], asked[1]


@pytest.mark.parametrize("margin", [0, 50])
@pytest.mark.parametrize("shape", [SHAPE, BlockShape(1, 6, counted=False)])
def test_no_second_sum_is_opened_of_the_same_answers(shape: BlockShape, margin: int) -> None:
    """Whatever the server says of the first: of two, one without a client, the difference is that
    client's answer.
    """
    everyone = {f"client-{number:04d}" for number in range(6)}
    assert asked_again(shape, {}, margin) == (everyone, set())
    three = sorted(everyone)[:3]
    # too few are left to open pools, and those who sent their shares for them stay away from the
    # second: it has too few as well
    assert asked_again(shape, dict.fromkeys(three, Phase.OPEN_POOLS), margin) == (set(), set())
    # nobody sent shares for pools: only noised counts were opened, if there are any
    assert asked_again(shape, dict.fromkeys(everyone, Phase.OPEN_POOLS), margin) == (
        set(),
        set() if margin and shape.counted else everyone,
    )
    assert asked_again(shape, dict.fromkeys(three, Phase.AGREE), margin) == (set(), everyone)


def test_a_second_sum_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: clients forget what they opened."""
    monkeypatch.setattr(store, "refuse_opened", lambda *_: None)
    everyone = {f"client-{number:04d}" for number in range(6)}
    assert asked_again(SHAPE, {}, 0) == (everyone, everyone)


@pytest.mark.parametrize("survivors", [(0, 1, 2, 3, 99), (0, 1, 2, 3, 3)])
def test_survivors_that_nobody_is_are_no_proof(survivors: tuple[int, ...]) -> None:
    """Also without masks, where no view names them."""
    federation = EmbeddedFederation(5, protection="plain")
    shape = BlockShape(pools=2, width=4)
    running = federation.begin(0, shape)
    for name in federation.clients:
        running.add(running.protect(name, BlockVector.one_hot(shape, 0, np.arange(4))))
    heads = tuple(running.server._heads[position] for position in range(5))
    request = OpenRequest(bytes(32), survivors, (), (*heads, b"", b"")).encode()
    message = sign_envelope(
        federation._server, running.plan.header(Phase.OPEN_POOLS, "server"), request
    )
    with pytest.raises(SecureSumError):
        running.clients["client-0000"].receive(message)
