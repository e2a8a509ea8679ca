"""What every party computes alike from the advertised keys: positions, neighbourhoods, keys of
share boxes, the view that is signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from struct import Struct
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secure_fl.crypto.envelope import Phase, Seen
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.sealing import open_with, seal_with
from secure_fl.crypto.shares import SHARE_BYTES, Share
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.blocks import Integers
from secure_fl.secure_sum.graph import Neighbourhoods, commitment, draw
from secure_fl.secure_sum.messages import (
    Advertise,
    Agreement,
    RoundReason,
    RoundRefusedError,
    accept,
)
from secure_fl.secure_sum.plan import RoundPlan

TAG_BYTES = 16
"""Of a share: enough that nobody finds another share for it."""
_POSITIONS = Struct(">II")


@dataclass
class Verified:
    """Checks that clients of one process share: each sees the same bytes, and n clients would
    verify n signatures each.
    """

    books: dict[bytes, KeyBook] = field(default_factory=dict)
    agreements: dict[bytes, frozenset[str]] = field(default_factory=dict)
    heads: dict[bytes, Integers] = field(default_factory=dict)
    applied: dict[bytes, Any] = field(default_factory=dict)
    """What `round_digests.applied_by` found."""
    opened: dict[bytes, Any] = field(default_factory=dict)
    """The sums opened last, which all these clients hold."""


@dataclass(frozen=True)
class KeyBook:
    """Everybody who advertised, in order of name; a client's position is its place here.

    Under protections without masks there are no keys: the book is the cohort.
    """

    plan: RoundPlan
    names: tuple[str, ...]
    keys: tuple[Advertise, ...] = ()
    graph: Neighbourhoods | None = None

    @classmethod
    def of(cls, plan: RoundPlan, advertised: Mapping[str, Advertise]) -> KeyBook:
        """The book of these keys, and the graph drawn from their commitment.

        Raises:
            RoundRefusedError: `too-few`: the list is shorter than the plan's n_min.
            RefusedError: `duplicate` for two clients with one key.
        """
        if not plan.masked:
            return cls(plan, plan.cohort)
        need(len(advertised), plan.survivors_needed, "advertised")
        names = tuple(sorted(advertised))
        keys = tuple(advertised[name] for name in names)
        drawn_from = [name.encode() + key.encode() for name, key in zip(names, keys, strict=True)]
        graph = draw(drawn_from, degree=plan.degree, threshold=plan.shares_needed)
        if len({part for key in keys for part in (key.sealing, key.masking)}) != 2 * len(keys):
            raise RefusedError(
                Reason.DUPLICATE,
                "two clients share a key",
                field="keys",
                value=len(keys),
                remedy="every client makes its own",
            )
        return cls(plan, names, keys, graph)

    @classmethod
    def read(
        cls, plan: RoundPlan, envelopes: Sequence[bytes], verified: Verified | None = None
    ) -> KeyBook:
        """The book from the clients' own signed envelopes, as the server passed them on.

        Raises:
            RefusedError: any reason of the envelope's, `unknown-client` for a client outside
                the cohort.
        """
        name = commitment([plan.digest, *envelopes])
        if verified is not None and name in verified.books:
            return verified.books[name]
        seen, advertised = Seen(), dict[str, Advertise]()
        for data in envelopes:
            header, keys = accept(
                data, plan.roster, plan.expect(Phase.ADVERTISE, "client"), seen, Advertise.decode
            )
            check_cohort(plan, header.sender)
            keys.check(header.sender)
            advertised[header.sender] = keys
        book = cls.of(plan, advertised)
        if verified is not None:
            verified.books[name] = book
        return book

    def neighbours(self, position: int) -> tuple[int, ...]:
        """The positions that a client masks with; none without masks."""
        return self.graph.neighbours[position] if self.graph else ()

    def holders(self, position: int) -> tuple[int, ...]:
        """Who holds shares of its secrets; share h + 1 belongs to the h-th."""
        return self.graph.holders(position) if self.graph else ()

    @property
    def threshold(self) -> int:
        """Shares that open a secret; 0 without masks."""
        return self.graph.threshold if self.graph else 0

    def masking_key(self, position: int) -> X25519PublicKey:
        """The public key that makes pair seeds."""
        return X25519PublicKey.from_public_bytes(self.keys[position].masking)

    def view(self, dealers: Sequence[int], survivors: Sequence[int]) -> bytes:
        """32 bytes that bind plan, roster, round, every key, who dealt shares, and U. Signed once,
        it is the one set of both openings.
        """
        plan = self.plan
        of_plan = plan.digest, plan.roster.digest, plan.key_fingerprint, plan.round
        keys = self.keys or (None,) * len(self.names)
        return view_of(*of_plan, dict(zip(self.names, keys, strict=True)), dealers, survivors)

    def box_context(self, dealer: int, reader: int) -> bytes:
        """What a box of shares is bound to: this round's boxes, its dealer and its reader."""
        return self._boxes + _POSITIONS.pack(dealer, reader)

    @cached_property
    def _boxes(self) -> bytes:
        """What all boxes of the round are for; asked for hundred thousands of times in a
        large one.
        """
        return (
            b"secure-fl share box 1|"
            + self.plan.digest
            + self.plan.roster.digest
            + self.plan.round.to_bytes(8, "big")
        )

    def box_key(self, own: int, private: X25519PrivateKey, other: int) -> bytes:
        """The 32-byte key that two clients know: each box is authenticated by it and opens for
        nobody else.
        """
        shared = private.exchange(X25519PublicKey.from_public_bytes(self.keys[other].sealing))
        return HKDF(SHA256(), 32, None, self.box_context(min(own, other), max(own, other))).derive(
            shared
        )

    def close_box(self, key: bytes, dealer: int, reader: int, rows: Sequence[bytes]) -> bytes:
        """A box of shares for one reader, behind the tag of each: who sees the tags can tell
        whether a share that is shown later was dealt.
        """
        context = self.box_context(dealer, reader)
        return b"".join(tags(context, rows)) + seal_with(key, b"".join(rows), context)

    def open_box(self, key: bytes, dealer: int, reader: int, box: bytes) -> list[bytes] | None:
        """A reader's shares of a dealer's secrets: of its mask key, then of each block's seed. None
        where the box holds anything else.
        """
        context, shown = self.box_context(dealer, reader), self.box_tags(box)
        try:
            contents = open_with(key, box[len(shown) :], context)
            rows = [
                contents[start : start + SHARE_BYTES]
                for start in range(0, len(contents), SHARE_BYTES)
            ]
            shares = [Share.from_bytes(row) for row in rows]
        except SecureSumError:
            return None
        mine = (self.holders(dealer).index(reader) + 1, self.threshold)
        whole = len(rows) == 1 + self.plan.shape.blocks and all(
            (share.index, share.threshold) == mine for share in shares
        )
        return rows if whole and shown == b"".join(tags(context, rows)) else None

    def box_tags(self, box: bytes) -> bytes:
        """The tags before a box's contents: of the mask key's share, then of each block's seed."""
        return box[: TAG_BYTES * (1 + self.plan.shape.blocks)]


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
    facts = [plan, roster, key, number.to_bytes(8, "big")]
    facts.append(commitment([name.encode() for name in advertised]))
    facts.append(commitment([keys.encode() for keys in advertised.values() if keys is not None]))
    for positions in (dealers, survivors):
        facts.append(
            len(positions).to_bytes(4, "big")
            + b"".join(position.to_bytes(4, "big") for position in positions)
        )
    return hashlib.sha256(b"secure-fl round view 1|" + b"".join(facts)).digest()


def tags(context: bytes, shares: Iterable[bytes]) -> list[bytes]:
    """16 bytes for each share of a box: they tell whether a share is the one that was dealt, and
    nothing to who cannot guess it.

    Args:
        context: of the box.
        shares: each of a secret of 256 bits.
    """
    base, found = hashlib.sha256(b"secure-fl share tag 1|" + context), []
    for share in shares:
        digest = base.copy()
        digest.update(share)
        found.append(digest.digest()[:TAG_BYTES])
    return found


def seed_commitment(plan: RoundPlan, name: str, seed: bytes) -> bytes:
    """SHA-256 over a self-mask seed of 32 random bytes and what it is for: binding, and hiding
    since nobody can try so many seeds.
    """
    facts = commitment(
        [plan.digest, plan.roster.digest, plan.round.to_bytes(8, "big"), name.encode(), seed]
    )
    return hashlib.sha256(b"secure-fl seed commitment 1|" + facts).digest()


def agreed_by(
    plan: RoundPlan,
    envelopes: Sequence[bytes],
    view: bytes,
    survivors: int,
    verified: Verified | None = None,
) -> frozenset[str]:
    """Names of those who signed this view.

    Raises:
        RefusedError: a message that is not a signed agreement of this round.
        RoundRefusedError: `survivors-switched` where one of them signed another view.
    """
    name = commitment([plan.digest, view, survivors.to_bytes(4, "big"), *envelopes])
    if verified is not None and name in verified.agreements:
        return verified.agreements[name]
    seen, names = Seen(), set[str]()
    for data in envelopes:
        header, agreement = accept(
            data, plan.roster, plan.expect(Phase.AGREE, "client"), seen, Agreement.decode
        )
        check_cohort(plan, header.sender)
        if agreement != Agreement(view, survivors):
            raise RoundRefusedError(
                RoundReason.SURVIVORS_SWITCHED,
                "a survivor signed another set",
                field="view",
                value=header.sender,
                remedy="leave this round",
            )
        names.add(header.sender)
    if verified is not None:
        verified.agreements[name] = frozenset(names)
    return frozenset(names)


def check_agreed(
    book: KeyBook, survivors: Sequence[int], owners: Iterable[int], agreed: frozenset[str]
) -> None:
    """Refuse to open anything of these owners before t of each one's holders, survivors all, signed
    the one set.

    Raises:
        RoundRefusedError: `not-agreed`.
    """
    signed = {position for position in survivors if book.names[position] in agreed}
    fewest = min(
        (len(signed.intersection(book.holders(owner))) for owner in owners), default=book.threshold
    )
    if fewest < book.threshold:
        problem, remedy = (
            "too few of a client's holders signed this set",
            f"{book.threshold} signatures of survivors are needed",
        )
        raise RoundRefusedError(
            RoundReason.NOT_AGREED, problem, field="signatures", value=fewest, remedy=remedy
        )


def check_cohort(plan: RoundPlan, name: str) -> None:
    """Refuse a client that was not asked to take part.

    Raises:
        RefusedError: `unknown-client`.
    """
    if name not in plan.cohort:
        raise RefusedError(
            Reason.UNKNOWN_CLIENT,
            "not in this round's cohort",
            field="sender",
            value=name,
            remedy="wait for a round that asks it",
        )


def need(found: int, least: int, what: str, blamed: Sequence[str] = ()) -> None:
    """Refuse to go on with fewer than are needed.

    Raises:
        RoundRefusedError: `too-few`.
    """
    if found < least:
        remedy = "discard the round, begin the next"
        raise RoundRefusedError(
            RoundReason.TOO_FEW,
            f"{least} are needed",
            field=what,
            value=found,
            remedy=remedy,
            blamed=blamed,
        )
