"""Shares as the server collects them, and the seeds they give back."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from secure_fl.secure_sum.masks import pair_seeds
from secure_fl.secure_sum.refusals import Reason, RefusedError
from secure_fl.secure_sum.round_book import KeyBook
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
        """Seeds of block 0, and dropped clients' pair seeds of all blocks.

        Raises:
            SecureSumError: too few shares, or shares that do not fit together.
        """
        for owner, secret in zip(self._dropped, self._secrets(MASK_KEY, self._dropped), strict=True):
            self._pairs[owner] = self._seeds_of_dropped(owner, secret)
        self.combine_blocks((0,))

    def combine_blocks(self, blocks: Sequence[int]) -> None:
        """Self-mask seeds of these blocks.

        Raises:
            SecureSumError: as `combine_counts`.
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
        return combine_many(sets)

    def _seeds_of_dropped(self, owner: int, secret: bytes) -> dict[int, list[bytes]]:
        private, plan = X25519PrivateKey.from_private_bytes(secret), self._plan
        if private.public_key().public_bytes_raw() != self._book.keys[owner].masking:
            name = self._book.names[owner]
            raise RefusedError(Reason.WRONG_KEY, "not the key that was advertised", field="mask key", value=name, remedy="discard the round")
        others = [other for other in self._book.neighbours(owner) if other in set(self._survivors)]
        return {
            other: pair_seeds(
                private,
                self._book.masking_key(other),
                federation=plan.roster.federation,
                round_number=plan.round,
                blocks=plan.shape.blocks,
                low=min(owner, other),
                high=max(owner, other),
            )
            for other in others
        }
