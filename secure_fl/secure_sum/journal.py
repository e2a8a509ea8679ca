"""What the server of a round keeps, so that a server made again goes on in the same round.

Every message that it took, but for uploads, is written down in order, with a mark where a step
ended; since nothing that a server does is random, the messages played again give the same state,
and the same bytes to send. Uploads are not written: they are the clients' own to keep. While they
come in, a server that was made again asks for them once more. When they end, their sum is written,
once: of one million parameters in three pools 24 MB, as against as much for each of the clients.

Guarantee: before a step's messages go out, all that they follow from is on the disk. Nothing in a
journal is secret from the server: it has received or computed all of it.
Assumes: one server at a time goes on with a round.
Not covered: the record of refusals, which begins anew.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from blake3 import blake3

from secure_fl.crypto.key_streams import Slots
from secure_fl.crypto.refusals import RefusedError
from secure_fl.crypto.strict_json import canonical, fields, from_hex, parse_object
from secure_fl.errors import FileError, SecureSumError
from secure_fl.files import (
    PRIVATE,
    file_error,
    is_file,
    listed,
    make_folder,
    read_bytes,
    remove,
    write_atomically,
)
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.plan import RoundPlan

_ENTRY = struct.Struct(">BI8s")
_PLAN, _TAKEN, _ENDED = 0, 1, 2
_LARGEST = 1 << 40
_NAME = re.compile(r"([0-9]{1,18})\.(journal|sums)")
_KEPT = 2
"""Rounds whose journals stay beside the one that begins."""


@dataclass(frozen=True)
class Sums:
    """The uploads of a round, once they ended.

    Args:
        survivors: positions in the sum.
        uploads: 32 bytes over the headers of each survivor's upload, by name.
        heads: each survivor's signed envelope of block 0.
        signed: frames of the signed heads of each survivor's upload, block by block.
        words: each block's running sum, reduced, as its cipher or masks lay it out.
    """

    survivors: tuple[int, ...]
    uploads: dict[str, bytes]
    heads: tuple[bytes, ...] = field(repr=False)
    signed: tuple[bytes, ...] = field(repr=False)
    words: tuple[Slots, ...] = field(repr=False)

    def encode(self) -> bytes:
        """Facts, heads, signed heads, words; and BLAKE3 over them before."""
        uploads = {name: digest.hex() for name, digest in self.uploads.items()}
        facts = {"survivors": list(self.survivors), "uploads": uploads}
        words = (row.astype("<u8", copy=False).tobytes() for row in self.words)
        body = frames([canonical(facts), *self.heads, *self.signed, *words])
        return blake3(body).digest() + body

    @classmethod
    def decode(cls, data: bytes) -> Sums:
        """The inverse. Raises RefusedError, ValueError: anything else."""
        view = memoryview(data)
        if blake3(view[32:]).digest() != data[:32]:
            raise ValueError
        head, *rest = unframe(view[32:])
        facts = fields(parse_object(bytes(head), "sums"), "sums", _FACTS)
        uploads = {name: from_hex(text, "sums", 32) for name, text in facts["uploads"].items()}
        count = len(facts["survivors"])
        words = tuple(np.frombuffer(row, "<u8").astype(np.uint64) for row in rest[2 * count :])
        heads, signed = (tuple(map(bytes, rest[at:][:count])) for at in (0, count))
        return cls(tuple(facts["survivors"]), uploads, heads, signed, words)


_FACTS: dict[str, type | tuple[type, ...]] = {"survivors": list, "uploads": dict}


class RoundJournal:
    """One round's journal, in a folder that those of the rounds before and after share. Raises
    FileError: the folder cannot be written.

    Args:
        folder: made when missing.
        plan: the round's.
    """

    def __init__(self, folder: Path, plan: RoundPlan) -> None:
        self._folder, self._plan = folder, plan
        make_folder(folder)
        self._broken = False
        self._path, self._sums = (folder / f"{plan.round}.{part}" for part in ("journal", "sums"))

    def entries(self) -> list[bytes | None]:
        """Messages in the order in which they were taken, None where a step ended.

        Where there is no journal one begins. Half an entry at the end, of a server that was
        killed, is cut: what follows from it was never sent.

        Raises:
            SecureSumError: damaged, or another plan's.
        """
        if not is_file(self._path):
            self._begin()
            return []
        data, at, found = read_bytes(self._path, most=_LARGEST), 0, list[tuple[int, bytes]]()
        while len(data) - at >= _ENTRY.size:
            kind, length, check = _ENTRY.unpack_from(data, at)
            body = data[at + _ENTRY.size : at + _ENTRY.size + length]
            if len(body) < length:
                break
            if check != _checked(kind, body):
                if at + _ENTRY.size + length == len(data):
                    break
                raise self._damaged(self._path)
            found.append((kind, body))
            at += _ENTRY.size + length
        if not found or found[0] != (_PLAN, self._context):
            raise self._damaged(self._path)
        if at < len(data):
            try:
                os.truncate(self._path, at)
            except OSError as error:
                raise file_error(error, self._path, "written") from None
        return [body if kind == _TAKEN else None for kind, body in found[1:]]

    def take(self, data: bytes) -> None:
        """Write down a message; it is on the disk when the step ends. Raises FileError."""
        self._append(_TAKEN, data, synced=False)

    def end(self) -> None:
        """End a step: all up to here is on the disk. Raises FileError."""
        self._append(_ENDED, b"", synced=True)

    def keep(self, sums: Sums) -> None:
        """Write down what uploads came to, before their step ends. Raises FileError."""
        write_atomically(self._sums, sums.encode())

    def sums(self) -> Sums:
        """What was kept. Raises SecureSumError: damaged or gone."""
        try:
            return Sums.decode(read_bytes(self._sums, most=_LARGEST))
        except (RefusedError, ValueError):
            raise self._damaged(self._sums) from None

    @property
    def _context(self) -> bytes:
        plan = self._plan
        return plan.digest + plan.roster.digest + plan.key_fingerprint

    def _begin(self) -> None:
        numbers = sorted({number for number, _ in _journals(self._folder)} - {self._plan.round})
        for number, path in _journals(self._folder):
            if number not in numbers[-_KEPT:]:
                remove(path)
        write_atomically(self._path, _entry(_PLAN, self._context))

    def _append(self, kind: int, body: bytes, *, synced: bool) -> None:
        if self._broken:  # or it would be played again without what could not be written
            problem, remedy = "could not be written before", "make room, and make the server again"
            path = self._path
            raise FileError(problem, path.name, str(path), remedy)
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND, PRIVATE)
            try:
                end = os.lseek(handle, 0, os.SEEK_END)
                data = memoryview(_entry(kind, body))
                try:
                    while data:
                        data = data[os.write(handle, data) :]
                    if synced:
                        os.fsync(handle)
                except BaseException:
                    os.ftruncate(handle, end)
                    raise
            finally:
                os.close(handle)
        except OSError as error:
            self._broken = True
            raise file_error(error, self._path, "written") from None

    def _damaged(self, path: Path) -> SecureSumError:
        problem, remedy = "damaged, or another plan's", "remove it, and take the next round number"
        return SecureSumError(problem, "round journal", str(path), remedy)


def forget_after(folder: Path, last: int) -> None:
    """Remove what was written of rounds after the last one that anybody heard of. Raises FileError:
    a file cannot be removed.
    """
    for number, path in _journals(folder):
        if number > last:
            remove(path)


def _journals(folder: Path) -> list[tuple[int, Path]]:
    found = ((_NAME.fullmatch(path.name), path) for path in listed(folder))
    return [(int(name[1]), path) for name, path in found if name]


def _entry(kind: int, body: bytes) -> bytes:
    return _ENTRY.pack(kind, len(body), _checked(kind, body)) + body


def _checked(kind: int, body: bytes) -> bytes:
    return blake3(bytes([kind]) + body).digest()[:8]
