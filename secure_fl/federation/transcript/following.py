"""How a client follows a transcript that somebody else writes.

Guarantee: what it takes continues what it took before, line by line, or is refused as `forked`; two
clients whose heads are equal were shown one history. Where sums are masked survivors sign it, and
open nothing with those who were shown another (`RoundClient`).
Assumes: SHA-256 without collisions.
Not covered: whether what the lines say is true; evidence stays with who writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from secure_fl.federation.transcript.chain import START, Line, Transcript, forked
from secure_fl.files import append_line, is_file

_REMEMBERED = 16


@dataclass
class Checked:
    """Rows of lines that continue each other: what clients of one process checked already. They are
    found by the very bytes that each was shown.
    """

    _heads: dict[bytes, bytes] = field(default_factory=dict, repr=False)

    def head(self, before: bytes, lines: Sequence[bytes]) -> bytes:
        """The head that these lines lead to. Raises RefusedError: `malformed`: one is no line of a
        transcript; RoundRefusedError: `forked`: they do not continue `before`, or each other.
        """
        name = blake3(before)
        for data in lines:
            name.update(len(data).to_bytes(8, "big")).update(data)
        known = name.digest()
        if known not in self._heads:
            head = before
            for number, data in enumerate(lines):
                line = Line.read(bytes(data))
                if line.before != head:
                    raise forked(number)
                head = line.head
            if len(self._heads) >= _REMEMBERED:
                self._heads.pop(next(iter(self._heads)))
            self._heads[known] = head
        return self._heads[known]


class Follower:
    """One client's own head.

    Args:
        checked: what clients of its process share.
        head: that it kept, 32 bytes.
    """

    def __init__(self, checked: Checked | None = None, head: bytes = START) -> None:
        self._checked, self.head = checked or Checked(), head

    def __call__(self, lines: Sequence[bytes]) -> bytes:
        """Take the next lines: the new head, which without any is the one that it has. Raises
        RefusedError, RoundRefusedError: as `Checked.head`; the head is as it was.
        """
        self.head = self._checked.head(self.head, lines) if lines else self.head
        return self.head


class KeptFollower:
    """One client's own copy of a transcript, over any number of lives. Raises RefusedError:
    `malformed`: the file is damaged; FileError: it cannot be read or written.

    Args:
        path: of its file, in its party's folder; begun where there is none.
    """

    def __init__(self, path: Path) -> None:
        told = Transcript.open(path) if is_file(path) else Transcript.new(path)
        self._path, self._heads = path, [START, *(line.head for line in told.lines())]

    def __call__(self, lines: Sequence[bytes]) -> bytes:
        """Take the next lines; those that an earlier life took may come again. Raises
        RoundRefusedError: `forked`; FileError: one cannot be written.
        """
        for data in lines:
            line = Line.read(bytes(data))
            if line.head in self._heads:
                continue
            if line.before != self._heads[-1]:
                raise forked(len(self._heads) - 1)
            append_line(self._path, bytes(data).decode("ascii"))
            self._heads.append(line.head)
        return self._heads[-1]
