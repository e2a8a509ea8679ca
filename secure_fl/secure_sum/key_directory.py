"""What every party computes alike from the advertised keys: positions, neighbourhoods, keys of
share boxes, the view that is signed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from secure_fl.crypto.derive import hkdf
from secure_fl.crypto.envelope import Phase, Seen
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.sealing import open_with, seal_with
from secure_fl.crypto.shares import SHARE_BYTES, is_share
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.graph import Neighbourhoods, commitment, draw
from secure_fl.secure_sum.masks import pair_seeds
from secure_fl.secure_sum.messages import (
    Advertise,
    Agreement,
    RoundReason,
    RoundRefusedError,
    accept,
)
from secure_fl.secure_sum.plan import RoundPlan

_POSITIONS = struct.Struct(">II")
TAG_BYTES = 16
"""Of a share: enough that nobody finds another share for it."""


@dataclass(frozen=True)
class KeyBook:
    """Everybody who advertised, in order of name; a client's position is its place here. Under
    protections without masks there are no keys: the book is the cohort.
    """

    plan: RoundPlan
    names: tuple[str, ...]
    keys: tuple[Advertise, ...] = ()
    graph: Neighbourhoods | None = None

    @classmethod
    def of(cls, plan: RoundPlan, advertised: Mapping[str, Advertise]) -> KeyBook:
        """The book of these keys, and the graph drawn from their commitment. Raises
        RoundRefusedError: `too-few`: the list is shorter than the plan's n_min; RefusedError:
        `duplicate` for two clients with one key.
        """
        if not plan.masked:
            return cls(plan, plan.cohort)
        need(len(advertised), plan.survivors_needed, "advertised")
        names = tuple(sorted(advertised))
        keys = tuple(advertised[name] for name in names)
        drawn_from = [name.encode() + key.encode() for name, key in zip(names, keys, strict=True)]
        graph = draw(drawn_from, degree=plan.degree, threshold=plan.shares_needed)
        if len({part for key in keys for part in (key.sealing, key.masking)}) != 2 * len(keys):
            problem, remedy = "two clients share a key", "every client makes its own"
            raise RefusedError(Reason.DUPLICATE, problem, "keys", len(keys), remedy)
        return cls(plan, names, keys, graph)

    @classmethod
    def read(cls, plan: RoundPlan, envelopes: Sequence[bytes]) -> KeyBook:
        """The book from the clients' own signed envelopes, as the server passed them on. Raises
        RefusedError: any reason of the envelope's, `unknown-client` for a client outside the
        cohort.
        """
        seen, advertised = Seen(), dict[str, Advertise]()
        for data in envelopes:
            expected = plan.expect(Phase.ADVERTISE, "client")
            header, keys = accept(data, plan.roster, expected, seen, Advertise.decode)
            check_cohort(plan, header.sender)
            keys.check(header.sender)
            advertised[header.sender] = keys
        return cls.of(plan, advertised)

    @cached_property
    def advertised(self) -> Mapping[str, Advertise]:
        """Everybody's keys, by name."""
        return dict(zip(self.names, self.keys, strict=True))

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Everybody's place, by name."""
        return {name: position for position, name in enumerate(self.names)}

    def neighbours(self, position: int) -> tuple[int, ...]:
        """The positions that a client masks with; none without masks."""
        return self.graph.near(position) if self.graph else ()

    def holders(self, position: int) -> tuple[int, ...]:
        """Who holds shares of its secrets; share h + 1 belongs to the h-th."""
        return self.graph.holders(position) if self.graph else ()

    def places(self, holder: int) -> Mapping[int, int]:
        """Of whose secrets a client holds shares, and which of the holders it is there."""
        return self.graph.places(holder) if self.graph else {}

    @property
    def threshold(self) -> int:
        """Shares that open a secret; 0 without masks."""
        return self.graph.threshold if self.graph else 0

    def pair_seeds(
        self, own: int, private: X25519PrivateKey, other: int, blocks: int
    ) -> list[bytes]:
        """Seeds that a client, by its private mask key, shares with another: one a block."""
        theirs = X25519PublicKey.from_public_bytes(self.keys[other].masking)
        (low, high), plan = sorted((own, other)), self.plan
        named = {"round_number": plan.round, "blocks": blocks, "low": low, "high": high}
        return pair_seeds(private, theirs, federation=plan.roster.federation, **named)

    def view(self, dealers: Sequence[int], survivors: Sequence[int]) -> bytes:
        """32 bytes that bind plan, roster, round, every key, who dealt shares, and U. Signed once,
        it is the one set of both openings.
        """
        return _view(self._lists, dealers, survivors)

    def box_context(self, dealer: int, reader: int) -> bytes:
        """What a box of shares is bound to: this round's boxes, its dealer and its reader."""
        return self._boxes + _POSITIONS.pack(dealer, reader)

    @cached_property
    def _lists(self) -> bytes:
        """What a view binds beside dealers and survivors; the same all round."""
        plan = self.plan
        facts = plan.digest, plan.roster.digest, plan.key_fingerprint
        return _bound(*facts, number=plan.round, names=self.names, keys=self.keys)

    @cached_property
    def _boxes(self) -> bytes:
        """What all boxes of the round are for; asked for hundred thousands of times in one."""
        plan = self.plan
        number = plan.round.to_bytes(8, "big")
        return b"secure-fl share box 1|" + plan.digest + plan.roster.digest + number

    def box_key(self, own: int, private: X25519PrivateKey, other: int) -> bytes:
        """The key of the boxes between two clients, 32 bytes: each box is authenticated by it and
        opens for nobody else.
        """
        context = self.box_context(min(own, other), max(own, other))
        theirs = X25519PublicKey.from_public_bytes(self.keys[other].sealing)
        return hkdf(private.exchange(theirs), b"", context, 32)

    def close_box(self, key: bytes, dealer: int, reader: int, rows: Sequence[bytes]) -> bytes:
        """A box of shares for one reader: sealed, behind the tag of each, by which others can tell
        whether a share that is shown later was dealt.
        """
        context = self.box_context(dealer, reader)
        return b"".join(tags(context, rows)) + seal_with(key, b"".join(rows), context)

    def open_box(self, key: bytes, dealer: int, reader: int, box: bytes) -> list[bytes] | None:
        """A reader's shares of a dealer's secrets: of its mask key, then of each block's seed. None
        where the box holds anything else.
        """
        count, index = 1 + self.plan.shape.blocks, self.holders(dealer).index(reader) + 1
        context, shown = self.box_context(dealer, reader), box[: TAG_BYTES * count]
        try:
            contents = open_with(key, box[len(shown) :], context)
        except SecureSumError:
            return None
        starts = range(0, len(contents), SHARE_BYTES)
        rows = [contents[start : start + SHARE_BYTES] for start in starts]
        whole = len(rows) == count and all(is_share(row, self.threshold, index) for row in rows)
        return rows if whole and shown == b"".join(tags(context, rows)) else None


def tags(context: bytes, shares: Iterable[bytes]) -> list[bytes]:
    """16 bytes for each share of a box: they tell whether a share is the one that was dealt, and
    nothing to who cannot guess it.

    Args:
        context: of the box.
        shares: each of a secret of 256 bits.
    """
    label = b"secure-fl share tag 1|" + context
    return [hashlib.sha256(label + share).digest()[:TAG_BYTES] for share in shares]


def view_of(
    plan: bytes,
    roster: bytes,
    key: bytes,
    number: int,
    advertised: Mapping[str, Advertise | None],
    dealers: Sequence[int],
    survivors: Sequence[int],
) -> bytes:
    """32 bytes over everything that survivors agree on.

    Args:
        plan, roster, key: digests of plan and roster, fingerprint of the encryption key, 32
            bytes each.
        number: of the round.
        advertised: name -> keys, in order of name; None without masks.
        dealers, survivors: places in that order.
    """
    keys = [each for each in advertised.values() if each is not None]
    bound = _bound(plan, roster, key, number=number, names=advertised, keys=keys)
    return _view(bound, dealers, survivors)


def _bound(*facts: bytes, number: int, names: Iterable[str], keys: Iterable[Advertise]) -> bytes:
    lists = commitment([name.encode() for name in names]), commitment([e.encode() for e in keys])
    return b"".join([*facts, number.to_bytes(8, "big"), *lists])


def _view(bound: bytes, *positions: Sequence[int]) -> bytes:
    lists = (struct.pack(f">I{len(each)}I", len(each), *each) for each in positions)
    return hashlib.sha256(b"".join([b"secure-fl round view 1|", bound, *lists])).digest()


def seed_commitment(plan: RoundPlan, name: str, seed: bytes) -> bytes:
    """SHA-256 over a self-mask seed of 32 random bytes and what it is for: binding, and hiding
    since nobody can try so many seeds.
    """
    number = plan.round.to_bytes(8, "big")
    facts = commitment([plan.digest, plan.roster.digest, number, name.encode(), seed])
    return hashlib.sha256(b"secure-fl seed commitment 1|" + facts).digest()


def agreed_by(
    plan: RoundPlan,
    envelopes: Sequence[bytes],
    view: bytes,
    survivors: int,
    history: bytes | None = None,
) -> frozenset[str]:
    """Names of those who signed this view, and were shown this history where one is given: a single
    client that says another ends nothing. Raises RefusedError: a message that is not a signed
    agreement of this round; RoundRefusedError: `survivors-switched` where one of them signed
    another view.
    """
    seen, names = Seen(), set[str]()
    for data in envelopes:
        expected = plan.expect(Phase.AGREE, "client")
        header, agreement = accept(data, plan.roster, expected, seen, Agreement.decode)
        check_cohort(plan, header.sender)
        if (agreement.view, agreement.survivors) != (view, survivors):
            problem = "a survivor signed another set"
            raise RoundRefusedError(
                RoundReason.SURVIVORS_SWITCHED, problem, "view", header.sender, "leave this round"
            )
        if history in (None, agreement.history):
            names.add(header.sender)
    return frozenset(names)


def holders_that_signed(
    book: KeyBook, survivors: Sequence[int], agreed: frozenset[str]
) -> tuple[int, ...]:
    """Of each position, how many holders of its shares are survivors that signed the one set."""
    signed = {position for position in survivors if book.names[position] in agreed}
    return tuple(len(signed.intersection(book.holders(owner))) for owner in range(len(book.names)))


def check_agreed(book: KeyBook, owners: Iterable[int], signed: Sequence[int]) -> None:
    """Refuse to open anything of these owners before t of each one's holders signed the one set.
    Raises RoundRefusedError: `not-agreed`.

    Args:
        book: everybody's keys.
        owners: positions.
        signed: of `holders_that_signed`.
    """
    fewest = min((signed[owner] for owner in owners), default=book.threshold)
    if fewest < book.threshold:
        problem = "too few of a client's holders signed this set"
        remedy = f"{book.threshold} signatures of survivors are needed"
        raise RoundRefusedError(RoundReason.NOT_AGREED, problem, "signatures", fewest, remedy)


def check_cohort(plan: RoundPlan, name: str) -> None:
    """Refuse a client that was not asked to take part. Raises RefusedError: `unknown-client`."""
    if name not in plan.members:
        problem, remedy = "not in this round's cohort", "wait for a round that asks it"
        raise RefusedError(Reason.UNKNOWN_CLIENT, problem, "sender", name, remedy)


def need(found: int, least: int, what: str, blamed: Sequence[str] = ()) -> None:
    """Refuse to go on with fewer than are needed. Raises RoundRefusedError: `too-few`."""
    if found < least:
        problem, remedy = f"{least} are needed", "discard the round, begin the next"
        raise RoundRefusedError(RoundReason.TOO_FEW, problem, what, found, remedy, blamed=blamed)
