"""The transcript: what happened in a federation, in order, as a chain of hashes.

Anybody can check it without the models. It is a file of lines, each one JSON object in its
canonical spelling (`strict_json`):

    {"before": hash of the line before, "evidence": [base64, ...], "facts": {...},
     "hash": this line's hash, "kind": "sum"}

`hash` is SHA-256 over the line without it, with a digest in the evidence's place; so a line that is
sent to a party that follows may leave the evidence out, and say that digest instead. The first
line's `before` is `START`. Facts are public or released; evidence are signed messages, or signed
heads of them. What each kind of entry says is in `entries`.

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
from secure_fl.federation.transcript.entries import Entry, entry_of, facts_of
from secure_fl.files import append_line, read_bytes, write_atomically
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError

START = hashlib.sha256(b"secure-fl transcript 1").digest()
"""Head of an empty transcript."""
_FIELDS = {"before": str, "facts": dict, "hash": str, "kind": str}
_LARGEST = 1 << 34
_LONGEST_LINE = 1 << 26
_BRIEF = 256
"""Lines that are kept to be shown again."""


@dataclass(frozen=True)
class Line:
    """One entry as it stands in the chain.

    Attributes:
        entry: what it says.
        evidence: signed messages or heads of them; empty where it was left out.
        before: 32 bytes, the hash of the line before.
        head: 32 bytes, this line's hash.
        seal: 32 bytes, the digest of the evidence.
    """

    entry: Entry
    evidence: tuple[bytes, ...]
    before: bytes
    head: bytes
    seal: bytes

    @property
    def whole(self) -> bool:
        """Whether the evidence is there, where there is any."""
        return self.seal == _sealed(self.evidence)

    @classmethod
    def made(cls, before: bytes, entry: Entry, evidence: Sequence[bytes] = ()) -> Line:
        """The line that says `entry` after the line whose hash is `before`."""
        seal = _sealed(evidence)
        head = _hashed(before, entry, seal)
        return cls(entry, tuple(evidence), before, head, seal)

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
        value = parse_object(data, "transcript")
        kind = str if isinstance(value.get("evidence"), str) else list
        found = fields(value, "transcript", {**_FIELDS, "evidence": kind})
        before, head = (from_hex(found[name], name, 32) for name in ("before", "hash"))
        evidence: tuple[bytes, ...] = ()
        if kind is str:
            seal = from_hex(found["evidence"], "evidence", 32)
        else:
            evidence = tuple(from_base64(text, "evidence") for text in found["evidence"])
            seal = _sealed(evidence)
        entry = entry_of(found["kind"], found["facts"])
        if head != _hashed(before, entry, seal):
            raise malformed("transcript", "the hash is not that of the line")
        return cls(entry, evidence, before, head, seal)

    def encode(self) -> bytes:
        """The line, without its line break."""
        evidence = [to_base64(each) for each in self.evidence]
        return self._encoded(evidence if self.whole else self.seal.hex())

    def brief(self) -> bytes:
        """The line without its evidence."""
        return self._encoded(self.seal.hex())

    def _encoded(self, evidence: list[str] | str) -> bytes:
        signed = {"evidence": evidence, "hash": self.head.hex()}
        return canonical(_document(self.before, self.entry) | signed)


class Transcript:
    """An append-only list of entries, in a file or in memory.

    Made by `new` or `open`; a file has one writer at a time (`files.held`).
    """

    def __init__(self, path: Path | None, heads: list[bytes], kept: list[bytes] | None) -> None:
        self._path, self._heads, self._kept = path, heads, kept
        self._brief: list[bytes] = []
        """The last lines without their evidence: those that are still to be shown to others."""

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
            kind: see `entries.KINDS`.
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

    def after(self, head: bytes) -> list[bytes]:
        """The lines after a head, without their evidence; all where that was never its head.

        Raises:
            RefusedError: `malformed`: the file was damaged meanwhile.
            FileError: it cannot be read.
        """
        if head == self.head:
            return []
        known = self._heads.index(head) if head in self._heads else 0
        if known >= len(self._heads) - 1 - len(self._brief):
            return list(self._brief[known - len(self) :])
        return [line.brief() for line in self.lines()][known:]

    def follows(self, head: bytes) -> None:
        """Check that `head` was once its head. Raises RoundRefusedError: `forked`."""
        if head not in self._heads:
            raise forked(len(self))

    def lines(self) -> Iterator[Line]:
        """Every line, from the first.

        Raises:
            RefusedError: `malformed`: the file was damaged meanwhile.
            FileError: it cannot be read.
        """
        if self._path is None:
            return read_lines(b"".join(self._kept or ()))
        return read_lines(read_bytes(self._path, most=_LARGEST))

    def _write(self, line: Line) -> bytes:
        data = line.encode()
        if self._path is not None:
            append_line(self._path, data.decode("ascii"))
        if self._kept is not None:
            self._kept.append(data + b"\n")
        self._heads.append(line.head)
        self._brief = [*self._brief[1 - _BRIEF :], line.brief()]
        return line.head


def read_lines(data: bytes) -> Iterator[Line]:
    """Lines of a transcript's file, each checked to continue the one before. Raises RefusedError:
    `malformed`: the number of the damaged line is named.
    """
    before = START
    for number, text in enumerate(data.split(b"\n")[:-1], 1):
        try:
            line = Line.read(text)
        except SecureSumError as error:
            raise malformed("transcript", f"line {number}: {error.problem}") from None
        if line.before != before:
            problem = f"line {number}: before: does not continue the line before"
            raise malformed("transcript", problem)
        before = line.head
        yield line


def _document(before: bytes, entry: Entry) -> dict[str, Any]:
    return {"before": before.hex(), "facts": facts_of(entry), "kind": entry.kind}


def _sealed(evidence: Sequence[bytes]) -> bytes:
    digests = b"".join(hashlib.sha256(each).digest() for each in evidence)
    return hashlib.sha256(b"secure-fl evidence 1|" + digests).digest()


def _hashed(before: bytes, entry: Entry, seal: bytes) -> bytes:
    document = {**_document(before, entry), "evidence": seal.hex()}
    return hashlib.sha256(b"secure-fl transcript 1|" + canonical(document)).digest()


def forked(entries: int) -> RoundRefusedError:
    """What is raised where somebody shows another transcript than is known, of so many entries."""
    problem = "not the transcript that was known"
    remedy = "trust no later entry: somebody shows different parties different histories"
    return RoundRefusedError(
        RoundReason.FORKED, problem, "transcript", f"{entries} entries", remedy
    )
