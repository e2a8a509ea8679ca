"""What a server keeps for others: keys and states that it cannot read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from secure_fl.crypto.envelope import NO_KEY, Phase, read_header
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.strict_json import from_base64, from_hex, to_base64
from secure_fl.federation.parties.calling import Call
from secure_fl.federation.parties.claims import Claim
from secure_fl.federation.parties.keyring import grant_expected
from secure_fl.federation.plan import Plan
from secure_fl.federation.wire import Post, Wire, read_place, shown
from secure_fl.he.ceremony import Epoch, granted_fingerprint
from secure_fl.secure_sum.framing import frames


class KeyDesk:
    """Grants on their way from who makes keys to everybody else."""

    def __init__(self, wire: Wire, plan: Plan) -> None:
        self._wire, self._plan = wire, plan
        self.epoch: Epoch | None = None
        self._used = frozenset[bytes]()
        self._grant, self.secret = b"", b""
        self.maker, self.fingerprint = "", NO_KEY
        self.tried: set[str] = set()

    @property
    def current(self) -> list[bytes]:
        """What a member is given that joins."""
        return [data for data in (self._grant, self.secret) if data]

    def kept(self) -> dict[str, Any]:
        """What a server that is made again goes on with; nothing in it is secret from it."""
        messages = {"grant": to_base64(self._grant), "secret": to_base64(self.secret)}
        return messages | {"used": sorted(one.hex() for one in self._used)}

    def take_up(self, found: Mapping[str, Any]) -> None:
        """Go on with what `kept` gave. Raises RefusedError: a message is not what it must be."""
        self._grant, self.secret = (from_base64(found[name], name) for name in ("grant", "secret"))
        if self._grant:
            expected = grant_expected(self._plan, self._wire.roster, self._grant)
            self.fingerprint = granted_fingerprint(self._grant, self._wire.roster, expected)
            self.epoch, self.maker = expected.epoch, read_header(self._grant).sender
        self._used = frozenset(bytes.fromhex(one) for one in found["used"])

    def missing(self, number: int) -> dict[str, int]:
        """What must be made before round `number`: nothing where both are 0."""
        encrypted = self._plan.parameters is not None
        stale = encrypted and (self.epoch is None or number not in self.epoch)
        return {"grant": int(stale), "secret": int(not self.secret)}

    def ask(self, makers: Sequence[str], number: int) -> tuple[str, bytes] | None:
        """Whom to ask to make what is missing, and the request; None where nobody is left."""
        left = [name for name in makers if name not in self.tried]
        if not left:
            return None
        self.maker = left[0]
        self.tried.add(self.maker)
        epoch = self._plan.epoch(number, self._wire.roster)
        request = self._wire.sign(Phase.MAKE, self.missing(number), number=epoch.first_round)
        return self.maker, request

    def take(self, data: bytes) -> None:
        """What the maker sends. Raises RefusedError: the message's reasons, or `wrong-role` where
        another was asked.
        """
        header = read_header(data)
        if header.sender != self.maker:
            raise RefusedError(Reason.WRONG_ROLE, "was not asked", "maker", header.sender, "wait")
        if header.phase == Phase.KEYS:
            expected = grant_expected(self._plan, self._wire.roster, data, self._used)
            fingerprint = granted_fingerprint(data, self._wire.roster, expected)
            self._grant, self.epoch, self.fingerprint = data, expected.epoch, fingerprint
            self._used |= {fingerprint}
        else:
            role = "authority" if self._plan.by_authority else "client"
            self._wire.open(data, most=self._plan.most(Phase.SECRET), role=role)
            if self.secret:
                problem = "there is one"
                raise RefusedError(Reason.DUPLICATE, problem, "key", header.sender, "keep it")
            self.secret = data
        self.tried = set()


@dataclass
class StateDesk:
    """The sealed state of the place that the federation has reached, and who waits for it.

    Attributes:
        claim: what most appliers signed; before the first round what the federation before had come
            to, and None where there is none.
        call: the attempt that led there; None where no round did.
        signed: their signatures, by name; before the first round what they joined with.
        sealed: the state; empty where nobody has asked for it.
        asked: who was asked for it last, and the request.
        giver: who gave it.
        doubted: who gave states that were none; the others are asked first.
    """

    wire: Wire
    claim: Claim | None = None
    call: Call | None = None
    signed: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    sealed: bytes = field(default=b"", repr=False)
    waiting: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)
    asked: tuple[str, bytes] = ("", b"")
    until: float | None = None
    giver: str = ""
    doubted: set[str] = field(default_factory=set)
    _early: tuple[bytes, bytes] = field(default=(b"", b""), repr=False)

    def held(self, post: Post, data: bytes) -> bool:
        """Take in where somebody was who has joined; whether it can be asked for the state that the
        federation goes on from, and nobody is yet.
        """
        if self.call is not None or self.claim is None:
            return False
        if Claim(from_hex(post.facts["state"], "state", 32), post.place) != self.claim:
            return False
        self.signed = {**self.signed, post.sender: data}
        return self.until is None and not self.sealed

    def reached(self, claim: Claim, call: Call, signed: Mapping[str, bytes]) -> None:
        """Another place; what was kept of the one before is forgotten."""
        digest, sealed = self._early
        self.claim, self.call, self.signed = claim, call, signed
        self.sealed = sealed if digest == claim.state else b""
        self.waiting, self.tried, self.until, self._early = set(), set(), None, (b"", b"")
        self.giver = ""

    def request(self, holders: Sequence[str], until: float) -> tuple[str, bytes] | None:
        """Whom to ask for the state, and the request; None where nobody is left to ask."""
        left = [name for name in holders if name in self.signed and name not in self.tried]
        left.sort(key=self.doubted.__contains__)
        if not left or self.claim is None:
            self.until = None
            return None
        self.tried.add(left[0])
        self.until = until
        facts = {"place": shown(self.claim.place), "part": -1}
        self.asked = left[0], self.wire.sign(Phase.GIVE, facts)
        return self.asked

    def doubt(self, name: str) -> None:
        """Somebody could not open the state, into which nobody looks here: another is asked for it
        again, each once.
        """
        if self.giver:
            self.doubted.add(self.giver)
            self.tried.add(self.giver)
            self.sealed, self.giver = b"", ""
        self.waiting.add(name)

    def again(self, name: str) -> list[bytes]:
        """The request that a holder has still to answer, which may have lost it."""
        return [self.asked[1]] if self.until is not None and self.asked[0] == name else []

    def take(self, post: Post) -> bool:
        """A sealed state; whether it is the one of this place. An authority's may come early.
        Raises RefusedError: `wrong-role`: its sender came to no state; `wrong-phase`: nobody asked.
        """
        authority = self.wire.roster.member(post.sender).role == "authority"
        if not authority and post.sender not in self.signed:
            raise RefusedError(Reason.WRONG_ROLE, "applied no sums", "state", post.sender, "wait")
        digest = from_hex(post.facts["state"], "state", 32)
        if self.claim is None or (post.place, digest) != (self.claim.place, self.claim.state):
            self._early = (digest, post.rest) if authority else self._early
            return False
        if not authority and (self.sealed or post.sender not in self.tried - {self.giver}):
            raise RefusedError(
                Reason.WRONG_PHASE, "nobody asked for it", "state", post.sender, "wait"
            )
        self.sealed, self.until = post.rest, None
        self.giver = "" if authority else post.sender
        return True

    def kept(self) -> dict[str, Any]:
        """What a server that is made again goes on with, but for the sealed state itself."""
        if self.claim is None or self.call is None:
            return {}
        return {
            "state": self.claim.state.hex(),
            "place": shown(self.claim.place),
            "call": self.call.document(),
            "signed": {name: to_base64(data) for name, data in self.signed.items()},
        }

    def take_up(self, found: Mapping[str, Any], sealed: bytes) -> None:
        """Go on with what `kept` gave. Raises RefusedError: `malformed`."""
        if found:
            claim = Claim(from_hex(found["state"], "state", 32), read_place(found["place"]))
            signed = {name: from_base64(text, name) for name, text in found["signed"].items()}
            self.reached(claim, Call.read(found["call"]), signed)
            self.sealed = sealed

    def message(self) -> bytes:
        """The state as it goes to a holder, with what shows it to be the right one."""
        assert self.claim is not None
        place, digest = shown(self.claim.place), self.claim.state.hex()
        call = {} if self.call is None else self.call.document()
        facts = {"place": place, "state": digest, "call": call}
        return self.wire.sign(Phase.STATE, facts, frames([self.sealed, *self.signed.values()]))
