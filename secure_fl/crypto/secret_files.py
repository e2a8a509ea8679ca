"""Files that hold secrets: mode 0600 from the first byte, whole or absent."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from secure_fl.errors import FileError, SecureSumError
from secure_fl.files import make_folder, open_file, write_atomically

_LONGEST = 1 << 24


def write_secret(path: Path, data: bytes, *, overwrite: bool = False) -> None:
    """Write a secret: a file of mode 0600, whole or not at all; see `files.write_atomically`.

    Args:
        path: the file; missing parents are made with mode 0700.
        data: the secret.
        overwrite: whether an existing file may be replaced.

    Raises:
        SecureSumError: the file exists, or the folder cannot be written.
    """
    try:
        make_folder(path.parent)
        write_atomically(path, data, exclusive=not overwrite)
    except FileExistsError:
        remedy = "choose another name; a key is never replaced without being told"
        raise SecureSumError("the file exists", "key file", str(path), remedy) from None
    except FileError as error:
        raise SecureSumError(error.problem, "key file", str(path), error.remedy) from None


def read_secret(path: Path) -> bytes:
    """Read what `write_secret` wrote. Raises SecureSumError: missing, readable by others, too
    large, or the passphrase is missing or wrong.
    """
    try:
        with open_file(path, links=False) as file:
            state = os.fstat(file.fileno())
            if os.name == "posix" and state.st_mode & 0o077:
                problem = "others may read this secret"
                remedy = f"chmod 600 {path}; if it was shared, revoke it"
                raise SecureSumError(problem, "key file", oct(stat.S_IMODE(state.st_mode)), remedy)
            content = file.read(_LONGEST + 1)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        remedy = "name the file that `secure-fl keys` wrote"
        raise SecureSumError(problem, "key file", str(path), remedy) from None
    if len(content) > _LONGEST:
        remedy = "name the file that `secure-fl keys` wrote"
        raise SecureSumError("too large for a key", "key file", len(content), remedy)
    return content
