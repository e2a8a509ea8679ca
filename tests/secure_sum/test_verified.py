"""What clients of one process share: results of public bytes, and nothing of any client's."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from secure_sum.round_helpers import SHAPE, make_federation, make_vectors

from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.state import RoundState
from secure_fl.secure_sum.verified import Verified, question_of


def reachable(root: object) -> list[object]:
    """Every object that can be reached, but for classes, modules and functions."""
    seen, left, found = set[int](), [root], list[object]()
    skipped = (type, type(gc), type(reachable))
    while left:
        one = left.pop()
        if id(one) not in seen and not isinstance(one, skipped):
            seen.add(id(one))
            found.append(one)
            left += gc.get_referents(one)
    return found


def secrets(client: RoundClient) -> set[bytes]:
    """A client's private keys, seeds and shares, in the middle of a round."""
    state = client._state
    keys = [key.private_bytes_raw() for key in (state.sealing, state.masking) if key is not None]
    shares = [share for row in state.rows.values() for share in row]
    pairs = [seed for row in client._pairs.values() for seed in row]
    return {*keys, *state.self_seeds, *shares, *pairs}


def test_no_clients_state_is_reachable_from_what_they_share() -> None:
    federation = make_federation("bfv+masked", "clients", 5)
    running = federation.begin(0, SHAPE)
    clients = list(running.clients.values())
    hidden = set[bytes]().union(*map(secrets, clients))
    shared = clients[0]._verified
    assert all(client._verified is shared for client in clients)
    assert len(hidden) > 5 * 10
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 0))
    for at in ("before", "after"):
        found = reachable(shared)
        private = RoundClient | RoundState | X25519PrivateKey
        assert not [one for one in found if isinstance(one, private)]
        texts = [bytes(one) for one in found if isinstance(one, bytes | bytearray | memoryview)]
        # self-mask seeds of block 0 are public once the counts are proved
        left = hidden if at == "before" else set[bytes]()
        assert not [one for one in left if any(one in text for text in texts)]
        if at == "before":
            for name, vector in vectors.items():
                running.add(running.protect(name, vector))
            running.open()


def test_a_message_has_one_name_whoever_asks() -> None:
    verified = Verified()
    data = b"a message"
    for text in (data, bytes(bytearray(data)), b"", b"another", data):
        assert verified.name_of(text) == question_of(text)


def test_what_is_refused_is_refused_to_everybody_and_not_kept() -> None:
    verified, asked = Verified(), list[str]()

    def refuse() -> Any:
        asked.append("asked")
        raise SecureSumError("no", field="message", value=1, remedy="none")

    for find in (verified.once, verified.message):
        for _ in range(2):
            with pytest.raises(SecureSumError):
                find((b"book", b"digest"), refuse)
        assert find((b"book", b"digest"), lambda: 3) == 3
        assert find((b"book", b"digest"), refuse) == 3
        with pytest.raises(SecureSumError):
            find((b"book", b"other"), refuse)
    assert len(asked) == 6
