"""The encryption key reaches its members, nobody else, and only for its epoch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from he.helpers import People, people

from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.he.bfv import BfvClient, BfvHolder, BfvServer
from secure_fl.he.ceremony import (
    Epoch,
    GrantExpected,
    accept_grant,
    granted_fingerprint,
    make_grant,
    new_key,
)
from secure_fl.he.keys import HolderKey, PublicKey, SecretKey
from secure_fl.he.parameters import BFV_4096, BFV_4096_58, KeyHolder

SUITE = "bfv+masked"


def granted(crowd: People, key_holder: KeyHolder) -> tuple[HolderKey, bytes, GrantExpected]:
    holder = crowd.clients[0] if key_holder == "clients" else crowd.authority
    key, epoch = new_key(BFV_4096, key_holder), Epoch.of(5, crowd.roster)
    return (
        key,
        make_grant(holder, crowd.roster, key, epoch, SUITE),
        GrantExpected(holder.name, key_holder, BFV_4096, SUITE, epoch),
    )


@pytest.mark.parametrize("key_holder", ["clients", "authority"])
def test_from_ceremony_to_opened_sum(key_holder: KeyHolder) -> None:
    crowd = people()
    key, grant, expected = granted(crowd, key_holder)
    server = BfvServer(BFV_4096, granted_fingerprint(grant, crowd.roster, expected))
    total = server.new_sum(2)
    for client in crowd.clients:
        mine = accept_grant(grant, crowd.roster, client, expected).for_round(6)
        assert isinstance(mine, SecretKey if key_holder == "clients" else PublicKey)
        server.add(total, BfvClient(mine).encrypt(np.array([1, 2], np.uint64)))
    holder = key
    if key_holder == "clients":
        last = accept_grant(grant, crowd.roster, crowd.clients[2], expected).key
        assert isinstance(last, SecretKey)
        holder = HolderKey(last)
    assert BfvHolder(holder).decrypt(server.finish(total), 2).tolist() == [3, 6]


def test_the_server_cannot_open_the_grant() -> None:
    crowd = people()
    key, grant, expected = granted(crowd, "clients")
    data = key.secret.data
    assert not any(data[k : k + 16] in grant for k in range(0, len(data), 16))
    for outsider in (crowd.server, crowd.authority, Identity.generate("stranger")):
        with pytest.raises(RefusedError) as caught:
            accept_grant(grant, crowd.roster, outsider, expected)
        assert caught.value.reason is Reason.UNKNOWN_CLIENT
    impostor = Identity.generate("clinic-1")
    with pytest.raises(RefusedError) as caught:
        accept_grant(grant, crowd.roster, impostor, expected)
    assert caught.value.reason is Reason.WRONG_KEY


def test_the_secret_key_of_an_authority_is_not_in_its_grant() -> None:
    key, grant, _ = granted(people(), "authority")
    assert not any(key.secret.data[k : k + 16] in grant for k in range(0, len(key.secret.data), 16))


def test_keys_rotate() -> None:
    crowd = people(rotation_rounds=4)
    assert [Epoch.of(k, crowd.roster) for k in (0, 3, 4)] == [Epoch(0, 3), Epoch(0, 3), Epoch(4, 7)]
    _, grant, expected = granted(crowd, "clients")
    mine = accept_grant(grant, crowd.roster, crowd.clients[1], expected)
    assert mine.for_round(4) == mine.for_round(7)
    for late in (3, 8):
        with pytest.raises(RefusedError) as caught:
            mine.for_round(late)
        assert caught.value.reason is Reason.STALE
    used = replace(expected, used=frozenset([mine.key.fingerprint]))
    with pytest.raises(RefusedError) as caught:
        accept_grant(grant, crowd.roster, crowd.clients[1], used)
    assert caught.value.reason is Reason.REPLAYED


def test_a_revocation_needs_a_new_key() -> None:
    """The old grant is bound to the old roster, and the new one has nothing for the revoked."""
    crowd = people()
    key, grant, expected = granted(crowd, "clients")
    later = crowd.roster.revoke("clinic-1")
    with pytest.raises(RefusedError) as caught:
        accept_grant(grant, later, crowd.clients[2], expected)
    assert caught.value.reason is Reason.WRONG_ROSTER
    fresh = new_key(BFV_4096, "clients")
    assert fresh.fingerprint != key.fingerprint
    second = make_grant(crowd.clients[0], later, fresh, expected.epoch, SUITE)
    assert accept_grant(second, later, crowd.clients[2], expected).key == fresh.secret
    with pytest.raises(RefusedError) as caught:
        accept_grant(second, later, crowd.clients[1], expected)
    assert caught.value.reason is Reason.UNKNOWN_CLIENT


def test_refusals() -> None:
    crowd = people()
    key, grant, expected = granted(crowd, "clients")
    reader = crowd.clients[1]
    other = make_grant(crowd.clients[2], crowd.roster, key, expected.epoch, SUITE)
    table = [
        (Reason.WRONG_ROLE, other, expected),
        (Reason.WRONG_ROLE, grant, replace(expected, key_holder="authority")),
        (Reason.WRONG_PARAMETERS, grant, replace(expected, parameters=BFV_4096_58)),
        (Reason.WRONG_PARAMETERS, grant, replace(expected, epoch=Epoch(4, 9))),
        (Reason.STALE, grant, replace(expected, epoch=Epoch(8, 11))),
        (Reason.WRONG_SUITE, grant, replace(expected, suite="masked")),
        (Reason.BIT_FLIPPED, grant[:-5] + b"x" + grant[-4:], expected),
        (Reason.TRUNCATED, grant[:-5], expected),
    ]
    for reason, data, wanted in table:
        with pytest.raises(RefusedError) as caught:
            accept_grant(data, crowd.roster, reader, wanted)
        assert caught.value.reason is reason
    for wrong in (crowd.server, crowd.authority):
        with pytest.raises(SecureSumError):
            make_grant(wrong, crowd.roster, key, expected.epoch, SUITE)


def test_a_holder_that_sends_another_key_than_it_signed_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowd = people()
    _, _, expected = granted(crowd, "authority")
    key, other = new_key(BFV_4096, "authority"), new_key(BFV_4096, "authority")
    monkeypatch.setattr(
        HolderKey,
        "fingerprint",
        property(lambda self: key.public.fingerprint if key.public else b""),
    )
    crooked = make_grant(crowd.authority, crowd.roster, other, expected.epoch, SUITE)
    with pytest.raises(RefusedError) as caught:
        accept_grant(crooked, crowd.roster, crowd.clients[0], expected)
    assert caught.value.reason is Reason.WRONG_KEY


def test_every_key_is_fresh() -> None:
    """No rank-seeded or constant secrets: ten keys, ten fingerprints, and no words in common."""
    keys = [new_key(BFV_4096, "clients") for _ in range(10)]
    assert len({key.fingerprint for key in keys}) == 10
    words = [np.frombuffer(key.secret.data, np.uint64) for key in keys]
    assert not np.intersect1d(words[0], words[1]).size
    assert repr(keys[0]).count("data") == 0
