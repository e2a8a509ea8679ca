"""Shares as the server collects them, the seeds they give back, and who is left out because its
shares reached nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from secure_fl.crypto.key_streams import KEY_BYTES
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.shares import SHARE_BYTES, Share, combine_many, is_share
from secure_fl.secure_sum.counts import check_seed, dropped_pairs
from secure_fl.secure_sum.key_directory import TAG_BYTES, KeyBook, tags
from secure_fl.secure_sum.messages import MASK_KEY, RoundReason, RoundRefusedError
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.spool import Table


class ShareBox:
    """What survivors reveal in one round, and the masks' seeds.

    Args:
        plan: the round's.
        book: everybody's keys.
        dealers: positions of all who dealt shares, R.
        survivors: U. The others of R dropped out.
        tags: of dealer, holder and its place among the holders: the tags of the shares in a box; a
            dealer has no box for itself.
        closed: by holder, dealers whose boxes do not open for it.

    Guarantee: who is blamed for a secret that does not come about dealt it so. A holder's share is
    taken only where it is the one it was dealt.
    """

    def __init__(
        self,
        plan: RoundPlan,
        book: KeyBook,
        dealers: Sequence[int],
        survivors: Sequence[int],
        tags: Callable[[int, int, int], bytes] | None = None,
        closed: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        self._plan, self._book, self._survivors = plan, book, tuple(survivors)
        self._tags = tags or (lambda *_: b"")
        self._closed, self._answered = closed or {}, set[int]()
        self._alive = frozenset(survivors)
        self._dropped = tuple(position for position in dealers if position not in self._alive)
        self._gone = frozenset(self._dropped)
        self.mask_keys: dict[int, bytes] = {}
        self._shares: dict[int, Table] = {}
        """By block, or `MASK_KEY`: a row for each owner, a cell for each of its holders."""
        self._self: dict[int, dict[int, bytes]] = {}
        self._pairs: dict[int, dict[int, list[bytes]]] = {}
        self.liars = list[str]()
        """Holders that showed another share than they were dealt."""

    def take(
        self, holder: int, shares: Sequence[tuple[int, int, bytes]], places: Collection[int]
    ) -> None:
        """One holder's shares, all or none.

        Args:
            holder: its position.
            shares: as it revealed them.
            places: blocks, or `MASK_KEY`, whose shares belong to this opening; others would come a
                second time at the next one.

        Raises:
            RefusedError: `malformed` for a share that is not its own, or was not asked for.
            RoundRefusedError: `false-shares` for one that it was not dealt.
        """
        book, held, threshold = self._book, self._book.places(holder), self._book.threshold
        for place, owner, share in shares:
            owners = self._gone if place == MASK_KEY else self._alive
            wanted = place in places and owner in owners and owner in held
            if not wanted or not is_share(share, threshold, held[owner] + 1):
                problem = "not its share, or not asked for"
                raise RefusedError(Reason.MALFORMED, problem, "share", (place, owner), "none")
            self._check_dealt(owner, holder, held[owner], place, share)
        self._answered.add(holder)
        for place, owner, share in shares:
            if place not in self._shares:
                count = len(book.names)
                self._shares[place] = Table(count, len(book.holders(0)), SHARE_BYTES)
            self._shares[place].cell(owner, held[owner])[:] = share

    def combine_counts(self) -> None:
        """Seeds of block 0, and dropped clients' mask keys; each must be what its owner advertised.
        Raises RoundRefusedError: `too-few` shares; `false-shares` or `not-proved`, blaming all
        whose shares give another secret, or none.
        """
        keys, seeds = self._secrets(MASK_KEY, self._dropped), self._secrets(0, self._survivors)
        false, unproved = list[str](), list[str]()
        for found, take in ((keys, self._take_key), (seeds, self._take_seed)):
            for owner, secret in found.items():
                if secret is None:
                    false.append(self._book.names[owner])
                    continue
                try:
                    take(owner, secret)
                except RoundRefusedError as error:
                    unproved += error.blamed
        reason = RoundReason.FALSE_SHARES if false else RoundReason.NOT_PROVED
        self._refuse(reason, sorted({*false, *unproved}))
        self._answered.clear()

    def combine_blocks(self, blocks: Sequence[int]) -> None:
        """Self-mask seeds of these blocks. Raises RoundRefusedError: `too-few` shares;
        `false-shares`, blaming the owners whose shares give no seed.
        """
        for block in blocks:
            found = self._secrets(block, self._survivors)
            false = [self._book.names[owner] for owner, secret in found.items() if secret is None]
            self._refuse(RoundReason.FALSE_SHARES, false)
            self._self[block] = {owner: seed for owner, seed in found.items() if seed is not None}

    def seeds(self, block: int) -> tuple[dict[int, bytes], dict[int, dict[int, bytes]]]:
        """Self seeds of survivors and pair seeds of dropped clients, as `unmask_sum` takes them."""
        pairs = {
            owner: {other: seeds[block] for other, seeds in row.items()}
            for owner, row in self._pairs.items()
        }
        return self._self[block], pairs

    def _take_key(self, owner: int, key: bytes) -> None:
        blocks = self._plan.shape.blocks
        self._pairs[owner] = dropped_pairs(self._book, owner, key, self._survivors, blocks)
        self.mask_keys[owner] = key

    def _take_seed(self, owner: int, seed: bytes) -> None:
        check_seed(self._book, owner, seed)
        self._self.setdefault(0, {})[owner] = seed

    def _check_dealt(self, owner: int, holder: int, held: int, place: int, share: bytes) -> None:
        """Refuse another share than the box had, by its tag; an owner's own is in no box."""
        if owner == holder:
            return
        row = 0 if place == MASK_KEY else 1 + place
        tag = self._tags(owner, holder, held)[row * TAG_BYTES :][:TAG_BYTES]
        if tags(self._book.box_context(owner, holder), [share]) != [tag]:
            self.liars.append(self._book.names[holder])
            problem = "not the share it was dealt"
            raise RoundRefusedError(
                RoundReason.FALSE_SHARES, problem, "share", (place, owner), "show that one"
            )

    def _secrets(self, place: int, owners: Sequence[int]) -> dict[int, bytes | None]:
        """By owner, None where its shares give no key and no seed."""
        table = self._shares.pop(place, None)
        counts = [0 if table is None else table.filled(owner) for owner in owners]
        fewest = min(counts, default=self._book.threshold)
        if fewest < self._book.threshold:
            problem, remedy = (
                f"{self._book.threshold} shares are needed",
                "discard the round: too many dropped out after their uploads",
            )
            blamed = sorted({*self.liars, *self._disputed(owners)})
            raise RoundRefusedError(
                RoundReason.TOO_FEW, problem, "shares", fewest, remedy, blamed=blamed
            )
        found = (
            secret if secret is not None and len(secret) == KEY_BYTES else None
            for secret in combine_many(_shown(table, owner) for owner in owners)
        )
        return dict(zip(owners, found, strict=True))

    def _disputed(self, owners: Sequence[int]) -> list[str]:
        """Who is in the way where holders enough have answered, but for some owners' boxes that
        stayed closed to a few of them.
        """
        book = self._book
        there = {owner: len(self._answered.intersection(book.holders(owner))) for owner in owners}
        enough = [owner for owner, count in there.items() if count >= book.threshold]
        gone = without_shares(book, enough, self._closed, self._answered)
        return [book.names[position] for position in gone]

    def _refuse(self, reason: RoundReason, blamed: Sequence[str]) -> None:
        if blamed:
            problem = "shares of no key or seed, or of another one"
            remedy = "discard the round, and begin another without the clients named"
            raise RoundRefusedError(reason, problem, "shares", blamed, remedy, blamed=blamed)


def _shown(table: Table | None, owner: int) -> list[Share]:
    """The shares that were shown of one owner's secret."""
    return [] if table is None else [Share.from_bytes(cell) for cell in table.cells(owner)]


def without_shares(
    book: KeyBook,
    dealers: Sequence[int],
    closed: Mapping[int, Sequence[int]],
    holders: Collection[int] | None = None,
) -> set[int]:
    """Who must be left out so that every dealer that remains has t holders who could open
    its boxes.

    Nobody can tell who is wrong, a dealer whose box does not open or a holder that says so; whoever
    is in most such disputes goes first. One client alone, on either side, costs nobody else its
    place as long as one drop-out is tolerated.

    Args:
        book: everybody's keys.
        dealers: R.
        closed: by holder, the dealers whose boxes do not open for it.
        holders: who is there to show shares; the dealers when left out.
    """
    gone, there = set[int](), set(dealers if holders is None else holders)
    disputes = {
        (holder, dealer)
        for holder, refused in closed.items()
        for dealer in refused
        if dealer in dealers and holder in there
    }
    while disputes:
        alive, against = there - gone, Counter(dealer for _, dealer in disputes)
        if all(
            len(alive.intersection(book.holders(dealer))) - count >= book.threshold
            for dealer, count in against.items()
        ):
            break
        concerned = Counter(position for dispute in disputes for position in dispute)
        worst = max(concerned, key=lambda position: (concerned[position], -position))
        gone.add(worst)
        disputes = {dispute for dispute in disputes if worst not in dispute}
    return gone
