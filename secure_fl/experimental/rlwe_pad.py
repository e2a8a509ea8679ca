"""Experimental: a pad that adds up, y = 2^10·x + a·s + e over Z_q[X]/(X^2048 + 1), for clients that
send one large message.

A client draws a short secret s, pads its whole vector with a·s + e, where the elements a are public
and e is short noise, and is done with the large vector. The 2,048 small integers of s go through a
secure sum of their own, which opens Σ s alone; its pad a·Σs is taken off Σ y, and Σ e is rounded
off exactly. A client that drops out costs the server nothing for each coordinate, and a client pays
no mask stream for each neighbour. Sources: Stevens et al., USENIX Security 2022; LERNA (ASIACRYPT
2023); OPA and Willow (CRYPTO 2025). Σ s is opened here by the older route, pairwise masks and
Shamir shares among the clients (Bonawitz et al., CCS 2017).

Parameters: N = 2048, q = 2^50, two fields of 20 bits above 10 bits for the noise, s and e centred
binomial of 64 coins (deviation 4). The HE standard's table for ternary secrets allows log2 q of 54
(classical) and 51 (quantum) at 128 bits and N = 2048, with noise of deviation 3.2. Whoever learns Σ
s and Σ e of h honest clients knows each of theirs up to a deviation of 4·√(1 − 1/h): 3.3 for h = 3.
A proof that takes clients one by one knows all but two at its first step, whatever h, so it needs
deviation 4/√2 = 2.8. Hardness goes by q over deviation: log2 q is a whole bit below the table's,
2.8 a fifth of one below 3.2.

Guarantee: under ring learning with errors with that N, q and deviation 2.8 (exact for Gaussians;
binomials of 64 coins stand for them), uploads of three or more honest clients look uniform to
whoever sees all of them and Σ s, but for the sum. Opened sums are exact, but for a probability of
2^-40 over the whole vector that noise passes `PadPlan.noise`; then the sum is refused, and up to 15
clients, whose noise always fits its 10 bits, never open a wrong one.
Assumes: fresh secrets from the operating system; Σ s is opened once, over at least `colluders` + 3
clients, which `PadPlan.rules` asks of the secure sum it goes through, and whose own assumptions
come along (server and t of its clients together open single secrets).
Not covered: this is an experiment that nobody outside has reviewed, its hardness is read off a
table and not estimated anew; clients that send another s than they padded with (noticed, but the
sum is lost); authenticity: an upload travels in a signed envelope of the caller's; constant time.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secure_fl.crypto.key_streams import KEY_BYTES, WORDS, Slots
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.experimental.rlwe_ring import (
    BYTES_PER_ELEMENT,
    DEGREE,
    WIDEST_SHORT,
    Integers,
    centred,
    from_bytes,
    groups,
    products,
    reduced,
    short_elements,
    to_bytes,
    uniform_elements,
)
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.framing import sized
from secure_fl.secure_sum.layout import FieldLayout, magnitude
from secure_fl.secure_sum.masks import UsedSeeds
from secure_fl.secure_sum.noise_bounds import largest_noise

NOISE_BITS = 10
DEVIATION = 4.0
"""Standard deviation of a coefficient of a short element."""
FEWEST_HONEST = 3
MOST_CLIENTS = 250
"""Eight deviations of their noise are half of 2^10; for long vectors see `PadPlan.noise`."""
PAD_LAYOUT = FieldLayout(bits=20, fields_per_slot=2, modulus=WORDS)
"""For `Grid`. A slot is an integer within ±2^39 here; the pad adds 2^10 below it."""
WARNING = (
    "the RLWE pad is experimental: nobody outside has reviewed it, and the hardness of its "
    "parameters is read off the HE standard's table. Prefer `masked` or `bfv+masked`."
)

_HALF = 1 << (NOISE_BITS - 1)
_GUARD = 1
_PUBLIC = b"secure_fl/secure-sum/rlwe/public-elements/v1"


class ExperimentalWarning(UserWarning):
    """Says that something has not been reviewed enough to rely on."""


@dataclass(frozen=True)
class PadPlan:
    """What all parties know of one padded block.

    Args:
        federation: its name; the public elements are bound to it.
        round: counted from 0.
        block: number of the block, so that blocks open apart, each with secrets of its own.
        fields: P, integers a client sends.
        clients: n, all who may be in the sum.
        colluders: c, clients that may tell the server their secrets.

    Raises:
        SecureSumError: a number out of range; fewer than three honest clients; more clients than
            the noise has room for.
    """

    federation: str
    round: int
    block: int
    fields: int
    clients: int
    colluders: int = 0

    def __post_init__(self) -> None:
        for name, value, most in (
            ("round", self.round, 2**64),
            ("block", self.block, 2**32),
            ("fields", self.fields - 1, 2**32),
        ):
            if not 0 <= value < most:
                remedy = "count blocks and rounds from 0"
                raise SecureSumError("out of range", f"pad.{name}", getattr(self, name), remedy)
        if self.colluders < 0 or self.clients - self.colluders < FEWEST_HONEST:
            remedy = f"{FEWEST_HONEST} or more beside the colluders; Σ s says too much about two"
            found = (self.clients, self.colluders)
            raise SecureSumError("too few honest clients", "pad.clients", found, remedy)
        if self.clients > MOST_CLIENTS or self.noise >= _HALF:
            sums = {"clients": self.clients, "ring elements": self.elements}
            remedy = f"{MOST_CLIENTS} clients, fewer for long vectors; sum groups, or use `masked`"
            raise SecureSumError("their noise could pass its ten bits", "pad.clients", sums, remedy)

    @property
    def elements(self) -> int:
        """R, ring elements of an upload: two fields a coefficient, and a guard that is always 0."""
        return -(-(PAD_LAYOUT.slots(self.fields) + _GUARD) // DEGREE)

    @cached_property
    def noise(self) -> int:
        """Of Σ e, at most: honest noise passes it in a coefficient of all with chance 2^-40."""
        return largest_noise(DEVIATION * sqrt(self.clients), self.elements * DEGREE)

    @property
    def bound(self) -> int:
        """Largest magnitude of one client's field: n of them never pass the field's edge."""
        return PAD_LAYOUT.edge // self.clients

    @property
    def upload_bytes(self) -> int:
        """Of one client: 3.125 a field, and up to 12,800 more."""
        return self.elements * BYTES_PER_ELEMENT

    @property
    def fewest(self) -> int:
        """Clients without whom Σ s must stay closed."""
        return self.colluders + FEWEST_HONEST

    @property
    def rules(self) -> dict[str, Any]:
        """For `RoundPlan`: when and within which range Σ s may be opened."""
        return {"fewest": self.fewest, "bound": WIDEST_SHORT}

    @cached_property
    def public_seed(self) -> bytes:
        """32 bytes that make the elements a of this block, round and federation alone."""
        place = struct.pack(">QI", self.round, self.block)
        # no secret goes in, and nobody chooses what comes out
        info = _PUBLIC + sized(self.federation.encode()) + place
        return HKDF(hashes.SHA256(), KEY_BYTES, None, info).derive(bytes(KEY_BYTES))

    def pad(self, secret: Integers) -> Slots:
        """a·s for every element, uint64 `[R, N]`, of a secret or a sum of secrets."""
        out: Slots = np.empty((self.elements, DEGREE), np.uint64)
        for group, rows in groups(self.elements):
            elements = uniform_elements(self.public_seed, group, rows.stop - rows.start)
            out[rows] = products(elements, secret)
        return out


def secrets_shape(pools: int, *, shared: bool = False, counted: bool = True) -> BlockShape:
    """Of the sum of a round's secrets: one in the place of each large block, counts as they are."""
    return BlockShape(pools, DEGREE, DEGREE if shared else 0, counted=counted)


class RlwePad:
    """One client's pad for one block: draws the secret, pads one vector, and never a second one.

    Args:
        plan: of the block.
        used: this client's record of spent seeds; keep one for the whole federation.
        randomness: uniform secret bytes.
    """

    def __init__(
        self, plan: PadPlan, used: UsedSeeds, *, randomness: Callable[[int], bytes] = os.urandom
    ) -> None:
        warnings.warn(WARNING, ExperimentalWarning, stacklevel=2)
        self.plan, self._used, self._seed = plan, used, randomness(KEY_BYTES)

    @property
    def secret(self) -> Integers:
        """s, int64 `[2048]` within ±32: for one secure sum of secrets, and nobody else.

        A sum that failed takes a new pad: two sums over different clients would show
        single secrets.
        """
        secret: Integers = short_elements(b"secret" + self._seed, 0, 1)[0]
        return secret

    def protect(self, values: Integers) -> bytes:
        """The upload; the same whatever the client's choice, but for bytes that look uniform.

        Args:
            values: int64 `[P]` within ±`plan.bound`.

        Raises:
            SecureSumError: values of another shape or beyond the bound, or a pad that has
                been used.
        """
        plan = self.plan
        found = (values.dtype, values.shape)
        fits = values.dtype == np.int64 and values.shape == (plan.fields,)
        if not fits or magnitude(values) > plan.bound:
            remedy = f"int64 [{plan.fields}] within ±{plan.bound}: derive the codec for the plan"
            raise SecureSumError("not the block's integers", "values", found, remedy)
        self._used.spend([self._seed])
        padded = plan.pad(self.secret)
        for group, rows in groups(plan.elements):
            noise = short_elements(b"noise" + self._seed, group, rows.stop - rows.start)
            padded[rows] += noise.view(np.uint64)
        raised = PAD_LAYOUT.pack(values) << np.uint64(NOISE_BITS)
        padded.reshape(-1)[: PAD_LAYOUT.slots(plan.fields)] += raised
        return to_bytes(reduced(padded.view(np.int64)))


class PadSum:
    """The sum of padded uploads, opened with the sum of their secrets. Memory is one block,
    whatever the number of clients.

    Add an upload once its client's secret has been accepted into the secure sum of secrets, so that
    both sums have the same clients.
    """

    def __init__(self, plan: PadPlan) -> None:
        warnings.warn(WARNING, ExperimentalWarning, stacklevel=2)
        self.plan = plan
        self._total: Slots = np.zeros((plan.elements, DEGREE), np.uint64)
        self._clients: set[str] = set()

    def add(self, client: str, upload: bytes) -> None:
        """Add one client's upload.

        Raises:
            RefusedError: `duplicate` for a client that is in the sum already.
            SecureSumError: another length, or one client more than the plan has room for.
        """
        if client in self._clients:
            problem = "this client is in the sum"
            raise RefusedError(Reason.DUPLICATE, problem, "client", client, "keep its first upload")
        if len(self._clients) >= self.plan.clients:
            problem, remedy = "more clients than planned", "plan for all that may upload"
            raise SecureSumError(problem, "pad.clients", self.plan.clients, remedy)
        self._total += from_bytes(upload, self.plan.elements)
        self._clients.add(client)

    def open(self, survivors: Collection[str], secrets: Integers) -> Integers:
        """The sum of the clients' values.

        Args:
            survivors: clients whose secrets are summed.
            secrets: Σ s over them, int64 `[2048]`.

        Returns:
            int64 `[P]`.

        Raises:
            SecureSumError: other clients than were added, or fewer than `plan.fewest`; no sum of so
                many secrets.
            RefusedError: `out-of-range` where a pad is left, noise is larger than the plan allows,
                or a sum passed its field.
        """
        plan, named = self.plan, set(survivors)
        self._check_clients(named)
        _check_secrets(secrets, len(named))
        found = centred(self._total - plan.pad(secrets)).reshape(-1)
        slots = (found + _HALF) >> NOISE_BITS
        used = PAD_LAYOUT.slots(plan.fields)
        if int(np.abs(found - (slots << NOISE_BITS)).max()) > plan.noise or slots[used:].any():
            raise _left("noise beyond what its clients add, or a guard that is not 0")
        values = PAD_LAYOUT.unpack(slots[:used].view(np.uint64), plan.fields)
        if magnitude(values) > plan.bound * len(named):
            raise _left("a sum beyond what its clients can have sent")
        return values

    def _check_clients(self, named: set[str]) -> None:
        fewest = self.plan.fewest
        if named != self._clients or len(named) < fewest:
            counts = {"added": len(self._clients), "survivors": len(named)}
            found = {**counts, "in both": len(named & self._clients)}
            problem = "not the clients whose secrets were opened"
            remedy = f"add the uploads of exactly the survivors, {fewest} or more"
            raise SecureSumError(problem, "survivors", found, remedy)


def _check_secrets(secrets: Integers, clients: int) -> None:
    """Refuse what cannot be the sum of so many clients' secrets."""
    widest = WIDEST_SHORT * clients
    fits = secrets.shape == (DEGREE,) and secrets.dtype == np.int64
    if not fits or magnitude(secrets) > widest:
        problem, remedy = "no sum of so many secrets", f"int64 [{DEGREE}] within ±{widest}"
        raise SecureSumError(problem, "secrets", (secrets.dtype, secrets.shape), remedy)


def _left(problem: str) -> RefusedError:
    remedy = "discard the round: the secrets are not those of the uploads, or an upload was damaged"
    return RefusedError(Reason.OUT_OF_RANGE, problem, "sum", "(hidden)", remedy)
