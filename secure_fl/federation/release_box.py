"""A private result is made once: stored before it is sent, and sent again, bit for bit, when the same question comes again.

Without this a client that was killed after it had answered would draw new noise for the same round, and two noisy answers protect less than one.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.files import sync

Tensors = dict[str, Tensor]


class ReleaseBox:
    """Results by the key of their release, in a folder, or nowhere when the run writes nothing and so cannot be resumed.

    What is stored is what leaves the client anyhow: noised results, never data, gradients or keys. Results of rounds are kept as long as
    the checkpoint before them is. A list of what was made outlives them: a result that is gone is `lost`, and asking for it again is a
    release of its own.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.reading = False
        """While true nothing new is made: for what a resumed run goes through again."""

    def once(self, key: str, make: Callable[[], Tensors], *, reused: bool = False) -> Tensors:
        """The stored result of the release `key`; if there is none, `make()`, stored and listed before it is returned.

        Args:
            reused: the client comes back to it in later rounds, as to its sketch; others are forgotten with the second `checkpointed`.

        Raises:
            PrivacyError: it is gone, and `reading`.
        """
        if self._folder is None:
            return make()
        stored = self._stored(key)
        if stored is not None:
            return load_file(stored)
        if self.reading:
            remedy = "put the run's private-results folder back, or start a new run"
            raise PrivacyError(
                "a released result is gone, and would be made again with other noise", field="private-results", value=key, remedy=remedy
            )
        made = make()
        folder = self._folder / ("reused" if reused else _NOW)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _name(key)
        temporary = path.with_suffix(".writing")
        save_file({name: tensor.contiguous() for name, tensor in made.items()}, temporary)
        sync(temporary)
        temporary.replace(path)
        sync(folder)
        self._list(key)
        return made

    def find(self, key: str) -> Tensors | None:
        """The stored result of the release `key`, or None; nothing is made."""
        stored = None if self._folder is None else self._stored(key)
        return None if stored is None else load_file(stored)

    def lost(self, key: str) -> bool:
        """Whether the result was made, and perhaps sent, but is gone."""
        if self._folder is None or self._stored(key) is not None:
            return False
        return self._made.exists() and _name(key) in self._made.read_text(encoding="ascii").split()

    def checkpointed(self) -> None:
        """A checkpoint has been written: forget the results of the rounds before the one before it."""
        if self._folder is not None:
            shutil.rmtree(self._folder / _BEFORE, ignore_errors=True)
            if (self._folder / _NOW).exists():
                (self._folder / _NOW).rename(self._folder / _BEFORE)

    def close(self) -> None:
        """Forget all results: the run is over."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _made(self) -> Path:
        assert self._folder is not None
        return self._folder.with_name(f"{self._folder.name}.made")

    def _list(self, key: str) -> None:
        with self._made.open("a", encoding="ascii") as file:
            file.write(_name(key) + "\n")
            file.flush()
        sync(self._made)

    def _stored(self, key: str) -> Path | None:
        assert self._folder is not None
        paths = (self._folder / part / _name(key) for part in (_NOW, _BEFORE, "reused"))
        return next((path for path in paths if path.exists()), None)


_NOW, _BEFORE = "rounds", "rounds-before"


def _name(key: str) -> str:
    return f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
