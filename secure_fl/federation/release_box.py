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

from secure_fl.files import sync

Tensors = dict[str, Tensor]


class ReleaseBox:
    """Results by the key of their release, in a folder, or nowhere when the run writes nothing and so cannot be resumed.

    What is stored is what leaves the client anyhow: noised results, never data, gradients or keys. Assumes that nobody deletes the folder of a
    run that is to be resumed: a result that is gone would be made again, with other noise.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def once(self, key: str, make: Callable[[], Tensors], *, reused: bool = False) -> Tensors:
        """The stored result of the release `key`; if there is none, `make()`, stored before it is returned.

        Args:
            reused: the client comes back to it in later rounds, as to its sketch; others are forgotten with `checkpointed`.
        """
        if self._folder is None:
            return make()
        folder = self._folder / ("reused" if reused else "rounds")
        path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
        if path.exists():
            return load_file(path)
        made = make()
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".writing")
        save_file({name: tensor.contiguous() for name, tensor in made.items()}, temporary)
        sync(temporary)
        temporary.replace(path)
        sync(folder)
        return made

    def checkpointed(self) -> None:
        """Forget the results of rounds: what they led to is in a checkpoint, and they will not be asked for again."""
        if self._folder is not None:
            shutil.rmtree(self._folder / "rounds", ignore_errors=True)

    def close(self) -> None:
        """Forget everything: the run is over."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
