"""How the encryption key comes into being and reaches those it is for.

Every epoch of R rounds (`Roster.rotation_rounds`) and after every change of the roster, the holder
makes a fresh key and signs one grant, the same bytes for everyone:

- `authority`: the public key. The secret key stays with the authority.
- `clients`: the secret key under a content key, and the content key sealed to each client's
  X25519 key.

Guarantee: a client that accepts a grant holds the key whose fingerprint the holder signed for this
roster and epoch; the server, which carries the grant, learns the fingerprint and nothing more.
Assumes: the holder makes the key honestly and keeps it; the members' private keys are theirs alone.
Not covered: under `clients`, any client together with the server opens uploads of this layer: masks
belong below it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from secure_fl.crypto.envelope import (
    Expected,
    Header,
    Phase,
    open_envelope,
    read_header,
    sign_envelope,
)
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.sealing import open_with, seal_to, seal_with
from secure_fl.crypto.strict_json import (
    canonical,
    fields,
    from_base64,
    from_hex,
    malformed,
    parse_object,
    to_base64,
)
from secure_fl.errors import SecureSumError
from secure_fl.he.keys import HolderKey, PublicKey, SecretKey
from secure_fl.he.parameters import KeyHolder, ParameterSet
from secure_fl.he.seal_bridge import SealBridge

_TEXTS = ("format", "key_holder", "parameters", "digest", "fingerprint", "key")
_GRANT = {**dict.fromkeys(_TEXTS, str), "last_round": int, "sealed": dict}


@dataclass(frozen=True)
class Epoch:
    """Rounds that one key serves, both ends included."""

    first_round: int
    last_round: int

    @classmethod
    def of(cls, round_number: int, roster: Roster) -> Epoch:
        """The epoch that a round lies in, by the roster's rotation."""
        first = round_number - round_number % roster.rotation_rounds
        return cls(first, first + roster.rotation_rounds - 1)

    def __contains__(self, round_number: object) -> bool:
        return isinstance(round_number, int) and self.first_round <= round_number <= self.last_round


@dataclass(frozen=True)
class GrantedKey:
    """What a member got from a grant, and when it may be used."""

    key: SecretKey | PublicKey
    epoch: Epoch

    def for_round(self, round_number: int) -> SecretKey | PublicKey:
        """The key, if it serves this round. Raises RefusedError: `stale`."""
        if round_number not in self.epoch:
            served = (self.epoch.first_round, self.epoch.last_round)
            problem = f"the key serves rounds {served[0]} to {served[1]}"
            remedy = "run the key ceremony for this epoch"
            raise RefusedError(Reason.STALE, problem, "round", round_number, remedy)
        return self.key


def make_grant(holder: Identity, roster: Roster, key: HolderKey, epoch: Epoch, suite: str) -> bytes:
    """The signed grant of a fresh key.

    Args:
        holder: the authority, or under `clients` the client that makes the key.
        roster: in force; under `clients` every client on it gets the key.
        key: fresh from `HolderKey.generate`; used for one epoch only.
        epoch: rounds it serves.
        suite: e.g. `bfv+masked`.

    Raises:
        SecureSumError: the holder's role does not fit the kind of key.
    """
    role = _maker(key.key_holder)
    if roster.member(holder.name).role != role:
        remedy = f"let a member of role {role} make it"
        raise SecureSumError("cannot hold this kind of key", "holder", holder.name, remedy)
    material, sealed = (key.public.data, {}) if key.public else _sealed(key, roster, epoch)
    body = {
        "format": "secure-fl grant 1",
        "key_holder": key.key_holder,
        "parameters": key.parameters.name,
        "digest": key.parameters.digest.hex(),
        "fingerprint": key.fingerprint.hex(),
        "last_round": epoch.last_round,
        "key": to_base64(material),
        "sealed": {name: to_base64(box) for name, box in sealed.items()},
    }
    context = (suite, key.parameters.identifier, roster.federation)
    header = Header(
        *context, epoch.first_round, Phase.KEYS, 0, holder.name, key.fingerprint, roster.digest
    )
    return sign_envelope(holder, header, canonical(body))


def _maker(key_holder: str) -> str:
    """The role of whoever makes a key of this kind."""
    return "client" if key_holder == "clients" else "authority"


def _sealed(key: HolderKey, roster: Roster, epoch: Epoch) -> tuple[bytes, dict[str, bytes]]:
    """The secret key under a fresh content key, and the content key sealed to each client."""
    content, context = os.urandom(32), _context(roster, epoch, key.fingerprint)
    boxes = {
        name: seal_to(roster.member(name).agree, content, context + name.encode())
        for name in roster.names("client")
    }
    return seal_with(content, key.secret.data, context), boxes


@dataclass(frozen=True)
class GrantExpected:
    """What a member waits for in a ceremony.

    Args:
        holder: name of the only member who may make the key.
        key_holder: `clients` or `authority`.
        parameters: the federation's set.
        suite: e.g. `bfv+masked`.
        epoch: the coming one.
        used: fingerprints of keys that served before; a key is never used for two epochs.
    """

    holder: str
    key_holder: KeyHolder
    parameters: ParameterSet
    suite: str
    epoch: Epoch
    used: frozenset[bytes] = frozenset()


def granted_fingerprint(data: bytes, roster: Roster, expected: GrantExpected) -> bytes:
    """The checked fingerprint in a grant: all the server takes. Raises as `accept_grant`."""
    _, fingerprint = _open_grant(data, roster, expected)
    return fingerprint


def accept_grant(
    data: bytes, roster: Roster, reader: Identity, expected: GrantExpected
) -> GrantedKey:
    """The key out of a grant.

    Raises:
        RefusedError: any of the envelope's reasons; `malformed`; `wrong-parameters`;
            `replayed` for a key that served before; `unknown-client` where nothing is sealed
            to the reader; `wrong-key` where a box does not open or holds another key than the
            signed fingerprint's.
    """
    grant, fingerprint = _open_grant(data, roster, expected)
    material = from_base64(grant["key"], "grant")
    key: SecretKey | PublicKey
    if expected.key_holder == "authority":
        key = PublicKey(expected.parameters, material)
    else:
        if reader.name not in grant["sealed"]:
            problem, remedy = "nothing is sealed to this member", "ask to join the roster"
            raise RefusedError(Reason.UNKNOWN_CLIENT, problem, "grant", reader.name, remedy)
        context = _context(roster, expected.epoch, fingerprint)
        content = reader.open_sealed(
            from_base64(grant["sealed"][reader.name], "grant"), context + reader.name.encode()
        )
        key = SecretKey(expected.parameters, open_with(content, material, context))
    if key.fingerprint != fingerprint:
        problem = "not the key that was signed for"
        remedy = "stop: the holder signed one key and sent another"
        raise RefusedError(Reason.WRONG_KEY, problem, "grant", fingerprint.hex()[:16], remedy)
    return GrantedKey(key, expected.epoch)


def _open_grant(
    data: bytes, roster: Roster, expected: GrantExpected
) -> tuple[dict[str, Any], bytes]:
    fingerprint, maker = read_header(data).key_fingerprint, _maker(expected.key_holder)
    context = (expected.suite, expected.parameters.identifier, roster.federation)
    first, holder = expected.epoch.first_round, expected.holder
    wanted = Expected(*context, first, Phase.KEYS, 0, fingerprint, sender=holder, role=maker)
    _, body = open_envelope(data, roster, wanted)
    grant = fields(parse_object(body, "grant"), "grant", _GRANT)
    if (
        grant["format"] != "secure-fl grant 1"
        or from_hex(grant["fingerprint"], "grant", 32) != fingerprint
    ):
        raise malformed("grant", "unknown format, or two fingerprints")
    right = (expected.key_holder, expected.parameters.digest.hex(), expected.epoch.last_round)
    problem = f"{right[0]}, {expected.parameters.name}, {right[2]} is expected"
    if (grant["key_holder"], grant["digest"], grant["last_round"]) != right:
        remedy = "agree on one configuration first"
        value = (grant["key_holder"], grant["parameters"], grant["last_round"])
        raise RefusedError(Reason.WRONG_PARAMETERS, problem, "grant", value, remedy)
    if fingerprint in expected.used:
        problem, remedy = "this key served before", "let the holder make a fresh key"
        raise RefusedError(
            Reason.REPLAYED, problem, "key fingerprint", fingerprint.hex()[:16], remedy
        )
    return grant, fingerprint


def new_key(parameters: ParameterSet, key_holder: KeyHolder) -> HolderKey:
    """A fresh key for one epoch."""
    return HolderKey.generate(SealBridge(parameters), key_holder)


def _context(roster: Roster, epoch: Epoch, fingerprint: bytes) -> bytes:
    rounds = f"{roster.federation}|{epoch.first_round}|{epoch.last_round}|".encode("ascii")
    return b"secure-fl grant 1|" + rounds + roster.digest + fingerprint + b"|"
