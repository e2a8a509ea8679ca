"""The roster: who takes part, signed by the coordinator; whom it no longer trusts; how often the
encryption key is renewed.

Guarantee: two parties that agree on `digest` agree on every member, key and rule in it.
Assumes: the coordinator's public key is known from elsewhere.
Not covered: a coordinator that signs two rosters of one revision; parties compare `digest` in every
round, so that stops the round.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from secure_fl.crypto.identities import Identity, Member, check_name
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.strict_json import canonical, fields, from_hex, malformed, parse_object
from secure_fl.errors import SecureSumError

_TEXTS, _NUMBERS = {"format": str, "federation": str}, {"revision": int, "rotation_rounds": int}
_ROSTER = {**_TEXTS, **_NUMBERS, "members": list, "revoked": list}


@dataclass(frozen=True)
class RosterMark:
    """What must be remembered of a roster so that an older one, or another of the same revision, is
    known for what it is.

    Args:
        federation: its name.
        revision: which counts up.
        digest: 32 bytes over all of the roster.
        revoked: fingerprints that no later revision may bring back.
    """

    federation: str
    revision: int
    digest: bytes
    revoked: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """JSON values, but for the federation's name."""
        revoked = list(self.revoked)
        return {"revision": self.revision, "digest": self.digest.hex(), "revoked": revoked}

    @classmethod
    def from_document(cls, federation: str, value: object) -> RosterMark:
        """The inverse of `document`. Raises RefusedError: `malformed`."""
        found = fields(value, "seen rosters", {"revision": int, "digest": str, "revoked": list})
        digest = from_hex(found["digest"], "digest", 32)
        return cls(federation, found["revision"], digest, _fingerprints(found["revoked"]))


@dataclass(frozen=True)
class Roster:
    """Members in order of name.

    Args:
        federation: its name.
        members: everyone trusted now; names and keys are unique.
        rotation_rounds: R, rounds that one encryption key serves.
        revision: counts up with every change.
        revoked: fingerprints that no later revision may bring back.
    """

    federation: str
    members: tuple[Member, ...]
    rotation_rounds: int = 10
    revision: int = 1
    revoked: tuple[str, ...] = ()
    _by_name: dict[str, Member] = field(init=False, repr=False, compare=False, hash=False)
    _digest: bytes = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        check_name(self.federation, "federation")
        object.__setattr__(
            self, "members", tuple(sorted(self.members, key=lambda member: member.name))
        )
        object.__setattr__(self, "revoked", tuple(sorted(set(self.revoked))))
        for what in ("name", "sign", "agree"):
            if len({getattr(member, what) for member in self.members}) != len(self.members):
                remedy = "every member needs its own name and keys"
                raise SecureSumError("two members share one", what, self.federation, remedy)
        if any(member.fingerprint in self.revoked for member in self.members):
            problem, remedy = "a member is revoked", "let it make a new identity"
            raise RefusedError(Reason.REVOKED_CLIENT, problem, "members", self.federation, remedy)
        if self.rotation_rounds < 1 or self.revision < 1:
            problem, remedy = "must be at least 1", "1 renews the key in every round"
            raise SecureSumError(
                problem, "rotation_rounds, revision", (self.rotation_rounds, self.revision), remedy
            )
        object.__setattr__(self, "_by_name", {member.name: member for member in self.members})
        digest = hashlib.sha256(b"secure-fl roster 1|" + canonical(self._document())).digest()
        object.__setattr__(self, "_digest", digest)

    @property
    def digest(self) -> bytes:
        """32 bytes over all of it: hash(R) of the protocol."""
        return self._digest

    @property
    def mark(self) -> RosterMark:
        """What a reader remembers of this roster, to refuse an older one later."""
        return RosterMark(self.federation, self.revision, self.digest, self.revoked)

    def names(self, role: str = "client") -> tuple[str, ...]:
        """Names of a role, in order."""
        return tuple(member.name for member in self.members if member.role == role)

    def member(self, name: str) -> Member:
        """The member of that name. Raises RefusedError: `unknown-client`."""
        found = self._by_name.get(name)
        if found is None:
            remedy = "join through the coordinator"
            raise RefusedError(Reason.UNKNOWN_CLIENT, "not on the roster", "sender", name, remedy)
        return found

    def revoke(self, name: str) -> Roster:
        """The next revision without that member. Its digest differs, so the encryption key is made
        anew. Raises RefusedError: `unknown-client`.
        """
        gone = self.member(name)
        rest = tuple(member for member in self.members if member.name != name)
        revoked = (*self.revoked, gone.fingerprint)
        return replace(self, members=rest, revision=self.revision + 1, revoked=revoked)

    def add(self, cards: Iterable[bytes]) -> Roster:
        """The next revision with these identity cards.

        Raises:
            RefusedError: a card whose signature is wrong, or that is revoked.
            SecureSumError: a name or key is taken.
        """
        members = (*self.members, *map(Member.from_card, cards))
        return replace(self, members=members, revision=self.revision + 1)

    def follows(self, earlier: RosterMark) -> None:
        """Check that this roster is the one of that mark, or may replace it.

        Raises:
            RefusedError: `wrong-federation`, `rolled-back` for a revision that is not newer, or
                `revoked-client` for one that forgets a revocation or has a revoked member.
        """
        if self.federation != earlier.federation:
            problem, remedy = "another federation's roster", f"use {earlier.federation}'s"
            raise RefusedError(Reason.WRONG_FEDERATION, problem, "roster", self.federation, remedy)
        if self.revision <= earlier.revision and self.digest != earlier.digest:
            problem = "not newer than the roster in force"
            remedy = f"use revision {earlier.revision} or a later one"
            raise RefusedError(Reason.ROLLED_BACK, problem, "revision", self.revision, remedy)
        members = {member.fingerprint for member in self.members}
        if not set(earlier.revoked) <= set(self.revoked) or members & set(earlier.revoked):
            problem, remedy = "it forgets a revocation", "keep every revocation"
            raise RefusedError(Reason.REVOKED_CLIENT, problem, "revoked", self.revision, remedy)

    def sign(self, coordinator: Identity) -> bytes:
        """The roster as bytes that the coordinator signed, for `open`."""
        document = self._document()
        signature = coordinator.sign(b"roster", canonical(document)).hex()
        return canonical({"roster": document, "signature": signature})

    @classmethod
    def open(cls, data: bytes, coordinator: Member) -> Roster:
        """Read a signed roster.

        Raises:
            RefusedError: `malformed` or `wrong-signature`.
            SecureSumError: a roster that contradicts itself.
        """
        outer = fields(parse_object(data, "roster"), "roster", {"roster": dict, "signature": str})
        coordinator.verify(
            b"roster", canonical(outer["roster"]), from_hex(outer["signature"], "signature", 64)
        )
        found = fields(outer["roster"], "roster", _ROSTER)
        if found["format"] != "secure-fl roster 1":
            raise malformed("roster", "unknown format")
        members = tuple(Member.from_document(value) for value in found["members"])
        rules = (found["rotation_rounds"], found["revision"], _fingerprints(found["revoked"]))
        return cls(found["federation"], members, *rules)

    def _document(self) -> dict[str, object]:
        return {
            "format": "secure-fl roster 1",
            "federation": self.federation,
            "revision": self.revision,
            "rotation_rounds": self.rotation_rounds,
            "members": [member.document() for member in self.members],
            "revoked": list(self.revoked),
        }


def _fingerprints(texts: Iterable[object]) -> tuple[str, ...]:
    return tuple(from_hex(text, "revoked", 32).hex() for text in texts)
