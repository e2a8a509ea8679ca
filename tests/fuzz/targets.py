"""Fuzz targets: whatever the bytes, the parsers raise `SecureSumError` and nothing else. The first
byte chooses the parser.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from secure_fl.crypto.envelope import Expected, Header, Phase, Seen, open_envelope, sign_envelope
from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.sealing import open_with
from secure_fl.errors import SecureSumError
from secure_fl.he.ciphertexts import Kind, read_body
from secure_fl.he.parameters import BFV_4096

ALL = (Kind.SEEDED, Kind.FULL, Kind.SUM)


def make_target() -> tuple[Callable[[bytes], None], list[bytes]]:
    """A function that raises where a parser misbehaves, and messages to start from."""
    who = Identity.generate("clinic")
    roster = Roster("hospitals", (who.member,))
    context = ("bfv+masked", BFV_4096.identifier, "hospitals")
    expected = Expected(*context, 0, Phase.UPLOAD, 1, bytes(32))
    header = Header(*context, 0, Phase.UPLOAD, 1, who.name, bytes(32), roster.digest)
    message = sign_envelope(who, header, b"body")
    parsers: list[Callable[[bytes], object]] = [
        lambda data: open_envelope(data, roster, expected, Seen()),
        lambda data: read_body(data, BFV_4096, bytes(32), 2, ALL),
        Member.from_card,
        lambda data: Roster.open(data, who.member),
        lambda data: open_with(bytes(32), data, b""),
    ]

    def target(data: bytes) -> None:
        if not data:
            return
        try:
            opened = parsers[data[0] % len(parsers)](data[1:])
        except SecureSumError:
            return
        forged = data[0] % len(parsers) == 0 and data[1:] != message
        if opened is None or forged:
            raise AssertionError("accepted what was never sent")

    good = [message, _cipher_body(), who.card(), roster.sign(who), bytes(64)]
    return target, [bytes([parser]) + data for parser, data in enumerate(good)]


def _cipher_body() -> bytes:
    """Two numbers in one seeded ciphertext, all of whose words are 0."""
    head = b"SFC1\x01" + (2).to_bytes(4, "little") + BFV_4096.digest + bytes(32)
    return head + bytes(64) + np.zeros(4096 * 54 // 8, np.uint8).tobytes()
