"""Boxes of shares on their way through the server: taken by dealer, passed on by reader."""

from __future__ import annotations

from collections.abc import Sequence

from secure_fl.crypto.envelope import Phase, head_bytes, sign_in_place
from secure_fl.crypto.identities import Identity
from secure_fl.secure_sum.key_directory import TAG_BYTES, KeyBook
from secure_fl.secure_sum.messages import Boxes
from secure_fl.secure_sum.sizes import box_bytes, most_bytes
from secure_fl.secure_sum.spool import Table, settled, spool
from secure_fl.secure_sum.steps import Message


class DealtBoxes:
    """All boxes of a round; in memory only where there are few.

    Args:
        book: everybody's keys.
    """

    def __init__(self, book: KeyBook) -> None:
        self._book, columns = book, len(book.neighbours(0))
        self._cells = Table(len(book.names), columns, box_bytes(book.plan))
        self.dealers = set[int]()
        """Positions of those whose boxes were taken."""

    def take(self, dealer: int, boxes: Sequence[bytes]) -> None:
        """A box for each of a dealer's neighbours, in their order."""
        self._cells.row(dealer)[:] = b"".join(boxes)
        self.dealers.add(dealer)

    def tags(self, dealer: int, holder: int, place: int) -> bytes:
        """The tags before a dealer's box for one of its holders, which is in that place among
        them and not the dealer itself.
        """
        size = TAG_BYTES * (1 + self._book.plan.shape.blocks)
        return bytes(self._box(dealer, holder, place)[:size])

    def messages(self, identity: Identity, dealers: tuple[int, ...]) -> list[Message]:
        """What goes to each of these dealers: who dealt, and their boxes for it. Signed where it
        lies: all of it together is much in a large round.
        """
        book, plan = self._book, self._book.plan
        header = plan.header(Phase.SHARE, identity.name)
        head, most = head_bytes(header), most_bytes(plan, Phase.SHARE, to_client=True)
        room, start, messages = spool(len(dealers) * most), 0, list[Message]()
        for reader in dealers:
            places = book.places(reader)
            near = [dealer for dealer in dealers if dealer in places and dealer != reader]
            boxes = (bytes(self._box(dealer, reader, places[dealer])) for dealer in near)
            body = Boxes(dealers, tuple(zip(near, boxes, strict=True))).encode()
            message = room[start : start + head + len(body)]
            message[head:] = body
            sign_in_place(identity, header, message)
            messages.append(Message(book.names[reader], settled(message)))
            start += len(message)
        return messages

    def _box(self, dealer: int, reader: int, place: int) -> memoryview:
        """A reader's box, by its place among the holders: the dealer is one, and has no box."""
        return self._cells.cell(dealer, place - (dealer < reader))
