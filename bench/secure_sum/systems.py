"""What is measured: rounds of the secure sum, TenSEAL's CKKS in NVFlare's setting, plain
float32 addition.

Every system notes milliseconds of processor time per million fields, one sample for each client and
repeat, by step.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from bench.secure_sum.embedded import EmbeddedFederation
from bench.secure_sum.embedded_round import EmbeddedRound, Outcome
from secure_fl.crypto.envelope import Phase, open_envelope, sign_envelope
from secure_fl.crypto.key_streams import WORDS
from secure_fl.he.bfv import BfvClient
from secure_fl.he.seal_bridge import import_optional
from secure_fl.secure_sum.block_codec import Adder, body_bytes, protect, server_cipher
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.framing import empty_frames, unframe
from secure_fl.secure_sum.masks import UsedSeeds, mask_terms, self_seeds

NEIGHBOURS = 8
CLIENTS = NEIGHBOURS + 1
BEFORE, AFTER = ("advertise", "share"), ("agree", "open_counts", "open_pools", "apply")
_PIECE = bytes(1 << 18)


class Samples:
    """Milliseconds per million fields by step, and figures that do not vary."""

    def __init__(self, fields: int) -> None:
        self._share = 1e9 / fields
        self.times: dict[str, list[float]] = {}
        self.fixed: dict[str, float] = {}
        self.wrong = 0

    def note(self, step: str, seconds: float) -> None:
        """One sample."""
        self.times.setdefault(step, []).append(seconds * self._share)

    def timed(self, step: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run and note."""
        begin = time.process_time()
        result = work(*arguments)
        self.note(step, time.process_time() - begin)
        return result


def vectors_of(shape: BlockShape, names: list[str]) -> dict[str, BlockVector]:
    """Integers up to the field's edge over the number of clients; clients deal themselves over the
    pools, two to each as far as they go.
    """
    rng, share = np.random.default_rng(0), (2**19 - 1) // len(names)
    return {
        name: BlockVector.one_hot(
            shape, number // 2 % shape.pools, rng.integers(-share, share + 1, shape.width)
        )
        for number, name in enumerate(names)
    }


class SecureRounds:
    """Rounds of one protection. Steps: `keys`, `protect`, `add`, `receive`, `unmask`, `decrypt`,
    `open`, and `floor` of `protect`.

    `protect` is everything from integers to the signed bytes that are sent; `vector` (masks alone)
    is the same without hash, signature and key agreement; `add` is parsing and adding, `receive`
    adds signatures and hashes to it.
    """

    def __init__(self, protection: str, key_holder: str, shape: BlockShape) -> None:
        self.federation = EmbeddedFederation(
            CLIENTS, protection=protection, key_holder=key_holder, clock=time.process_time
        )
        self.shape, self.number = shape, 0
        self.vectors = vectors_of(shape, list(self.federation.clients))

    def begin(self) -> EmbeddedRound:
        """A round up to its uploads."""
        self.number += 1
        return self.federation.begin(self.number, self.shape)

    def run(self, into: Samples) -> None:
        """One round, and the parts of it that it does not show; the first is to warm up."""
        running = self.begin()
        adder = Adder(running.plan, server_cipher(running.plan))
        for name, vector in self.vectors.items():
            upload = into.timed("protect", running.protect, name, vector)
            self._add_alone(adder, running, name, upload, into)
            assert into.timed("receive", running.add, upload) is None
        self._note(running.open(), into)
        into.fixed["upload"] = len(upload)
        self._floors(running, into)

    def _add_alone(
        self,
        adder: Adder,
        running: EmbeddedRound,
        name: str,
        upload: bytes | memoryview,
        into: Samples,
    ) -> None:
        plan = running.plan
        expected = plan.expect(Phase.UPLOAD, "client", sender=name, chunks=plan.shape.blocks)
        bodies = [
            open_envelope(envelope, plan.roster, expected)[1]
            for envelope in unframe(memoryview(upload))
        ]
        into.timed("add", _read_and_add, adder, bodies)

    def _note(self, outcome: Outcome, into: Samples) -> None:
        seconds, clients = outcome.seconds, len(self.vectors)

        def spent(phases: tuple[str, ...], party: str) -> float:
            return sum(seconds.get(phase, {}).get(party, 0.0) for phase in phases)

        # every client answers a request, but one alone opens the sums (`appliers=1`)
        opening = (
            spent(AFTER, "holder")
            + spent(("open_pools",), "clients") / clients
            + spent(("apply",), "clients")
        )
        into.note("keys", spent((*BEFORE, "agree", "open_counts"), "clients") / clients)
        into.note("unmask", spent(AFTER, "server"))
        into.note("decrypt", opening)
        into.note("open", spent(AFTER, "server") + opening)
        into.fixed["down"] = sum(outcome.down.values()) / clients
        into.fixed["shares up"] = (
            sum(size for phase, size in outcome.up.items() if phase != "upload") / clients
        )
        for pool, opened in outcome.opened.pools.items():
            into.wrong += int(
                (opened != sum(vector.pools[pool] for vector in self.vectors.values())).sum()
            )

    def _floors(self, running: EmbeddedRound, into: Samples) -> None:
        plan, cipher = running.plan, running.clients[next(iter(self.vectors))]._cipher
        slots = sum(plan.numbers(block) for block in range(plan.shape.blocks))
        into.fixed["masked vector"] = 8 * slots
        into.timed("AES", _keystream, (8 if plan.layout.modulus == WORDS else 5) * slots)
        if isinstance(cipher, BfvClient):
            into.timed("SEAL", _encryptions, cipher, slots // cipher.parameters.degree)
        else:
            into.timed("vector", self._masked_bytes, running)

    def _masked_bytes(self, running: EmbeddedRound) -> memoryview:
        plan, vector, used = running.plan, next(iter(self.vectors.values())), UsedSeeds()
        data, places = empty_frames([body_bytes(plan, block) for block in range(plan.shape.blocks)])
        for block, place in enumerate(places):
            own, *pairs = self_seeds(CLIENTS)
            terms = mask_terms(own=0, self_seed=own, pairs=dict(enumerate(pairs, 1)), used=used)
            protect(plan, None, block, vector.block(plan.shape, block), terms, place)
        return data


def _read_and_add(adder: Adder, bodies: list[memoryview]) -> None:
    for block, vector in enumerate([adder.read(block, body) for block, body in enumerate(bodies)]):
        adder.add(block, vector)


def _keystream(size: int) -> None:
    """All streams of a client, cipher alone."""
    out = bytearray(len(_PIECE))
    for _ in range(CLIENTS):
        cipher = Cipher(algorithms.AES(os.urandom(16)), modes.CTR(os.urandom(16))).encryptor()
        for _ in range(-(-size // len(_PIECE))):
            cipher.update_into(_PIECE, out)


def _encryptions(client: BfvClient, count: int) -> None:
    """SEAL's encryption of zeros, again and again: neither bytes in nor out."""
    for _ in range(count):
        client.encryptor.encrypt()


class NvFlare:
    """TenSEAL's CKKS vectors as NVFlare's HEBuilder sets them up: 8192, [60, 40, 40], scale 2^40,
    symmetric. Nothing is signed.
    """

    def __init__(self, shape: BlockShape) -> None:
        ts = import_optional("tenseal", "tenseal")

        self.ts: Any = ts
        kind = ts.ENCRYPTION_TYPE.SYMMETRIC
        self.context = ts.context(
            ts.SCHEME_TYPE.CKKS,
            poly_modulus_degree=8192,
            coeff_mod_bit_sizes=[60, 40, 40],
            encryption_type=kind,
            n_threads=1,
        )
        self.context.global_scale = 2.0**40
        self.public = ts.context_from(self.context.serialize(save_secret_key=False), n_threads=1)
        self.vectors = [
            np.concatenate(list(vector.pools)) for vector in vectors_of(shape, ["a", "b"]).values()
        ]

    def run(self, into: Samples) -> None:
        """Two clients."""
        with contextlib.redirect_stdout(io.StringIO()):
            scaled = [(vector * 2.0**-19).astype(np.float32) for vector in self.vectors]
            first, second = [into.timed("protect", self._protect, vector) for vector in scaled]
            total: Any = self.ts.ckks_vector_from(self.public, first)
            into.timed("add", self._add, total, second)
            result = total.serialize()
            opened = into.timed("open", self._open, result)
        into.fixed |= {"upload": len(first), "down": len(result)}
        into.wrong += int((np.rint(opened * 2.0**19).astype(np.int64) != sum(self.vectors)).sum())

    def _protect(self, vector: NDArray[np.float32]) -> bytes:
        return bytes(self.ts.ckks_vector(self.context, vector).serialize())

    def _add(self, total: Any, body: bytes) -> None:
        total.add_(self.ts.ckks_vector_from(self.public, body))

    def _open(self, body: bytes) -> NDArray[np.float64]:
        return np.array(self.ts.ckks_vector_from(self.context, body).decrypt())


class Floats:
    """float32 vectors: added as they are (`add`), and out of the signed envelope that a masked
    vector travels in (`receive`).
    """

    def __init__(self, shape: BlockShape) -> None:
        self._rounds = SecureRounds("plain", "clients", BlockShape(1, 1))
        rng = np.random.default_rng(0)
        self.vectors = [
            rng.standard_normal(shape.pools * shape.width, np.float32) for _ in range(3)
        ]

    def run(self, into: Samples) -> None:
        """Three clients."""
        running, (name, identity) = (
            self._rounds.begin(),
            next(iter(self._rounds.federation.clients.items())),
        )
        plan, total = running.plan, np.zeros_like(self.vectors[0])
        total.fill(0)
        for vector in self.vectors:
            into.timed("add", np.add, total, vector, total)
            message = sign_envelope(identity, plan.header(Phase.UPLOAD, name), vector.tobytes())
            into.timed("receive", self._receive, message, running, total)
        into.fixed |= {"upload": total.nbytes, "down": total.nbytes}

    @staticmethod
    def _receive(message: bytes, running: EmbeddedRound, total: NDArray[np.float32]) -> None:
        plan = running.plan
        body = open_envelope(memoryview(message), plan.roster, plan.expect(Phase.UPLOAD, "client"))[
            1
        ]
        np.add(total, np.frombuffer(body, np.float32), out=total)


def peaks(protection: str, key_holder: str, shape: BlockShape) -> tuple[float, float]:
    """Bytes of memory that a client's `protect` and a server's round add at most, in a fresh
    process (Linux).
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peaks, protection, key_holder, shape).result()


def _peaks(protection: str, key_holder: str, shape: BlockShape) -> tuple[float, float]:
    rounds = SecureRounds(protection, key_holder, BlockShape(shape.pools, 100))
    rounds.run(Samples(1))  # imports, contexts and their tables
    rounds.shape, rounds.vectors = shape, vectors_of(shape, list(rounds.vectors))
    running = rounds.begin()
    names, uploads, found = list(rounds.vectors), [], []
    for name in names:
        before = _forget_peak()
        uploads.append(running.protect(name, rounds.vectors[name]))
        found.append(_status("VmHWM") - before)
    before = _forget_peak()
    for upload in uploads:
        running.add(upload)
    running._deliver(running._advance())  # the survivors agree
    return found[0], _status("VmHWM") - before


def _forget_peak() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed must not pass for memory in use
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))
