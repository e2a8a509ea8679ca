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

from secure_fl.crypto.envelope import Phase, Seen
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.secure_sum.boxes import agreed_key, closed, opened
from secure_fl.secure_sum.graph import Neighbourhoods, commitment, draw
from secure_fl.secure_sum.messages import (
    Advertise,
    Agreement,
    RoundReason,
    RoundRefusedError,
    accept,
)
from secure_fl.secure_sum.plan import RoundPlan

_POSITIONS = struct.Struct(">II")


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
    def read(cls, plan: RoundPlan, envelopes: Sequence[bytes]) -> KeyBook:
        """The book from the clients' own signed envelopes, as the server passed them on.

        Raises:
            RefusedError: any reason of the envelope's, `unknown-client` for a client outside
                the cohort.
        """
        seen, advertised = Seen(), dict[str, Advertise]()
        for data in envelopes:
            header, keys = accept(
                data, plan.roster, plan.expect(Phase.ADVERTISE, "client"), seen, Advertise.decode
            )
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

    def masking_key(self, position: int) -> X25519PublicKey:
        """The public key that makes pair seeds."""
        return X25519PublicKey.from_public_bytes(self.keys[position].masking)

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
        of_plan = plan.digest, plan.roster.digest, plan.key_fingerprint, plan.round
        return _bound(*of_plan, self.names, self.keys)

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
        """The key of the boxes between two clients."""
        context = self.box_context(min(own, other), max(own, other))
        return agreed_key(private, self.keys[other].sealing, context)

    def close_box(self, key: bytes, dealer: int, reader: int, rows: Sequence[bytes]) -> bytes:
        """A box of shares for one reader."""
        return closed(key, self.box_context(dealer, reader), rows)

    def open_box(self, key: bytes, dealer: int, reader: int, box: bytes) -> list[bytes] | None:
        """A reader's shares of a dealer's secrets: of its mask key, then of each block's seed. None
        where the box holds anything else.
        """
        count, index = 1 + self.plan.shape.blocks, self.holders(dealer).index(reader) + 1
        context, threshold = self.box_context(dealer, reader), self.threshold
        return opened(key, context, box, count=count, threshold=threshold, index=index)


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
    return _view(_bound(plan, roster, key, number, advertised, keys), dealers, survivors)


def _bound(
    plan: bytes,
    roster: bytes,
    key: bytes,
    number: int,
    names: Iterable[str],
    keys: Iterable[Advertise],
) -> bytes:
    lists = commitment([name.encode() for name in names]), commitment([e.encode() for e in keys])
    return b"".join([plan, roster, key, number.to_bytes(8, "big"), *lists])


def _view(bound: bytes, *positions: Sequence[int]) -> bytes:
    lists = (struct.pack(f">I{len(each)}I", len(each), *each) for each in positions)
    return hashlib.sha256(b"".join([b"secure-fl round view 1|", bound, *lists])).digest()


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
    history: bytes | None = None,
) -> frozenset[str]:
    """Names of those who signed this view, and were shown this history where one is given: a single
    client that says another ends nothing.

    Raises:
        RefusedError: a message that is not a signed agreement of this round.
        RoundRefusedError: `survivors-switched` where one of them signed another view.
    """
    seen, names = Seen(), set[str]()
    for data in envelopes:
        header, agreement = accept(
            data, plan.roster, plan.expect(Phase.AGREE, "client"), seen, Agreement.decode
        )
        check_cohort(plan, header.sender)
        if (agreement.view, agreement.survivors) != (view, survivors):
            raise RoundRefusedError(
                RoundReason.SURVIVORS_SWITCHED,
                "a survivor signed another set",
                field="view",
                value=header.sender,
                remedy="leave this round",
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

    Args:
        book: everybody's keys.
        owners: positions.
        signed: of `holders_that_signed`.

    Raises:
        RoundRefusedError: `not-agreed`.
    """
    fewest = min((signed[owner] for owner in owners), default=book.threshold)
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
    if name not in plan.members:
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
