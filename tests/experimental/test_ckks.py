"""The key-recovery attack on CKKS works on raw decryptions and fails on what our key holder
gives out.

Li and Micciancio, "On the Security of Homomorphic Encryption on Approximate Numbers", EUROCRYPT
2021. Own keys, own data: a demonstration of why a raw decryption must never leave the key holder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as api
from he.helpers import pack, parties, unpack
from he.standard import security_level
from numpy.typing import NDArray

from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.experimental.ckks import (
    CKKS_8192,
    LARGEST,
    WARNING,
    CkksClient,
    CkksHolder,
    CkksServer,
    CkksWarning,
)
from secure_fl.he.bfv import BfvClient
from secure_fl.he.ciphertexts import HEAD_BYTES, Kind, read_body
from secure_fl.he.keys import HolderKey
from secure_fl.he.parameters import BFV_4096, KeyHolder
from secure_fl.he.seal_bridge import SealBridge

pytestmark = pytest.mark.filterwarnings("ignore::secure_fl.experimental.ckks.CkksWarning")
SLOTS = CKKS_8192.capacity


@dataclass
class Ckks:
    key: HolderKey
    client: CkksClient
    server: CkksServer
    holder: CkksHolder


def ckks(key_holder: KeyHolder = "clients") -> Ckks:
    key = HolderKey.generate(SealBridge(CKKS_8192), key_holder)
    client = CkksClient(key.public or key.secret)
    return Ckks(key, client, CkksServer(CKKS_8192, client.fingerprint), CkksHolder(key))


@pytest.fixture(scope="module", params=["clients", "authority"])
def party(request: pytest.FixtureRequest) -> Ckks:
    return ckks(request.param)


def summed(party: Ckks, vectors: NDArray[np.int64]) -> bytes:
    total = party.server.new_sum(vectors.shape[1])
    for vector in vectors:
        party.server.add(total, party.client.encrypt(vector))
    return party.server.finish(total)


@pytest.mark.parametrize("clients", [1, 3, 16])
def test_sums_are_the_integers_themselves_to_the_edge(party: Ckks, clients: int) -> None:
    rng, share = np.random.default_rng(clients), LARGEST // clients
    vectors = rng.integers(-share, share + 1, (clients, SLOTS + 5))
    vectors[:, 0], vectors[:, 1] = share, -share
    np.testing.assert_array_equal(
        party.holder.decrypt(summed(party, vectors), SLOTS + 5), vectors.sum(0)
    )


def test_equal_to_bfv_and_to_plain_addition() -> None:
    rng, exact, close = np.random.default_rng(3), parties(), ckks()
    low, high = rng.integers(-30_000, 30_001, (2, 5, 700))
    total = exact.server.new_sum(700)
    for k in range(5):
        exact.server.add(total, exact.client.encrypt(pack(low[k], high[k], BFV_4096.plain_modulus)))
    bfv = np.concatenate(
        unpack(exact.holder.decrypt(exact.server.finish(total), 700), BFV_4096.plain_modulus)
    )
    approximate = close.holder.decrypt(summed(close, np.concatenate([low, high], axis=1)), 1400)
    np.testing.assert_array_equal(bfv, approximate)
    np.testing.assert_array_equal(bfv, np.concatenate([low.sum(0), high.sum(0)]))


def test_it_warns_and_says_why() -> None:
    key = HolderKey.generate(SealBridge(CKKS_8192), "clients")
    with pytest.warns(CkksWarning, match="gives away the secret key"):
        CkksClient(key.secret)
    with pytest.warns(CkksWarning, match="Prefer"):
        CkksHolder(key)
    assert "bfv" in WARNING


def test_the_holder_has_no_way_to_a_raw_decryption() -> None:
    """Public names give integers or nothing."""
    holder = ckks().holder
    assert [name for name in dir(holder) if not name.startswith("_")] == [
        "decrypt",
        "fingerprint",
        "parameters",
    ]
    assert CkksHolder.decrypt.__annotations__["return"] == "Integers"


def test_refusals(party: Ckks) -> None:
    body = summed(party, np.ones((1, 4), np.int64))
    other = ckks()
    foreign = summed(other, np.ones((1, 4), np.int64))
    forged = foreign[:41] + party.key.fingerprint + foreign[73:]
    flipped = bytearray(body)
    flipped[HEAD_BYTES + 4 * 8192 - 1] ^= 0x80
    beyond = summed(party, np.full((2, 4), LARGEST, np.int64))
    table = [
        (Reason.RE_KEYED, foreign),
        (Reason.NOT_ON_GRID, forged),
        (Reason.OUT_OF_RANGE, beyond),
        (Reason.TRUNCATED, body[:-9]),
    ]
    for reason, bad in [*table, (Reason.NOT_ON_GRID, bytes(flipped))]:
        with pytest.raises(RefusedError) as caught:
            party.holder.decrypt(bad, 4)
        assert caught.value.reason is reason
    for wrong in (
        np.array([LARGEST + 1]),
        np.array([np.iinfo(np.int64).min]),
        np.array([1.5]),
        np.zeros(0, np.int64),
    ):
        with pytest.raises(SecureSumError):
            party.client.encrypt(wrong)  # type: ignore[arg-type]
    with pytest.raises(RefusedError):
        CkksClient(parties().key.secret)
    with pytest.raises(RefusedError):
        BfvClient(party.key.public or party.key.secret)


def test_a_server_that_adds_a_fraction_is_refused() -> None:
    """Half a grid step, added without the key, would leak one noise bit a query; it stops the
    opening instead.
    """
    party = ckks()
    bridge, encoder = party.holder._bridge, party.holder._encoder
    total = party.server.new_sum(SLOTS)
    party.server.add(total, party.client.encrypt(np.zeros(SLOTS, np.int64)))
    half = bridge.api.Plaintext()
    encoder.encode([0.5] * SLOTS, 2.0**CKKS_8192.scale_bits, half)
    total.words[0, 0] += np.frombuffer(bridge.body(half), np.uint64)[-8192:] % np.uint64(
        CKKS_8192.modulus
    )
    with pytest.raises(RefusedError) as caught:
        party.holder.decrypt(party.server.finish(total), SLOTS)
    assert caught.value.reason is Reason.NOT_ON_GRID


class Attacker:
    """Has summed ciphertexts, what was published of their decryptions, and the public
    parameters.
    """

    def __init__(self) -> None:
        self.bridge = SealBridge(CKKS_8192)
        self.encoder: Any = self.bridge.api.CKKSEncoder(self.bridge.context)
        self.q = CKKS_8192.modulus

    def message(self, published: NDArray[np.float64]) -> list[int]:
        """Evaluations of the published message, doubled: slots hold conjugate pairs, and only real
        parts are published.
        """
        plaintext = self.bridge.api.Plaintext()
        self.encoder.encode((2 * published).tolist(), 2.0**CKKS_8192.scale_bits, plaintext)
        return np.frombuffer(
            self.bridge.body(plaintext)[-8 * CKKS_8192.degree :], np.uint64
        ).tolist()

    def recover(
        self, ciphertexts: NDArray[np.uint64], published: list[NDArray[np.float64]]
    ) -> list[int]:
        """Each conjugate pair of evaluation points gives two equations in two unknowns -> the key
        `[N]`, evaluations modulo q.
        """
        (a0, a1), (b0, b1) = (
            tuple(half.tolist() for half in ciphertext) for ciphertext in ciphertexts
        )
        first, second = (self.message(values) for values in published)
        q, n = self.q, CKKS_8192.degree
        key = [0] * n
        for i in range(n // 2):
            k = n - 1 - i
            left, right = (first[i] - a0[i] - a0[k]) % q, (second[i] - b0[i] - b0[k]) % q
            inverse = pow((a1[i] * b1[k] - a1[k] * b1[i]) % q, -1, q)
            key[i] = (left * b1[k] - right * a1[k]) * inverse % q
            key[k] = (a1[i] * right - b1[i] * left) * inverse % q
        return key


def scene() -> tuple[Ckks, bytes, NDArray[np.uint64]]:
    party = ckks()
    vectors = np.random.default_rng(0).integers(-1000, 1001, (5, 2 * SLOTS))
    body = summed(party, vectors)
    words = list(read_body(body, CKKS_8192, party.key.fingerprint, 2 * SLOTS, (Kind.SUM,)).rows())
    return party, body, words


def right_coefficients(party: Ckks, guess: list[int]) -> int:
    real = np.frombuffer(party.key.secret.data, np.uint64)[: CKKS_8192.degree].tolist()
    return sum(a == b for a, b in zip(real, guess, strict=True))


def test_the_attack_recovers_the_whole_key_from_raw_decryptions() -> None:
    party, _, words = scene()
    raw = []
    for ciphertext in words:  # what a careless key holder would publish
        plaintext = party.holder._bridge.api.Plaintext()
        party.holder._decryptor.decrypt(party.holder._bridge.ciphertext(ciphertext), plaintext)
        raw.append(np.array(party.holder._encoder.decode_double(plaintext)))
    assert right_coefficients(party, Attacker().recover(words, raw)) == CKKS_8192.degree


def test_the_attack_fails_on_what_our_holder_gives_out() -> None:
    party, body, words = scene()
    opened = party.holder.decrypt(body, 2 * SLOTS).astype(np.float64).reshape(2, SLOTS)
    assert right_coefficients(party, Attacker().recover(words, list(opened))) < 10


def test_the_set_is_what_its_docstring_says() -> None:
    bits = [prime.bit_length() for prime in CKKS_8192.primes]
    assert CKKS_8192.primes == tuple(
        prime.value() for prime in api.CoeffModulus.Create(CKKS_8192.degree, bits)
    )
    assert security_level(CKKS_8192, "authority") == (192, 192)
    assert CKKS_8192.lazy_additions == 16
