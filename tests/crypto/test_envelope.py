"""Every reason to refuse a message is exercised; whatever the bytes, only a typed refusal
comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from he.helpers import People, people
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.crypto.envelope import (
    NO_KEY,
    Expected,
    Header,
    Phase,
    Seen,
    open_envelope,
    read_header,
    sign_envelope,
)
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.messages import accept

KEY = bytes(range(32))
BODY = b"some body"


@pytest.fixture(scope="module")
def crowd() -> People:
    return people()


def header(crowd: People, **changes: object) -> Header:
    base = Header(
        "bfv+masked",
        "bfv-4096/1234",
        "hospitals",
        5,
        Phase.UPLOAD,
        3,
        crowd.clients[0].name,
        KEY,
        crowd.roster.digest,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


EXPECTED = Expected(
    "bfv+masked", "bfv-4096/1234", "hospitals", 5, Phase.UPLOAD, 3, KEY, body_length=len(BODY)
)


def message(
    crowd: People, body: bytes = BODY, sender: Identity | None = None, **changes: object
) -> bytes:
    who = sender or crowd.clients[0]
    return sign_envelope(who, header(crowd, **{"sender": who.name, **changes}), body)


def reason(
    crowd: People, data: bytes, expected: Expected = EXPECTED, seen: Seen | None = None
) -> Reason:
    with pytest.raises(RefusedError) as caught:
        open_envelope(data, crowd.roster, expected, seen)
    assert caught.value.code == "secure-sum"
    assert caught.value.remedy
    return caught.value.reason


def flipped(data: bytes, place: int) -> bytes:
    """With another byte in one place, whatever stood there."""
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def test_a_good_message_opens(crowd: People) -> None:
    found, body = open_envelope(message(crowd), crowd.roster, EXPECTED, Seen())
    assert body == BODY
    assert (found.sender, found.round, found.phase, found.pools, found.chunk, found.chunks) == (
        "clinic-0",
        5,
        Phase.UPLOAD,
        3,
        0,
        1,
    )
    assert replace(read_header(message(crowd)), body_length=0, body_hash=bytes(32)) == header(crowd)


TABLE: list[tuple[Reason, Callable[[People], bytes]]] = [
    (Reason.TRUNCATED, lambda c: b""),
    (Reason.TRUNCATED, lambda c: message(c)[:100]),
    (Reason.TRUNCATED, lambda c: message(c)[:160]),
    (Reason.TRUNCATED, lambda c: message(c)[: -len(BODY) - 1]),
    (Reason.TRUNCATED, lambda c: message(c)[:-1]),
    (Reason.WRONG_LENGTH, lambda c: message(c) + b"x"),
    (Reason.WRONG_LENGTH, lambda c: message(c, BODY + b"x")),
    (Reason.BIT_FLIPPED, lambda c: message(c)[:-1] + b"Y"),
    (Reason.MALFORMED, lambda c: b"SFE2" + message(c)[4:]),
    (Reason.MALFORMED, lambda c: message(c)[:4] + b"\x63" + message(c)[5:]),
    (Reason.WRONG_SIGNATURE, lambda c: message(c)[:20] + b"\xff" + message(c)[21:]),
    (Reason.WRONG_SIGNATURE, lambda c: flipped(message(c), -len(BODY) - 1)),
    (
        Reason.WRONG_SIGNATURE,
        lambda c: sign_envelope(Identity.generate("clinic-0"), header(c), BODY),
    ),
    (Reason.UNKNOWN_CLIENT, lambda c: message(c, sender=Identity.generate("stranger"))),
    (Reason.WRONG_ROLE, lambda c: message(c, sender=c.server)),
    (Reason.WRONG_FEDERATION, lambda c: message(c, federation="banks")),
    (Reason.WRONG_ROSTER, lambda c: message(c, roster_digest=bytes(32))),
    (Reason.STALE, lambda c: message(c, round=4)),
    (Reason.FUTURE, lambda c: message(c, round=6)),
    (Reason.WRONG_SUITE, lambda c: message(c, suite="plain")),
    (Reason.WRONG_PARAMETERS, lambda c: message(c, parameters="bfv-4096/9999")),
    (Reason.WRONG_PHASE, lambda c: message(c, phase=Phase.AGREE)),
    (Reason.WRONG_POOLS, lambda c: message(c, pools=4)),
    (Reason.WRONG_CHUNK, lambda c: message(c, chunks=2)),
    (Reason.RE_KEYED, lambda c: message(c, key_fingerprint=NO_KEY)),
]


@pytest.mark.parametrize(
    ("expected", "make"), TABLE, ids=[f"{k}-{row[0]}" for k, row in enumerate(TABLE)]
)
def test_the_refusal_table(
    crowd: People, expected: Reason, make: Callable[[People], bytes]
) -> None:
    assert reason(crowd, make(crowd)) is expected


def test_repetition(crowd: People) -> None:
    seen, data = Seen(), message(crowd)
    open_envelope(data, crowd.roster, EXPECTED, seen)
    assert reason(crowd, data, seen=seen) is Reason.REPLAYED
    assert reason(crowd, message(crowd, b"other one"), seen=seen) is Reason.DUPLICATE
    open_envelope(message(crowd, sender=crowd.clients[1]), crowd.roster, EXPECTED, seen)
    two = replace(EXPECTED, chunks=2)
    fresh = Seen()
    for chunk in (0, 1):
        open_envelope(message(crowd, chunk=chunk, chunks=2), crowd.roster, two, fresh)
    assert reason(crowd, message(crowd, chunk=1, chunks=2), two, fresh) is Reason.REPLAYED


def test_a_refused_message_leaves_no_trace(crowd: People) -> None:
    """Otherwise a stranger's garbage would block the true sender."""
    seen = Seen()
    assert reason(crowd, message(crowd)[:-1] + b"Y", seen=seen) is Reason.BIT_FLIPPED
    assert reason(crowd, message(crowd, round=4), seen=seen) is Reason.STALE
    assert not seen.digests
    open_envelope(message(crowd), crowd.roster, EXPECTED, seen)


def test_a_body_that_says_nothing_leaves_its_place_to_the_next(crowd: People) -> None:
    def parse(body: bytes) -> bytes:
        if body != BODY:
            raise RefusedError(Reason.MALFORMED, "", field="body", value=None, remedy="none")
        return body

    seen = Seen()
    for data, chunk, said in ((b"other one", 0, Reason.MALFORMED), (BODY, 1, Reason.WRONG_CHUNK)):
        with pytest.raises(RefusedError) as caught:
            accept(message(crowd, data), crowd.roster, EXPECTED, seen, parse, chunk=chunk)
        assert caught.value.reason is said
    assert accept(message(crowd), crowd.roster, EXPECTED, seen, parse)[1] == BODY
    with pytest.raises(RefusedError, match="accepted already"):
        accept(message(crowd), crowd.roster, EXPECTED, seen, parse)
    assert reason(crowd, message(crowd), seen=seen) is Reason.REPLAYED, "and its place is kept"


def test_only_the_expected_sender(crowd: People) -> None:
    only = replace(EXPECTED, sender="clinic-1")
    assert reason(crowd, message(crowd), only) is Reason.WRONG_ROLE
    open_envelope(message(crowd, sender=crowd.clients[1]), crowd.roster, only)
    open_envelope(
        message(crowd, sender=crowd.server), crowd.roster, replace(EXPECTED, role="server")
    )


def test_a_revoked_client_is_unknown(crowd: People) -> None:
    later = crowd.roster.revoke("clinic-0")
    with pytest.raises(RefusedError) as caught:
        open_envelope(message(crowd, roster_digest=later.digest), later, EXPECTED)
    assert caught.value.reason is Reason.UNKNOWN_CLIENT


def test_headers_are_checked_before_they_are_signed(crowd: People) -> None:
    wrong: list[dict[str, object]] = [
        {"round": -1},
        {"round": 2**32},
        {"pools": 2**16},
        {"chunk": 1},
        {"suite": ""},
        {"suite": "bfv masked"},
        {"suite": "x" * 256},
        {"parameters": "é"},
        {"federation": "a\n"},
        {"key_fingerprint": b"short"},
        {"key_fingerprint": bytes(33)},
    ]
    for changes in wrong:
        with pytest.raises(SecureSumError):
            sign_envelope(crowd.clients[0], header(crowd, **changes), BODY)
    with pytest.raises(SecureSumError, match="another sender"):
        sign_envelope(crowd.clients[1], header(crowd), BODY)


def test_every_bit_of_the_head_is_signed(crowd: People) -> None:
    """Each single bit flipped, one after the other: never accepted."""
    data = message(crowd)
    for bit in range(8 * len(data)):
        mutant = bytearray(data)
        mutant[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(RefusedError):
            open_envelope(bytes(mutant), crowd.roster, EXPECTED)


def test_header_length_is_the_same_for_every_content(crowd: People) -> None:
    lengths = {len(message(crowd, bytes([k]) * 50)) for k in range(5)}
    assert len(lengths) == 1


def only_refusals(crowd: People, data: bytes) -> None:
    try:
        open_envelope(data, crowd.roster, EXPECTED, Seen())
    except SecureSumError:
        return
    assert data == message(crowd), "Ed25519 is deterministic: nothing else may open"


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_random_bytes(data: bytes) -> None:
    only_refusals(FUZZED, data)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    st.integers(0, 400),
    st.binary(max_size=20),
)
def test_mutations_and_truncations(changes: list[tuple[int, int]], cut: int, tail: bytes) -> None:
    data = bytearray(message(FUZZED))
    for place, value in changes:
        data[place % len(data)] = value
    only_refusals(FUZZED, bytes(data[: len(data) - cut % len(data)]) + tail)


FUZZED = people(1)
