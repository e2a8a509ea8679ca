"""Keys that a member of a federation makes and is given: of the encryption, and the federation's.

The federation's key is 32 random bytes, made once by the first who makes an encryption key, and
sealed to the X25519 key of everybody who may hold the models. Both pass through the server, which
cannot read them.

Guarantee: a member holds the encryption key whose fingerprint a maker that the plan allows signed
for this roster and epoch; the federation's key is taken once and never replaced.
Assumes: whoever makes keys makes them honestly and keeps them.
Not covered: forward secrecy: whoever is given the federation's key can open all states that were
sealed under it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from secure_fl.crypto.envelope import NO_KEY, Phase, read_header
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.sealing import seal_to
from secure_fl.crypto.strict_json import (
    canonical,
    fields,
    from_base64,
    malformed,
    parse_object,
    to_base64,
)
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.plan import Plan
from secure_fl.federation.wire import Wire
from secure_fl.he.bfv import check_noise_budget
from secure_fl.he.ceremony import (
    GrantedKey,
    GrantExpected,
    accept_grant,
    granted_fingerprint,
    make_grant,
    new_key,
)
from secure_fl.he.keys import HolderKey, PublicKey, SecretKey
from secure_fl.secure_sum.block_codec import ClientCipher, HolderCipher
from secure_fl.secure_sum.plan import RoundPlan

_SECRET = 32
_KEPT: dict[str, type | tuple[type, ...]] = {
    "made": list,
    "own": list,
    "used": list,
    "former": str,
    "grant": str,
    "secret": str,
}


class Keyring:
    """One member's keys.

    Args:
        wire: of the member.
        plan: of the federation.
        shared: what parties of one process share.
        randomness: uniform secret bytes.
    """

    def __init__(
        self,
        wire: Wire,
        plan: Plan,
        shared: Shared,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._wire, self._plan, self._shared = wire, plan, shared
        self._randomness = randomness
        self._granted: GrantedKey | None = None
        self._own: HolderKey | None = None
        self._used = frozenset[bytes]()
        self._made: tuple[int, list[bytes]] = (-1, [])
        self._former: GrantedKey | None = None
        """Of the epoch before: a client that is made again may be at the end of its last round."""
        self._taken = {"former": b"", "grant": b"", "secret": b""}
        self.secret = b""
        """The federation's key; empty until it is given."""

    @property
    def fingerprint(self) -> bytes:
        """Of the encryption key in force; zeros without one."""
        return NO_KEY if self._granted is None else self._granted.key.fingerprint

    def make(self, number: int, *, grant: bool, secret: bool) -> list[bytes]:
        """Make what is missing from round `number` on: signed messages for everybody. Asked again,
        this gives the same bytes: one epoch has one key. Raises RefusedError: `wrong-role` where
        the plan lets another member make keys; `noise-budget`.
        """
        wire, plan = self._wire, self._plan
        if wire.identity.name not in plan.key_makers:
            problem, remedy = "makes no keys", "ask another"
            raise RefusedError(Reason.WRONG_ROLE, problem, "member", wire.identity.name, remedy)
        if self._made[0] == number:
            return self._made[1]
        made = []
        if grant and plan.parameters is not None:
            check_noise_budget(plan.parameters, plan.key_holder, len(plan.clients))
            self._own = new_key(plan.parameters, plan.key_holder)
            epoch = plan.epoch(number, wire.roster)
            made.append(make_grant(wire.identity, wire.roster, self._own, epoch, plan.protection))
        if secret and not self.secret:
            fresh, context = self._randomness(_SECRET), self._context
            boxes = {
                name: to_base64(
                    seal_to(wire.roster.member(name).agree, fresh, context + name.encode())
                )
                for name in plan.holders
            }
            made.append(wire.sign(Phase.SECRET, {"sealed": boxes}))
        self._made = (number, made)
        return made

    def take_grant(self, data: bytes) -> None:
        """The encryption key of an epoch. Raises RefusedError: the grant's reasons."""
        if data == self._taken["grant"]:
            return
        expected = grant_expected(self._plan, self._wire.roster, data, self._used)
        name, before = self._wire.identity.name, self._granted
        if self._wire.identity.role == "authority":
            fingerprint = granted_fingerprint(data, self._wire.roster, expected)
            if self._own is None or self._own.fingerprint != fingerprint:
                problem = "not the key that this member made"
                raise RefusedError(Reason.WRONG_KEY, problem, "grant", name, "stop")
            assert self._own.public is not None
            self._granted = GrantedKey(self._own.public, expected.epoch)
        else:
            self._granted = accept_grant(data, self._wire.roster, self._wire.identity, expected)
        self._used |= {self._granted.key.fingerprint}
        self._former, self._taken["former"] = before, self._taken["grant"]
        self._taken["grant"] = data

    def take_secret(self, data: bytes) -> None:
        """The federation's key. Raises RefusedError: the message's reasons; `wrong-role`;
        `re-keyed` for another than the first; `unknown-client` where nothing is sealed to this
        member.
        """
        name, most = self._wire.identity.name, self._plan.most(Phase.SECRET)
        role = "authority" if self._plan.by_authority else "client"
        sealed = self._wire.open(data, most=most, role=role).facts["sealed"]
        if name not in sealed:
            problem = "nothing is sealed to this member"
            raise RefusedError(Reason.UNKNOWN_CLIENT, problem, "key", name, "join")
        box = from_base64(sealed[name], "key")
        secret = self._wire.identity.open_sealed(box, self._context + name.encode())
        if self.secret not in (b"", secret) or len(secret) != _SECRET:
            remedy = "keep the first"
            raise RefusedError(Reason.RE_KEYED, "the federation has a key", "key", name, remedy)
        self.secret, self._taken["secret"] = secret, data

    def encode(self) -> bytes:
        """All of it, secrets included: it is to be sealed."""
        number, made = self._made
        own = [] if self._own is None else [self._own.secret.data]
        own += [] if self._own is None or self._own.public is None else [self._own.public.data]
        facts = {
            "made": [number, *(to_base64(data) for data in made)],
            "own": [to_base64(data) for data in own],
            "used": sorted(fingerprint.hex() for fingerprint in self._used),
        }
        return canonical(facts | {name: to_base64(data) for name, data in self._taken.items()})

    def take_up(self, data: bytes) -> None:
        """Go on with what `encode` gave. Raises RefusedError: `malformed`, or a message's reasons:
        it is another member's.
        """
        found = fields(parse_object(data, "keys"), "keys", _KEPT)
        try:
            number, *made = found["made"]
            self._made = (int(number), [from_base64(text, "keys") for text in made])
            secret, *public = [from_base64(text, "keys") for text in found["own"]] or [b""]
            self._used = frozenset(bytes.fromhex(text) for text in found["used"])
        except (TypeError, ValueError):
            raise malformed("keys", "a field is not what it must be") from None
        parameters = self._plan.parameters
        if secret and parameters is not None:
            shown = PublicKey(parameters, public[0]) if public else None
            self._own = HolderKey(SecretKey(parameters, secret), shown)
        grants = ["grant"] if self._wire.identity.role == "authority" else ["former", "grant"]
        for name in [name for name in grants if found[name]]:
            message = from_base64(found[name], "keys")
            fingerprint = read_header(message).key_fingerprint
            if grants == ["grant"] and self._own and self._own.fingerprint != fingerprint:
                continue  # an authority has made the next key already, and is asked for it again
            self._used -= {fingerprint}
            self.take_grant(message)
        if found["secret"]:
            self.take_secret(from_base64(found["secret"], "keys"))

    def cipher(self, plan: RoundPlan) -> ClientCipher | None:
        """What a client encrypts with in this round. Raises RefusedError: `no-key`, `re-keyed` or
        `stale`: no key is held that serves it.
        """
        if not plan.encrypted:
            return None
        return self._shared.cipher(plan, self._key(plan).for_round(plan.round))

    def holder(self, plan: RoundPlan) -> HolderCipher | None:
        """What opens this round's sums, where this member may. Raises RefusedError: as `cipher`."""
        if not plan.encrypted:
            return None
        key = self._key(plan).for_round(plan.round)
        own = HolderKey(key) if isinstance(key, SecretKey) else self._own
        return self._shared.holder(plan, own)

    def _key(self, plan: RoundPlan) -> GrantedKey:
        if self._granted is None:
            remedy = "wait for the ceremony"
            raise RefusedError(Reason.NO_KEY, "none was given", "key", plan.round, remedy)
        former = self._former
        if former is not None and plan.key_fingerprint == former.key.fingerprint:
            return former
        if plan.key_fingerprint != self.fingerprint:
            found = plan.key_fingerprint.hex()[:16]
            raise RefusedError(
                Reason.RE_KEYED, "another is in force", "key", found, "ask for the grant"
            )
        return self._granted

    @property
    def _context(self) -> bytes:
        return b"secure-fl federation key 1|" + self._plan.digest + b"|"


def grant_expected(
    plan: Plan, roster: Roster, data: bytes, used: frozenset[bytes] = frozenset()
) -> GrantExpected:
    """What a grant must be, made by whom its header names. Raises RefusedError: `wrong-role` for a
    maker that the plan does not allow; `malformed`.
    """
    header = read_header(data)
    if header.sender not in plan.key_makers or plan.parameters is None:
        remedy = "ask another"
        raise RefusedError(Reason.WRONG_ROLE, "makes no keys", "grant", header.sender, remedy)
    epoch, maker = plan.epoch(header.round, roster), header.sender
    return GrantExpected(maker, plan.key_holder, plan.parameters, plan.protection, epoch, used)
