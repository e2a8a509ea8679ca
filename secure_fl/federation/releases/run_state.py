"""What a private run keeps outside of its folder, in the user's own state directory: the key of its
stored results, and how far it had come.

The key lies apart so that whoever gets the run's folder, or a copy of it, reads no single client's
result. The marks lie apart so that a folder which is put back to an earlier state is found out.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from secure_fl.crypto.secret_files import read_secret, write_secret
from secure_fl.errors import FileError, RunFolderError, SecureSumError
from secure_fl.files import (
    held,
    is_file,
    is_lock,
    listed,
    make_folder,
    read_json,
    remove,
    write_json,
)
from secure_fl.privacy.chain import Mark

_KEY_BYTES = 32
LEDGER = "ledger"
"""Name of the mark that says how far the ledger had come; the only one that outlives the run."""
_ELSEWHERE = (
    "set SECURE_FL_STATE to an absolute path of a folder that you can write to and only you can "
    "read, outside of the run's"
)
_REMEDY = "delete it: the run goes on, and charges again for what it has to make again"


def state_directory() -> Path:
    """`SECURE_FL_STATE`, else `secure_fl` in `XDG_STATE_HOME`, else `~/.local/state/secure_fl`.
    Raises RunFolderError: there is no home directory, or `SECURE_FL_STATE` is no absolute path.
    """
    chosen, shared = os.environ.get("SECURE_FL_STATE"), Path(os.environ.get("XDG_STATE_HOME", ""))
    if chosen:
        if not Path(chosen).is_absolute():
            raise RunFolderError("not an absolute path", "SECURE_FL_STATE", chosen, _ELSEWHERE)
        return Path(chosen)
    try:
        return (shared if shared.is_absolute() else Path.home() / ".local" / "state") / "secure_fl"
    except RuntimeError:
        problem = "there is no home directory"
        raise RunFolderError(problem, "SECURE_FL_STATE", None, _ELSEWHERE) from None


class RunState:
    """One run's folder under the state directory: `key`, and a mark a file.

    **Guarantee.** Mode 0700, files 0600, made when first written to. After `forget` the key is
    gone, and all but how far the ledger had come.

    **Assumes.** The state directory is the user's own and is not copied together with the
    run's folder.

    **Not covered.** Blocks of a deleted file that a disk still holds.
    """

    def __init__(self, name: str) -> None:
        self.folder = state_directory() / "runs" / name
        self._key = self.folder / "key"

    def key(self) -> bytes | None:
        """The key, or None where there is none. Raises SecureSumError: others may read it, or it
        cannot be read.
        """
        key = read_secret(self._key) if is_file(self._key) else b""
        return key if len(key) == _KEY_BYTES else None

    def new_key(self) -> bytes:
        """A fresh key where there is none; of several processes at once, all get the same. Raises
        SecureSumError: it cannot be written.
        """
        try:
            write_secret(self._key, secrets.token_bytes(_KEY_BYTES))
        except SecureSumError:
            if not is_file(self._key):  # else another process wrote it meanwhile
                raise
        return read_secret(self._key)

    def mark(self, name: str) -> Mark | None:
        """The mark kept under a name, or None. Raises RunFolderError: it is damaged."""
        path = self.folder / f"{name}.json"
        return read_json(path, Mark, _REMEDY) if is_file(path) else None

    def keep(self, name: str, mark: Mark) -> None:
        """Keep a mark under a name, in place of an earlier one. Raises RunFolderError: the state
        directory cannot be written to.
        """
        try:
            make_folder(self.folder)
            write_json(self.folder / f"{name}.json", vars(mark))
        except FileError as error:
            problem = error.problem
            raise RunFolderError(problem, "SECURE_FL_STATE", str(self.folder), _ELSEWHERE) from None

    def lies_apart_from(self, folder: Path) -> None:
        """Refuse to lie in a run's own folder. Raises RunFolderError: it does."""
        if folder.resolve() in self.folder.resolve().parents:
            problem = "lies in the run's own folder"
            remedy = (
                "set SECURE_FL_STATE to a folder outside: keys must not lie beside what they seal"
            )
            raise RunFolderError(problem, "SECURE_FL_STATE", str(self.folder), remedy)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for one run: a copy of the run's folder, resumed beside it, would release the
        same once more with other noise. Raises RunFolderError: somebody else holds it, or the state
        directory cannot be written to.
        """
        with contextlib.ExitStack() as holding:
            try:
                make_folder(self.folder)
                holding.enter_context(held(self.folder))
            except RunFolderError as error:
                problem, remedy = f"this run, or a copy of it, {error.problem}", error.remedy
                raise RunFolderError(problem, "run folder", self.folder.name, remedy) from None
            except FileError as error:
                raise RunFolderError(
                    error.problem, "SECURE_FL_STATE", str(self.folder), _ELSEWHERE
                ) from None
            yield

    def forget(self) -> None:
        """The run is over: delete the key, then all else but how far the ledger had come, by which
        an older copy of the folder is known.
        """
        remove(self._key)
        kept = self.folder / f"{LEDGER}.json"
        for path in listed(self.folder) if is_file(kept) else [self.folder]:
            if path != kept and not is_lock(path):
                remove(path)
