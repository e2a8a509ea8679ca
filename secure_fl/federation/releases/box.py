"""A private result is made once: stored before it is sent, and sent again, bit for bit, when the
same question comes again.

Without this a client that was killed after it had answered would draw new noise for the same round,
and two noisy answers protect less than one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path

from torch import Tensor

from secure_fl.crypto.sealing import open_with, seal_with
from secure_fl.errors import FileError, RunFolderError, SecureSumError
from secure_fl.federation.releases.run_state import RunState
from secure_fl.federation.tensors import pack, unpack
from secure_fl.files import (
    append_line,
    file_error,
    is_file,
    make_folder,
    read_bytes,
    remove,
    write_atomically,
)
from secure_fl.privacy.chain import Chain

Tensors = dict[str, Tensor]

_NOW, _BEFORE, _REUSED = "rounds", "rounds-before", "reused"
_MARK = "made"
_AGAIN = "/again-"
_LARGEST = 1 << 36


def charged_again(key: str, number: int) -> str:
    """The key under which a question is charged once more, because an answer to it was lost."""
    return f"{key}{_AGAIN}{number}"


class ReleaseBox:
    """Results by the key of their release, in a folder, or nowhere when the run writes nothing and
    so cannot be resumed.

    A result holds one client's own share of the noise, and may be meant for a sum only: it is
    sealed, under a key that lies in the user's state directory, and for its release. Results of
    rounds are kept as long as the checkpoint before them is. A list of what was made outlives them:
    an answer that was made and is gone is another one when it is made again, and the gate charges
    for both.

    **Guarantee.** For each release, `once` returns at most `answers` different results, over kills,
    restarts and processes side by side, and whatever was deleted in between: the list is held
    against a mark in the state directory, and where list, mark or key are gone, everything that was
    charged counts as made.

    **Assumes.** Folder and state directory are not both put back to what they were before.

    **Not covered.** Who reads the state directory, or this process' memory, as well as the folder.
    """

    def __init__(
        self,
        folder: Path | None,
        state: RunState | None = None,
        charged: Callable[[], Iterable[str]] = tuple,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`state`: where the key is; by default named after the box's path. `charged`: the keys
        that the ledger holds.

        `check` raises where the folder is another one by now, and is asked before anything
        is stored.
        """
        self._folder, self._state, self._charged, self._check = folder, state, charged, check
        self._key: bytes | None = None

    def once(self, key: str, make: Callable[[], Tensors], *, reused: bool = False) -> Tensors:
        """The stored result of the release `key`; if there is none, `make()`, stored and listed
        before it is returned. Raises FileError: it cannot be stored; it has not been sent either.

        Args:
            reused: the client comes back to it in later rounds, as to its sketch; others are
                forgotten with the second `checkpointed`.
        """
        if self._folder is None:
            return make()
        self._begin()
        result, number = self._stored(key) or self._store(key, make(), _REUSED if reused else _NOW)
        while self._made[_name(key)] <= number:
            self._enter(_name(key))
        return result

    def go_on_from(self, earlier: ReleaseBox) -> None:
        """Take over what the same client made and comes back to under an earlier plan, and the list
        of all that it made; before the first question. It is done once, and whatever is not taken
        over counts as made and lost.

        Args:
            earlier: of the folder before, which stays as it is.
        """
        assert self._folder is not None
        assert earlier._folder is not None
        self._state = self._state or RunState(f"box-{_name(str(self._folder.resolve()))}")
        if self._state.mark(_MARK) is not None:
            return
        earlier._begin()
        self._key = self._state.key() or self._state.new_key()
        for key in earlier._charged():
            stored = earlier._stored(key, (_REUSED,))
            if stored is not None:
                self._write(key, *stored)
        names = earlier._made.elements()
        write_atomically(self._list, "".join(f"{name}\n" for name in names))
        self._read_list()
        self._state.keep(_MARK, self._chain.mark)

    def find(self, key: str) -> Tensors | None:
        """The stored result of the release `key`, or None; nothing is made."""
        if self._folder is None:
            return None
        self._begin()
        stored = self._stored(key)
        return None if stored is None else stored[0]

    def answers(self, key: str) -> int:
        """How many different answers there are once the question of `key` has been answered, at
        least one.
        """
        if self._folder is None:
            return 1
        self._begin()
        stored, made = self._stored(key), self._made[_name(key)]
        return made + 1 if stored is None else max(made, stored[1] + 1)

    def lost(self, key: str) -> bool:
        """Whether the result was made, and perhaps sent, but is gone."""
        return self.answers(key) > 1 and self._stored(key) is None

    def checkpointed(self) -> None:
        """A checkpoint was written: forget the results of the rounds before the one before it."""
        if self._folder is None:
            return
        remove(self._folder / _BEFORE)
        try:
            (self._folder / _NOW).rename(self._folder / _BEFORE)
        except FileNotFoundError:
            return
        except OSError as error:
            raise file_error(error, self._folder / _NOW, "moved") from None

    def close(self) -> None:
        """Forget all results, the key first: the run is over."""
        if self._folder is not None:
            if self._state is not None:
                self._state.forget()
            remove(self._folder)
            self._key = None

    @property
    def _list(self) -> Path:
        assert self._folder is not None
        return self._folder.with_name(f"{self._folder.name}.made")

    def _begin(self) -> None:
        """Before the first question: find the key and the list; where one is gone or shortened, all
        that was charged counts as made.
        """
        if self._key is not None:
            return
        assert self._folder is not None
        state = self._state = self._state or RunState(f"box-{_name(str(self._folder.resolve()))}")
        state.lies_apart_from(self._folder.parent)
        make_folder(self._folder.parent)
        found, mark = state.key(), state.mark(_MARK)
        there = is_file(self._list)
        self._read_list()
        if found is None or mark is None or not there or not self._chain.holds(mark):
            made = Counter(_name(key.partition(_AGAIN)[0]) for key in self._charged()) | self._made
            write_atomically(self._list, "".join(f"{name}\n" for name in made.elements()))
            self._read_list()
            state.keep(_MARK, self._chain.mark)
        self._key = found or state.new_key()

    def _read_list(self) -> None:
        """Take in the list; half a line at its end, of a process that was killed, is cut."""
        data = read_bytes(self._list, most=_LARGEST) if is_file(self._list) else b""
        whole, _, torn = data.rpartition(b"\n")
        if torn:
            write_atomically(self._list, whole + b"\n" if whole else b"")
        names = whole.decode("ascii", errors="replace").split("\n") if whole else []
        self._made, self._chain = Counter(names), Chain(_MARK, names)

    def _enter(self, name: str) -> None:
        """List an answer, and mark how far the list has come."""
        assert self._state is not None
        append_line(self._list, name, new=not self._made)
        self._made[name] += 1
        self._chain.add(name)
        self._state.keep(_MARK, self._chain.mark)

    def _store(self, key: str, made: Tensors, part: str) -> tuple[Tensors, int]:
        """Publish a result and give it its number; where somebody else was first, theirs is
        the result.
        """
        assert self._folder is not None
        assert self._key is not None
        self._check()
        sealed = seal_with(self._key, pack(made), _context(key))
        make_folder(self._folder / part)
        for number in count(self._made[_name(key)]):
            try:
                write_atomically(self._folder / part / _file(key, number), sealed, exclusive=True)
            except FileExistsError:
                self._read_list()
                theirs = self._stored(key)
                if theirs is not None:
                    return theirs
            else:
                return made, number
        raise AssertionError

    def _write(self, key: str, made: Tensors, number: int) -> None:
        """Store a result that the client comes back to."""
        assert self._folder is not None
        assert self._key is not None
        self._check()
        make_folder(self._folder / _REUSED)
        sealed = seal_with(self._key, pack(made), _context(key))
        write_atomically(self._folder / _REUSED / _file(key, number), sealed)

    def _stored(
        self, key: str, parts: Sequence[str] = (_NOW, _BEFORE, _REUSED)
    ) -> tuple[Tensors, int] | None:
        """The last result of a release and its number, if it is there and opens; it may be stored
        and not listed yet.
        """
        assert self._folder is not None
        assert self._key is not None
        made = self._made[_name(key)]
        for number in (made, made - 1):
            for part in parts:
                path = self._folder / part / _file(key, number)
                try:
                    sealed = read_bytes(path, most=_LARGEST) if is_file(path) else b""
                    opened = open_with(self._key, sealed, _context(key))
                    return unpack(opened, field=path.name, value="", remedy=""), number
                except (FileError, SecureSumError, RunFolderError):
                    continue
        return None


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _file(key: str, number: int) -> str:
    return f"{_name(key)}-{number}.sealed"


def _context(key: str) -> bytes:
    return b"secure-fl private result 1|" + key.encode()
