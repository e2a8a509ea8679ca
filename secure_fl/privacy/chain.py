"""A chain of hashes: each entry commits to all before it, so that a list that lost, gained or moved
an entry no longer fits a mark taken of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from secure_fl.records import Record


@dataclass(frozen=True)
class Mark(Record):
    """How far a chain had come.

    Attributes:
        length: number of its entries.
        head: hash of the last one, in hex; of an empty chain, its start.
    """

    length: int
    head: str


class Chain:
    """Hashes of a list that only grows.

    **Guarantee.** A chain that `holds` a mark begins with exactly the entries that were there when
    the mark was taken, in their order.

    **Assumes.** SHA-256 without collisions; the mark is kept where whoever changes the list does
    not change it too.

    **Not covered.** A list and all its marks put back together to what they were before.
    """

    def __init__(self, start: object, entries: Iterable[object] = ()) -> None:
        """`start` names the chain: others share no mark. Start and entries are JSON values."""
        self._hashes = [digest(start)]
        for entry in entries:
            self.add(entry)

    @property
    def mark(self) -> Mark:
        """How far the chain has come now."""
        return Mark(len(self._hashes) - 1, self._hashes[-1])

    def add(self, entry: object) -> None:
        """Append an entry."""
        self._hashes.append(digest([self._hashes[-1], entry]))

    def hash_of(self, number: int) -> str:
        """The hash after the entry of that number, counted from 0."""
        return self._hashes[number + 1]

    def holds(self, mark: Mark) -> bool:
        """Whether the chain was once where the mark says."""
        return 0 <= mark.length < len(self._hashes) and self._hashes[mark.length] == mark.head


def digest(value: object) -> str:
    """SHA-256, in hex, of a JSON value in its one spelling: keys sorted, no spaces."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()
