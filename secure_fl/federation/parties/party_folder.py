"""One party's own folder, from which it goes on when it is made again after a kill.

    owner          who it belongs to, in the open
    NAME.sealed    what is secret, under the party's key
    NAME           what is not

Guarantee: while a party lives nobody else has its folder. Every file is whole, old or new, and on
the disk before anything that follows from it is sent. Who has the folder without the key reads no
secret of it; a file that was changed, cut, or is another party's, is refused by name.
Assumes: the key lies apart, in the user's state directory, or where `key` comes from. The folder is
not put back to what it was: an older one would do again what was done.
Not covered: blocks of a replaced file that a disk still holds.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from blake3 import blake3

from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.sealing import open_with, seal_with
from secure_fl.crypto.secret_files import read_secret, write_secret
from secure_fl.errors import RunFolderError, SecureSumError
from secure_fl.federation.releases.run_state import RunState
from secure_fl.files import (
    held,
    is_file,
    listed,
    make_folder,
    read_bytes,
    remove,
    remove_unfinished,
    write_atomically,
)
from secure_fl.secure_sum.store import FolderStore

_LARGEST = 1 << 36
OWNER, HEAD = "owner", "head"
BEFORE, SUCCESSOR = "before", "successor"
"""In a client's folder, in the open: which plan it goes on from, and how far its ledger had come
there; and under which plan it goes on.
"""
_SEALED = ".sealed"
CHECK = 32
"""Bytes in front of a file in the open, by which damage is found."""


class PartyFolder:
    """A locked folder of one party.

    Args:
        path: made when missing.
        identity: whose it is.
        federation: the roster's name of it.
        key: file of the 32 bytes that seal what is secret, made when missing; one in the user's
            state directory, named after the folder, where none is given.

    Raises:
        RunFolderError: somebody holds it; it is another party's; the key is gone, or lies in it.
        FileError: it cannot be read or written.
        SecureSumError: others may read the key.
    """

    def __init__(
        self, path: Path, identity: Identity, federation: str, *, key: Path | None = None
    ) -> None:
        self.path = path
        self._whose = owner_of(identity.member, federation)
        self._holding, self._written = ExitStack(), dict[str, bytes]()
        make_folder(path, tighten=True)
        self._holding.enter_context(held(path))
        try:
            remove_unfinished(path)
            fresh = not is_file(path / OWNER)
            self._key = self._found(key or _key_file(path), fresh=fresh)
            self._check_owner(fresh=fresh)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def known(path: Path) -> bool:
        """Whether there was such a folder on this machine, also where it is gone by now."""
        return is_file(path / OWNER) or is_file(_key_file(path))

    def close(self) -> None:
        """Let go of it."""
        self._holding.close()

    def keep(self, name: str, data: bytes, *, sealed: bool = True) -> None:
        """Write a file; nothing is done where it holds these bytes. Raises FileError: it cannot be
        written; the old content is whole.
        """
        digest = blake3(data).digest()
        if self._written.get(name) == digest:
            return
        if sealed:
            body = seal_with(self._key, data, self._context(name))
            write_atomically(self.path / (name + _SEALED), body)
        else:
            write_atomically(self.path / name, self._checked(name, data) + data)
        self._written[name] = digest

    def kept(self, name: str, *, sealed: bool = True) -> bytes | None:
        """What was written last; None where there is no such file. Raises RunFolderError: damaged,
        another party's, or sealed under another key.
        """
        path = self.path / (name + _SEALED if sealed else name)
        if not is_file(path):
            return None
        data = read_bytes(path, most=_LARGEST)
        try:
            found = open_with(self._key, data, self._context(name)) if sealed else data[CHECK:]
        except SecureSumError:
            raise self.damaged(name, sealed=sealed) from None
        if not sealed and self._checked(name, found) != data[:CHECK]:
            raise self.damaged(name, sealed=sealed)
        self._written[name] = blake3(found).digest()
        return found

    def holds(self, name: str) -> bool:
        """Whether there is such a sealed file, whole or damaged."""
        return is_file(self.path / (name + _SEALED))

    def has(self, name: str) -> bool:
        """Whether this life of the party wrote or read that file."""
        return name in self._written

    def needed(self, name: str, *, sealed: bool = True) -> bytes:
        """As `kept`, of a file that another one counts on. Raises RunFolderError: also where it is
        gone.
        """
        found = self.kept(name, sealed=sealed)
        if found is None:
            raise self.damaged(name, sealed=sealed, problem="is gone")
        return found

    def only(self, prefix: str, names: Iterable[str]) -> None:
        """Remove sealed files of this prefix but for these."""
        kept = {name + _SEALED for name in names}
        for path in listed(self.path):
            name = path.name
            if name.startswith(prefix) and name.endswith(_SEALED) and name not in kept:
                remove(path)
                self._written.pop(name.removesuffix(_SEALED), None)

    def rounds(self, part: int = 0) -> FolderStore:
        """What the secure sum keeps of rounds; groups of one round lie apart."""
        return FolderStore(self.path / f"rounds-{part}", self._key)

    def damaged(
        self, name: str, *, sealed: bool = True, problem: str = "damaged, or another party's"
    ) -> RunFolderError:
        """The error for a file that is not what it must be."""
        path = self.path / (name + _SEALED if sealed else name)
        remedy = (
            "put back the file, or begin with an empty folder and a new identity: who loses count "
            "of its answers must not answer again"
        )
        return RunFolderError(problem, path.name, str(path), remedy)

    def _found(self, path: Path, *, fresh: bool) -> bytes:
        if self.path.resolve() in path.resolve().parents:
            remedy = "name a file outside of the folder: a key must not lie beside what it seals"
            raise RunFolderError("lies in the folder", "key", str(path), remedy)
        if not is_file(path):
            if not fresh:
                remedy = (
                    "start it as the same user, with the SECURE_FL_STATE under which it began; "
                    "if the key is lost, begin with an empty folder and a new identity"
                )
                raise RunFolderError("is gone", "key", str(path), remedy)
            write_secret(path, secrets.token_bytes(32))
        return read_secret(path)

    def _check_owner(self, *, fresh: bool) -> None:
        if fresh:
            self.keep(OWNER, self._whose.encode(), sealed=False)
        found = self.kept(OWNER, sealed=False) or b""
        if found != self._whose.encode():
            raise self.damaged(OWNER, sealed=False, problem="belongs to another party")

    def _context(self, name: str) -> bytes:
        return b"secure-fl party 1|" + self._whose.encode() + b"|" + name.encode()

    def _checked(self, name: str, data: bytes) -> bytes:
        # the owner's file says whose it is itself
        return checked("" if name == OWNER else self._whose, name, data)


def owner_of(member: Member, federation: str) -> str:
    """Whose a folder is, as stands in it."""
    return f"{member.role} {member.name} of {federation} {member.fingerprint}"


def checked(whose: str, name: str, data: bytes) -> bytes:
    """The bytes in front of a file in the open; anybody can compute them."""
    context = f"secure-fl party 1|{whose}|{name}|".encode()
    return blake3(context + data).digest()


def _key_file(path: Path) -> Path:
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    return RunState(f"party-{name}").folder / "key"
