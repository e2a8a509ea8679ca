"""SEAL through `tenseal.sealapi`: contexts, and bytes in and out of its objects without
Python lists.

sealapi reads and writes paths only, and writes zstd. A path that is an anonymous memory file
(`memfd_create`) keeps everything, secret keys included, off the disk; where the platform has none,
a private temporary file of mode 0600 stands in, overwritten after use. Reading is given
uncompressed streams, which SEAL takes as well.

Layout (SEAL 4.x): a stream is magic 0xA15E, header size 16, version major, minor, compression (0
none, 2 zstd), reserved u16, total size u64, then the body. A body nests further streams (`_array`).
"""

from __future__ import annotations

import importlib
import os
import struct
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import DependencyError, FileError
from secure_fl.he.parameters import ParameterSet

Words = NDArray[np.uint64]

_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC = 0xA15E
_CIPHER = struct.Struct("<32sBQQQdQ")
_PLAIN = struct.Struct("<32sQd")
_COUNT = struct.Struct("<Q")
SEED_BYTES = 64
_BLAKE2XB = 1


def import_optional(name: str, package: str) -> Any:
    """A module, imported only where it is used. Raises DependencyError: it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        problem = "needed by the encrypted backends and not installed"
        raise DependencyError(problem, "package", package, f"pip install {package}") from None


class SealBridge:
    """A SEAL context for one parameter set. Holds no key.

    Args:
        parameters: the set; SEAL itself refuses one above the standard's bound for 128 bits.

    Raises:
        DependencyError: tenseal or zstandard is not installed.
        RefusedError: SEAL does not accept the set.
    """

    def __init__(self, parameters: ParameterSet) -> None:
        self.parameters = parameters
        self.api = import_optional("tenseal.sealapi", "tenseal")
        self._zstd = import_optional("zstandard", "zstandard").ZstdDecompressor()
        settings = self._settings()
        self.context = self.api.SEALContext(settings, True, self.api.SEC_LEVEL_TYPE.TC128)
        if not self.context.parameters_set():
            remedy = "use one of he.parameters.PARAMETER_SETS"
            message = str(self.context.parameters_error_message())
            problem = f"SEAL refuses the set: {message}"
            raise RefusedError(
                Reason.WRONG_PARAMETERS, problem, "parameters", parameters.name, remedy
            )
        self._file = _MemoryFile()
        self._version = (0, 0)
        self._version = self._stream_version(settings)
        self._data_id = struct.pack("<4Q", *self.context.first_parms_id())
        self._key_id = struct.pack("<4Q", *self.context.key_parms_id())

    def _settings(self) -> Any:
        scheme = getattr(self.api.SCHEME_TYPE, self.parameters.scheme.upper())
        settings = self.api.EncryptionParameters(scheme)
        settings.set_poly_modulus_degree(self.parameters.degree)
        settings.set_coeff_modulus([self.api.Modulus(prime) for prime in self.parameters.primes])
        if self.parameters.plain_modulus:
            settings.set_plain_modulus(self.parameters.plain_modulus)
        return settings

    def _stream_version(self, settings: Any) -> tuple[int, int]:
        raw = self._file.write_and_read(settings.save)
        _, _, major, minor, *_ = _HEADER.unpack_from(raw)
        if _HEADER.unpack_from(raw)[0] != _MAGIC or major != 4:
            problem = "unknown SEAL stream format"
            remedy = "use tenseal 0.3.18 or newer, which carries SEAL 4"
            raise RefusedError(Reason.MALFORMED, problem, "SEAL version", (major, minor), remedy)
        return major, minor

    # Bodies out of SEAL objects

    def body(self, item: Any) -> bytes:
        """The uncompressed body of a SEAL object."""
        with self._file.lock:
            raw = self._file.write_and_read(item.save)
            if raw[5] == 2:
                return bytes(self._zstd.decompress(memoryview(raw)[16:]))
        return raw[16:]

    def cipher_words(self, ciphertext: Any) -> Words:
        """Words `[2, N]` of a full ciphertext."""
        n = self.parameters.degree
        return self._words(ciphertext, 2 * n, _CIPHER).reshape(2, n)

    def seeded_words(self, serializable: Any) -> tuple[Words, bytes]:
        """`c0` `[N]` and the seed that stands for `c1`, of a freshly made symmetric ciphertext."""
        n = self.parameters.degree
        body = self.body(serializable)
        start = _CIPHER.size + 24
        if len(body) != start + 8 * n + 17 + SEED_BYTES or body[start + 8 * n + 16] != _BLAKE2XB:
            problem, remedy = "SEAL made no seeded ciphertext", "use tenseal 0.3.18"
            raise RefusedError(Reason.MALFORMED, problem, "SEAL stream", len(body), remedy)
        return np.frombuffer(body, np.uint64, n, start), body[-SEED_BYTES:]

    def plain_words(self, plaintext: Any) -> Words:
        """Coefficients `[N]`, zeros where SEAL dropped leading ones."""
        body = self.body(plaintext)
        count = _COUNT.unpack_from(body, _PLAIN.size + 16)[0]
        words = np.zeros(self.parameters.degree, np.uint64)
        words[:count] = np.frombuffer(body, np.uint64, count, _PLAIN.size + 24)
        return words

    def secret_words(self, secret: Any) -> Words:
        """Words `[primes · N]` of a secret key."""
        count = len(self.parameters.primes) * self.parameters.degree
        return self._words(secret, count, _PLAIN)

    def public_words(self, public: Any) -> Words:
        """Words `[2 · primes · N]` of a public key."""
        count = 2 * len(self.parameters.primes) * self.parameters.degree
        return self._words(public, count, _CIPHER)

    def _words(self, item: Any, count: int, head: struct.Struct) -> Words:
        """The words of a SEAL object, which lie behind the head of its kind."""
        return np.frombuffer(self.body(item), np.uint64, count, head.size + 24)

    # SEAL objects out of words

    def ciphertext(self, words: Words) -> Any:
        """A full ciphertext from words `[2, N]`."""
        return self._load(self.api.Ciphertext(), [self._data_head(), *self._array(words)])

    def expanded(self, words: Words, seed: bytes) -> Any:
        """A ciphertext `(c0, c1)` from `c0` `[N]` and c1's seed of 64 bytes. Needs no key."""
        info = self._frame(1 + SEED_BYTES) + bytes([_BLAKE2XB]) + seed
        return self._load(self.api.Ciphertext(), [self._data_head(), *self._array(words), info])

    def secret_key(self, words: Words) -> Any:
        """A secret key from `secret_words`."""
        head = _PLAIN.pack(self._key_id, words.size, 1.0)
        return self._load(self.api.SecretKey(), [head, *self._array(words)])

    def public_key(self, words: Words) -> Any:
        """A public key from `public_words`."""
        head = _CIPHER.pack(
            self._key_id, True, 2, self.parameters.degree, len(self.parameters.primes), 1.0, 1
        )
        return self._load(self.api.PublicKey(), [head, *self._array(words)])

    def _data_head(self) -> bytes:
        scale = 2.0**self.parameters.scale_bits
        return _CIPHER.pack(
            self._data_id, self.parameters.scheme == "ckks", 2, self.parameters.degree, 1, scale, 1
        )

    def _frame(self, size: int) -> bytes:
        return _HEADER.pack(_MAGIC, 16, *self._version, 0, 0, 16 + size)

    def _array(self, words: Words) -> list[Any]:
        raw = np.ascontiguousarray(words).reshape(-1).view(np.uint8).data
        return [self._frame(8 + words.nbytes), _COUNT.pack(words.size), raw]

    def _load(self, empty: Any, parts: list[Any]) -> Any:
        size = sum(len(part) for part in parts)
        with self._file.lock:
            try:
                self._file.read_from(
                    [self._frame(size), *parts], lambda path: empty.load(self.context, path)
                )
            except (RuntimeError, ValueError, IndexError):
                problem = "SEAL refuses these bytes"
                remedy = "send what this library wrote, with the same parameter set"
                raise RefusedError(
                    Reason.MALFORMED, problem, "SEAL object", type(empty).__name__, remedy
                ) from None
        return empty


_SHOWN = Path("memory for ciphertexts and keys")


class _MemoryFile:
    """A file in memory that SEAL can open by name, empty between uses; made anew after a fork."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._process = -1
        self._open()

    def _open(self) -> None:
        self._process = os.getpid()
        if hasattr(os, "memfd_create"):
            self._handle = os.memfd_create("secure-fl", os.MFD_CLOEXEC)
            self._path, self._temporary = f"/proc/self/fd/{self._handle}", None
        else:
            self._handle, self._path = tempfile.mkstemp(prefix="secure-fl-")
            self._temporary = self._path
        weakref.finalize(self, _close, self._handle, self._temporary, self._process)

    def _ready(self) -> None:
        if self._process != os.getpid():
            self._open()

    def write_and_read(self, save: Any) -> bytes:
        """The bytes that `save(path)` writes, `path` being private memory.

        Raises:
            FileError: there is no room for them.
        """
        with self.lock:
            self._ready()
            try:
                save(self._path)
                return os.pread(self._handle, os.fstat(self._handle).st_size, 0)
            except RuntimeError as error:  # SEAL's word for what the system refuses
                remedy = "free memory, or raise this process's limit on the size of files"
                raise FileError.of_file(f"cannot be written: {error}", _SHOWN, remedy) from None
            finally:
                self._wipe()

    def read_from(self, parts: list[Any], load: Any) -> None:
        """Call `load(path)` with a path at which `parts` lie one after the other."""
        with self.lock:
            self._ready()
            try:
                os.pwritev(self._handle, parts, 0)
                load(self._path)
            finally:
                self._wipe()

    def _wipe(self) -> None:
        if self._temporary is not None:
            os.pwrite(self._handle, bytes(os.fstat(self._handle).st_size), 0)
        os.ftruncate(self._handle, 0)


def _close(handle: int, temporary: str | None, process: int) -> None:
    if process == os.getpid():
        os.close(handle)
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
