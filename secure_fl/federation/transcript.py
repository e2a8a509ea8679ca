"""The transcript: what happened in a federation, in order, as a chain of hashes.

Anybody can check it without the models. It is a file of lines, each one JSON object in its
canonical spelling (`strict_json`):

    {"before": hash of the line before, "evidence": [base64, ...], "facts": {...},
     "hash": this line's hash, "kind": "sum"}

`hash` is SHA-256 over the line without it. The first line's `before` is `START`. Facts are public
or released; evidence are signed messages, or signed heads of them. What each kind of entry says is
in `transcript_entries`.

Guarantee: a transcript that `follows` a head begins with exactly the entries that were there when
that was its head, in their order. Every append reaches the disk whole or is cut away when the file
is opened again.
Assumes: SHA-256 without collisions; heads are kept where whoever rewrites the file does not rewrite
them: every client keeps its own.
Not covered: a transcript and all heads of it rewritten together; whether a signed message says the
truth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secure_fl.crypto.strict_json import (
    canonical,
    fields,
    from_base64,
    from_hex,
    malformed,
    parse_object,
    to_base64,
)
from secure_fl.errors import SecureSumError
from secure_fl.federation.transcript_entries import Entry, entry_of, facts_of
from secure_fl.files import append_line, read_bytes, write_atomically
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError

START = hashlib.sha256(b"secure-fl transcript 1").digest()
"""Head of an empty transcript."""
_FIELDS = {"before": str, "evidence": list, "facts": dict, "hash": str, "kind": str}
_LARGEST = 1 << 34
_LONGEST_LINE = 1 << 26


@dataclass(frozen=True)
class Line:
    """One entry as it stands in the chain.

    Attributes:
        entry: what it says.
        evidence: signed messages or heads of them.
        before: 32 bytes, the hash of the line before.
        head: 32 bytes, this line's hash.
    """

    entry: Entry
    evidence: tuple[bytes, ...]
    before: bytes
    head: bytes

    @classmethod
    def made(cls, before: bytes, entry: Entry, evidence: Sequence[bytes] = ()) -> Line:
        """The line that says `entry` after the line whose hash is `before`."""
        line = cls(entry, tuple(evidence), before, b"")
        return cls(entry, line.evidence, before, _hashed(line._document()))

    @classmethod
    def read(cls, data: bytes) -> Line:
        """A line from its bytes, without the line break.

        Whether its hash is right is checked; whether it continues a chain is not.

        Raises:
            RefusedError: `malformed`: another spelling, an unknown kind or field, or not the hash
                of its content.
        """
        if len(data) > _LONGEST_LINE:
            raise malformed("transcript", "a line is too long")
        found = fields(parse_object(data, "transcript"), "transcript", _FIELDS)
        before, head = (from_hex(found[name], name, 32) for name in ("before", "hash"))
        evidence = tuple(from_base64(text, "evidence") for text in found["evidence"])
        if head != _hashed({name: value for name, value in found.items() if name != "hash"}):
            raise malformed("transcript", "the hash is not that of the line")
        return cls(entry_of(found["kind"], found["facts"]), evidence, before, head)

    def encode(self) -> bytes:
        """The line, without its line break."""
        return canonical({**self._document(), "hash": self.head.hex()})

    def _document(self) -> dict[str, Any]:
        evidence = [to_base64(each) for each in self.evidence]
        return {
            "before": self.before.hex(),
            "evidence": evidence,
            "facts": facts_of(self.entry),
            "kind": self.entry.kind,
        }


class Transcript:
    """An append-only list of entries, in a file or in memory.

    Made by `new` or `open`; a file has one writer at a time (`files.held`).
    """

    def __init__(self, path: Path | None, heads: list[bytes], kept: list[bytes] | None) -> None:
        self._path, self._heads, self._kept = path, heads, kept

    @classmethod
    def new(cls, path: Path | None = None) -> Transcript:
        """An empty one, in a file of that path or in memory.

        Raises:
            FileExistsError: there is a file of that name.
            FileError: the file cannot be written.
        """
        if path is not None:
            write_atomically(path, b"", exclusive=True)
        return cls(path, [START], [] if path is None else None)

    @classmethod
    def open(cls, path: Path) -> Transcript:
        """The transcript in a file, to go on with.

        Half a line at its end, of a process that was killed, is cut away.

        Raises:
            RefusedError: `malformed`: a damaged line, or one that does not continue the one before;
                the line's number is named.
            FileError: the file cannot be read or written.
        """
        data = read_bytes(path, most=_LARGEST)
        whole = data[: data.rfind(b"\n") + 1]
        heads = [START, *(line.head for line in read_lines(whole))]
        if whole != data:
            write_atomically(path, whole)
        return cls(path, heads, None)

    @property
    def head(self) -> bytes:
        """32 bytes that name everything in it, in order."""
        return self._heads[-1]

    def __len__(self) -> int:
        return len(self._heads) - 1

    def append(self, kind: str, facts: Mapping[str, Any], evidence: Sequence[bytes] = ()) -> bytes:
        """Add an entry; it is on the disk when this returns.

        Args:
            kind: see `transcript_entries.KINDS`.
            facts: JSON values, exactly the fields of that kind.
            evidence: signed messages, or signed heads of them.

        Returns:
            The new head, 32 bytes.

        Raises:
            RefusedError: `malformed`: an unknown kind or field, or a value of another form.
            FileError: it cannot be written; the transcript is as it was.
        """
        return self.add(entry_of(kind, dict(facts)), evidence)

    def add(self, entry: Entry, evidence: Sequence[bytes] = ()) -> bytes:
        """`append` for an entry that is typed already."""
        checked = entry_of(entry.kind, facts_of(entry))
        return self._write(Line.made(self.head, checked, evidence))

    def take(self, data: bytes) -> Line:
        """Add a line that another party wrote: a client follows the server's transcript so.

        Raises:
            RefusedError: `malformed`.
            RoundRefusedError: `forked`: it does not continue this transcript.
            FileError: it cannot be written; the transcript is as it was.
        """
        line = Line.read(data)
        if line.before != self.head:
            raise _forked(len(self))
        self._write(line)
        return line

    def follows(self, head: bytes) -> None:
        """Check that it is the one, gone on, whose head was `head`.

        Raises:
            RoundRefusedError: `forked`: that was never its head.
        """
        if head not in self._heads:
            raise _forked(len(self))

    def lines(self) -> Iterator[Line]:
        """Every line, from the first.

        Raises:
            RefusedError: `malformed`: the file was damaged meanwhile.
            FileError: it cannot be read.
        """
        data = (
            b"".join(self._kept or ())
            if self._path is None
            else read_bytes(self._path, most=_LARGEST)
        )
        return read_lines(data)

    def _write(self, line: Line) -> bytes:
        data = line.encode()
        if self._path is not None:
            append_line(self._path, data.decode("ascii"))
        if self._kept is not None:
            self._kept.append(data + b"\n")
        self._heads.append(line.head)
        return line.head


def read_lines(data: bytes) -> Iterator[Line]:
    """Lines of a transcript's file, each checked to continue the one before.

    Raises:
        RefusedError: `malformed`: the number of the damaged line is named.
    """
    before = START
    for number, text in enumerate(data.split(b"\n")[:-1], 1):
        try:
            line = Line.read(text)
        except SecureSumError as problem:
            raise malformed("transcript", f"line {number}: {problem.problem}") from None
        if line.before != before:
            raise malformed(
                "transcript", f"line {number}: before: does not continue the line before"
            )
        before = line.head
        yield line


def _hashed(document: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(b"secure-fl transcript 1|" + canonical(document)).digest()


def _forked(entries: int) -> RoundRefusedError:
    remedy = "trust no later entry: somebody shows different parties different histories"
    return RoundRefusedError(
        RoundReason.FORKED,
        "not the transcript that was known",
        field="transcript",
        value=f"{entries} entries",
        remedy=remedy,
    )
