"""What goes wrong with TenSEAL used plainly, each shown to be real, and each shown not to
be ours.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tenseal as ts
import tenseal.sealapi as api
from he.helpers import parties, people

from secure_fl.crypto.envelope import Expected, Header, Phase, Seen, open_envelope, sign_envelope
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.he.bfv import BfvServer
from secure_fl.he.ciphertexts import HEAD_BYTES, Kind, body_bytes
from secure_fl.he.parameters import BFV_4096


def ckks_context() -> Any:
    context = ts.context(
        ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 60], n_threads=1
    )
    context.global_scale = 2.0**40
    return context


def test_a_tenseal_adds_under_different_keys_without_a_word() -> None:
    one, two = ckks_context(), ckks_context()
    garbage = ts.ckks_vector(one, [1.0] * 10) + ts.ckks_vector(two, [1.0] * 10)
    assert abs(garbage.decrypt()[0] - 2) > 1


def test_a_ours_refuses_another_key() -> None:
    one, two = parties(), parties()
    total = one.server.new_sum(4)
    with pytest.raises(RefusedError) as caught:
        one.server.add(total, two.client.encrypt(np.zeros(4, np.uint64)))
    assert caught.value.reason is Reason.RE_KEYED


def test_b_a_public_tenseal_context_still_decrypts() -> None:
    context = ckks_context()
    vector = ts.ckks_vector(context, [3.25])
    context.make_context_public()
    assert not context.is_private()
    plaintext = api.Plaintext()
    context.decryptor().data.decrypt(vector.ciphertext()[0], plaintext)
    encoder = api.CKKSEncoder(context.seal_context().data)
    assert encoder.decode_double(plaintext)[0] == pytest.approx(3.25)
    with pytest.raises(ValueError, match="hold a Secret key"):
        _ = ts.context_from(context.serialize(save_secret_key=False)).secret_key()


def reachable(start: object) -> list[object]:
    """Everything that can be reached from an object through attributes and containers."""
    found: dict[int, object] = {}
    waiting = [start]
    while waiting:
        item = waiting.pop()
        if (
            id(item) in found
            or isinstance(item, type)
            or type(item).__name__ in {"module", "function", "dict_keys"}
        ):
            continue
        found[id(item)] = item
        waiting += gc.get_referents(item)
        waiting += list(getattr(item, "__dict__", {}).values())
    return list(found.values())


SECRETS = {
    "SecretKey",
    "Decryptor",
    "KeyGenerator",
    "Encryptor",
    "HolderKey",
    "BfvHolder",
    "BfvClient",
}


def test_b_our_server_reaches_no_key_and_no_decryptor() -> None:
    party = parties()
    total = party.server.new_sum(4)
    party.server.add(total, party.client.encrypt(np.zeros(4, np.uint64)))
    names = {type(item).__name__ for item in [*reachable(party.server), *reachable(total)]}
    assert "SEALContext" in names, "the search must see SEAL's objects"
    assert not names & SECRETS
    planted = {type(item).__name__ for item in reachable([party.server, party.holder])}
    assert planted & SECRETS, "and would find a planted one"


def test_b_a_server_process_works_from_bytes_alone(tmp_path: Path) -> None:
    """Another process adds and subtracts with a fingerprint only; whatever secret types SEAL has,
    it never makes one.
    """
    party = parties()
    for k in range(2):
        (tmp_path / f"up{k}").write_bytes(party.client.encrypt(np.array([7 + k, 9], np.uint64)))
    code = f"""
import sys, numpy as np, tenseal.sealapi as api
def forbidden(*a, **k): raise SystemExit("a key was made")
for name in ("SecretKey", "Decryptor", "KeyGenerator", "Encryptor"): setattr(api, name, forbidden)
from pathlib import Path
from secure_fl.he.bfv import BfvServer
from secure_fl.he.parameters import BFV_4096
server = BfvServer(BFV_4096, bytes.fromhex("{party.key.fingerprint.hex()}"))
total = server.new_sum(2)
for k in range(2): server.add(total, Path(sys.argv[1], f"up{{k}}").read_bytes())
Path(sys.argv[1], "sum").write_bytes(server.subtract_plain(total, np.array([5, 6], np.uint64)))
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path)], check=True)
    assert party.holder.decrypt((tmp_path / "sum").read_bytes(), 2).tolist() == [10, 12]


def test_c_mutants_load_silently_in_tenseal() -> None:
    context = ckks_context()
    good, rng = ts.ckks_vector(context, [1.0] * 3000).serialize(), np.random.default_rng(0)
    silent = 0
    for _ in range(30):
        mutant = bytearray(good)
        mutant[int(rng.integers(len(mutant)))] ^= 1 << int(rng.integers(8))
        try:
            ts.ckks_vector_from(context, bytes(mutant)).decrypt()
            silent += 1
        except (RuntimeError, ValueError, TypeError):
            pass
    assert silent >= 5


def test_c_every_mutant_of_ours_is_refused() -> None:
    party, crowd = parties(), people(1)
    header, expected = upload(party.key.fingerprint, crowd.clients[0].name, crowd.roster.digest)
    message = sign_envelope(crowd.clients[0], header, party.client.encrypt(np.zeros(4, np.uint64)))
    assert open_envelope(message, crowd.roster, expected)
    rng = np.random.default_rng(0)
    for _ in range(300):
        mutant = bytearray(message)
        mutant[int(rng.integers(len(mutant)))] ^= 1 << int(rng.integers(8))
        with pytest.raises(RefusedError):
            open_envelope(bytes(mutant), crowd.roster, expected, Seen())
    for cut in rng.integers(0, len(message), 100):
        with pytest.raises(RefusedError):
            open_envelope(message[: int(cut)], crowd.roster, expected, Seen())


def test_d_ciphertexts_are_malleable_and_envelopes_are_not() -> None:
    party, crowd = parties(), people(1)
    header, expected = upload(party.key.fingerprint, crowd.clients[0].name, crowd.roster.digest)
    message = sign_envelope(
        crowd.clients[0], header, party.client.encrypt(np.array([1, 2], np.uint64))
    )
    body = bytearray(open_envelope(message, crowd.roster, expected)[1])
    place = HEAD_BYTES + 64 + 2  # third byte of the first word
    before = body[place]
    body[place] ^= 0x80
    shift = (body[place] - before) * 2**16 // 2**14  # q/t is 2^14
    total = party.server.new_sum(2)
    party.server.add(total, bytes(body))
    assert party.holder.decrypt(party.server.finish(total), 2).tolist() == [
        (1 + shift) % BFV_4096.plain_modulus,
        2,
    ]
    tampered = message[: -len(body)] + bytes(body)
    with pytest.raises(RefusedError) as caught:
        open_envelope(tampered, crowd.roster, expected)
    assert caught.value.reason is Reason.BIT_FLIPPED


def test_e_no_context_and_no_key_travels_with_a_vector() -> None:
    party = parties()
    body = party.client.encrypt(np.zeros(4096, np.uint64))
    assert len(body) == body_bytes(BFV_4096, 4096, Kind.SEEDED) == HEAD_BYTES + 64 + 4096 * 54 // 8
    assert HEAD_BYTES == 73
    assert len(ckks_context().serialize()) > 100_000, (
        "what NVFlare's decomposer sends with each one"
    )


def test_e_no_key_in_what_leaves_a_client() -> None:
    party = parties()
    body = party.client.encrypt(np.zeros(4096, np.uint64))
    data = party.key.secret.data
    assert not any(data[k : k + 8] in body for k in range(0, len(data), 8))
    assert BfvServer(BFV_4096, party.key.fingerprint).fingerprint == party.key.fingerprint


def upload(fingerprint: bytes, sender: str, digest: bytes) -> tuple[Header, Expected]:
    header = Header(
        "bfv+masked",
        BFV_4096.identifier,
        "hospitals",
        0,
        Phase.UPLOAD,
        3,
        sender,
        fingerprint,
        digest,
    )
    return header, Expected(
        "bfv+masked", BFV_4096.identifier, "hospitals", 0, Phase.UPLOAD, 3, fingerprint
    )
