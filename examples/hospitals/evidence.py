"""What only a site may have, and the search for it in everything that others keep."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_ssh_private_key,
)

_PEM = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.S)
_PIECE = 16
"""Bytes of a key that are looked for: nothing else is equal to them by chance."""


def mark() -> str:
    """A word that is nowhere else."""
    return f"canary-{secrets.token_hex(12)}"


def windows_of(x: np.ndarray) -> Iterator[bytes]:
    """Some of the numbers of some examples, as they lie in memory."""
    for window in x[:: max(1, len(x) // 50)]:
        yield np.ascontiguousarray(window).tobytes()[:32]
        yield np.ascontiguousarray(window.T).tobytes()[:32]


def tensors_of(safetensors: Path) -> Iterator[bytes]:
    """Some of the numbers of a model."""
    data = safetensors.read_bytes()
    for start in range(len(data) // 2, len(data) - 32, max(32, len(data) // 100)):
        yield data[start : start + 32]


def keys_in(folder: Path) -> Iterator[bytes]:
    """Halves of every private key in a folder: of PEM files, and of 32 bytes without a form."""
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        data = path.read_bytes()
        for text in _PEM.findall(data.replace(b"\\n", b"\n")):
            yield from _pieces(_number(text))
        if len(data) == 32:
            yield from _pieces(data)


def _number(pem: bytes) -> bytes:
    """The secret number of a key, without what is public of it."""
    load = load_ssh_private_key if b"OPENSSH" in pem else load_pem_private_key
    key = load(pem, None)
    if isinstance(key, EllipticCurvePrivateKey):
        return key.private_numbers().private_value.to_bytes(key.key_size // 8 + 1, "big")[1:]
    return key.private_bytes_raw()


def _pieces(secret: bytes) -> Iterator[bytes]:
    for start in range(0, len(secret) - _PIECE + 1, _PIECE):
        yield secret[start : start + _PIECE]


def spellings(secret: bytes) -> set[bytes]:
    """A secret as it is, in hex, and in base64 wherever it begins in a text."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + secret)
        # letters that depend on the secret alone
        found.add(text[-(-shift * 8 // 6) : (shift + len(secret)) * 8 // 6])
    return found


def search(marks: Iterable[bytes], folders: Iterable[Path]) -> tuple[list[str], int, int]:
    """Where a mark is; how many were looked for, in how many files."""
    wanted = {each for each in marks if len(set(each)) > _PIECE // 2}  # zeros are everywhere
    by_head: dict[int, list[bytes]] = {}
    for each in {spelt for secret in wanted for spelt in spellings(secret)}:
        by_head.setdefault(int.from_bytes(each[:8], "little"), []).append(each)
    hits, files = [], 0
    for folder in folders:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            files += 1
            hits += [f"{path} at byte {at}" for at in _places(path.read_bytes(), by_head)]
    return hits, len(wanted), files


def _places(data: bytes, by_head: dict[int, list[bytes]]) -> Iterator[int]:
    """Where one of these is, found by its first eight bytes: of many marks in many bytes."""
    heads = np.array(sorted(by_head), dtype="<u8")
    for shift in range(min(8, max(0, len(data) - 7))):
        words = np.frombuffer(data, "<u8", count=(len(data) - shift) // 8, offset=shift)
        for place in np.flatnonzero(np.isin(words, heads)):
            at = int(place) * 8 + shift
            if any(data.startswith(each, at) for each in by_head[int(words[place])]):
                yield at
