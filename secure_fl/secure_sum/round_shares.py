"""Shares as the server collects them, the seeds they give back, and who is left out because its shares reached nobody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from secure_fl.secure_sum.refusals import Reason, RefusedError
from secure_fl.secure_sum.round_book import KeyBook
from secure_fl.secure_sum.round_counts import check_seed, dropped_pairs
from secure_fl.secure_sum.round_messages import MASK_KEY, RoundReason, RoundRefusedError
from secure_fl.secure_sum.round_plan import RoundPlan
from secure_fl.secure_sum.shamir import Share, combine_many


class ShareBox:
    """What survivors reveal in one round, and the masks' seeds.

    Args:
        plan: the round's.
        book: everybody's keys.
        dealers: positions of all who dealt shares, R.
        survivors: U. The others of R dropped out.
    """

    def __init__(self, plan: RoundPlan, book: KeyBook, dealers: Sequence[int], survivors: Sequence[int]) -> None:
        self._plan, self._book, self._survivors = plan, book, tuple(survivors)
        self._dropped = tuple(position for position in dealers if position not in set(survivors))
        self.mask_keys: dict[int, bytes] = {}
        self._shares: dict[tuple[int, int], list[Share]] = {}
        self._self: dict[int, dict[int, bytes]] = {}
        self._pairs: dict[int, dict[int, list[bytes]]] = {}

    def take(self, holder: int, shares: Sequence[tuple[int, int, bytes]]) -> None:
        """One holder's shares, all or none.

        Raises:
            RefusedError: `malformed` for a share that is not its own, or was not asked for.
            SecureSumError: a share that does not parse.
        """
        parsed = []
        for place, owner, data in shares:
            share, holders = Share.from_bytes(data), self._book.holders(owner) if owner < len(self._book.names) else ()
            wanted = owner in (self._dropped if place == MASK_KEY else self._survivors)
            mine = holder in holders and share.index == holders.index(holder) + 1 and share.threshold == self._book.threshold
            if not wanted or not mine:
                raise RefusedError(Reason.MALFORMED, "not its share, or not asked for", field="share", value=(place, owner), remedy="none")
            parsed.append((place, owner, share))
        for place, owner, share in parsed:
            self._shares.setdefault((place, owner), []).append(share)

    def combine_counts(self) -> None:
        """Seeds of block 0, and dropped clients' mask keys; each must be what its owner advertised.

        Raises:
            RoundRefusedError: `too-few` shares; `false-shares` or `not-proved`, blaming the owners whose shares give another secret, or none.
        """
        self.mask_keys = dict(zip(self._dropped, self._secrets(MASK_KEY, self._dropped), strict=True))
        blocks = self._plan.shape.blocks
        self._pairs = {owner: dropped_pairs(self._book, owner, key, self._survivors, blocks) for owner, key in self.mask_keys.items()}
        self.combine_blocks((0,))
        for owner, seed in self._self[0].items():
            check_seed(self._book, owner, seed)

    def combine_blocks(self, blocks: Sequence[int]) -> None:
        """Self-mask seeds of these blocks.

        Raises:
            RoundRefusedError: as `combine_counts`.
        """
        for block in blocks:
            self._self[block] = dict(zip(self._survivors, self._secrets(block, self._survivors), strict=True))

    def seeds(self, block: int) -> tuple[dict[int, bytes], dict[int, dict[int, bytes]]]:
        """Self seeds of survivors and pair seeds of dropped clients, as `unmask_sum` takes them."""
        pairs = {owner: {other: seeds[block] for other, seeds in row.items()} for owner, row in self._pairs.items()}
        return self._self[block], pairs

    def _secrets(self, place: int, owners: Sequence[int]) -> list[bytes]:
        sets = [self._shares.pop((place, owner), []) for owner in owners]
        fewest = min((len(found) for found in sets), default=self._book.threshold)
        if fewest < self._book.threshold:
            problem, remedy = f"{self._book.threshold} shares are needed", "discard the round: too many dropped out after their uploads"
            raise RoundRefusedError(RoundReason.TOO_FEW, problem, field="shares", value=fewest, remedy=remedy)
        found = combine_many(sets)
        false = [self._book.names[owner] for owner, secret in zip(owners, found, strict=True) if secret is None]
        if false:
            remedy = "discard the round, and begin another without the clients named"
            raise RoundRefusedError(RoundReason.FALSE_SHARES, "shares of no secret", field="shares", value=false, remedy=remedy, blamed=false)
        return [secret for secret in found if secret is not None]


def without_shares(book: KeyBook, dealers: Sequence[int], closed: Mapping[int, Sequence[int]]) -> set[int]:
    """Who must be left out so that every dealer that remains has t holders who could open its boxes.

    Nobody can tell who is wrong, a dealer whose box does not open or a holder that says so; whoever is in most such disputes goes first. One
    client alone, on either side, costs nobody else its place as long as one drop-out is tolerated.

    Args:
        book: everybody's keys.
        dealers: R.
        closed: by holder, the dealers whose boxes do not open for it.
    """
    gone = set[int]()
    disputes = {(holder, dealer) for holder, refused in closed.items() for dealer in refused if dealer in dealers}
    while disputes:
        alive, against = set(dealers) - gone, Counter(dealer for _, dealer in disputes)
        if all(len(alive.intersection(book.holders(dealer))) - count >= book.threshold for dealer, count in against.items()):
            break
        concerned = Counter(position for dispute in disputes for position in dispute)
        worst = max(concerned, key=lambda position: (concerned[position], -position))
        gone.add(worst)
        disputes = {dispute for dispute in disputes if worst not in dispute}
    return gone
