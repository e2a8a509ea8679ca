"""Files that hold secrets: mode 0600 from the first byte, whole or absent, under a passphrase when
one is given.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from secure_fl.errors import FileError, SecureSumError
from secure_fl.files import make_folder, open_file, write_atomically

_MAGIC = b"SFP1"
_SALT, _NONCE = 16, 12
_SCRYPT_COST = 2**15
_LONGEST = 1 << 24


def write_secret(
    path: Path, data: bytes, *, passphrase: str | None = None, overwrite: bool = False
) -> None:
    """Write a secret: a file of mode 0600, whole or not at all; see `files.write_atomically`.

    Args:
        path: the file; missing parents are made with mode 0700.
        data: the secret.
        passphrase: scrypt (2^15, 8, 1) and ChaCha20-Poly1305 when given.
        overwrite: whether an existing file may be replaced.

    Raises:
        SecureSumError: the file exists, the passphrase is empty, or the folder cannot be written.
    """
    content = data if passphrase is None else _encrypt(data, passphrase)
    try:
        make_folder(path.parent)
        write_atomically(path, content, exclusive=not overwrite)
    except FileExistsError:
        remedy = "choose another name; a key is never replaced without being told"
        raise SecureSumError("the file exists", "key file", str(path), remedy) from None
    except FileError as error:
        raise SecureSumError(error.problem, "key file", str(path), error.remedy) from None


def read_secret(path: Path, *, passphrase: str | None = None) -> bytes:
    """Read what `write_secret` wrote.

    Raises:
        SecureSumError: missing, readable by others, too large, or the passphrase is missing
            or wrong.
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
    return _decrypt(content, passphrase)


def _key(passphrase: str, salt: bytes) -> bytes:
    if not passphrase:
        remedy = "give one, or none at all for an unencrypted file"
        raise SecureSumError("empty", "passphrase", "", remedy)
    return Scrypt(salt=salt, length=32, n=_SCRYPT_COST, r=8, p=1).derive(passphrase.encode())


def _encrypt(data: bytes, passphrase: str) -> bytes:
    salt, nonce = os.urandom(_SALT), os.urandom(_NONCE)
    head = _MAGIC + salt + nonce
    return head + ChaCha20Poly1305(_key(passphrase, salt)).encrypt(nonce, data, head)


def _decrypt(content: bytes, passphrase: str | None) -> bytes:
    encrypted = content.startswith(_MAGIC)
    if not encrypted and passphrase is None:
        return content
    if not encrypted or passphrase is None:
        problem = (
            "the file is encrypted and no passphrase is given"
            if encrypted
            else "a passphrase is given and the file is not encrypted"
        )
        remedy = "give it exactly where the file has one"
        raise SecureSumError(problem, "passphrase", "not shown", remedy)
    head_bytes = len(_MAGIC) + _SALT + _NONCE
    head, body = content[:head_bytes], content[head_bytes:]
    salt, nonce = head[len(_MAGIC) : len(_MAGIC) + _SALT], head[len(_MAGIC) + _SALT :]
    try:
        return ChaCha20Poly1305(_key(passphrase, salt)).decrypt(nonce, body, head)
    except (InvalidTag, ValueError):
        problem = "wrong passphrase or damaged file"
        remedy = "give the right passphrase, or restore the file"
        raise SecureSumError(problem, "passphrase", "not shown", remedy) from None
