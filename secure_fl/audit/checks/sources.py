"""Where secrets come from: all 256 bits of each, or fewer that look as random?

A mask whose seed was hashed from 32 bits passes every test of its bytes, and falls to whoever tries
2^32 of them. So bytes are not judged by their looks: real parties play rounds of the run, what they
draw from the operating system is written down, and each seed that masks a vector must be what was
drawn, or what follows from the whole of what two clients agreed on (`audit.derivations`, which
shares no code with the protocol's). With every neighbour, as fewer masks fall to fewer colluders.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.scene import Scene, why_not
from secure_fl.audit.checks.stage import Stage
from secure_fl.audit.checks.verdicts import Findings
from secure_fl.audit.derivations import SEED_BYTES, at_zero, pair_seed
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.subject import Subject
from secure_fl.audit.which_rounds import spread
from secure_fl.crypto.key_streams import Terms
from secure_fl.crypto.shares import PRIME, Share
from secure_fl.federation.parties.client import FederationClient
from secure_fl.privacy.claims import Adversary
from secure_fl.secure_sum import setup
from secure_fl.secure_sum.client import RoundClient

_MOST = {Depth.MINUTES: 6, Depth.HOUR: 12, Depth.NIGHT: 24}
_STRETCHES, _LENGTH = {Depth.MINUTES: 3, Depth.HOUR: 24, Depth.NIGHT: 256}, 4
"""Rounds: so many stretches of so many, the run's last among them; all of a run that has fewer."""
_SECONDS = 0.02
"""A client's part of a round, roughly."""


@dataclass(frozen=True)
class Sources:
    """The check `sources`.

    **Guarantee**: in the rounds that are played, `broken` where the seed of a mask is anything but
    32 bytes that its client drew for it, or what HKDF gives of the whole X25519 secret; where a
    pair's mask is missing or an X25519 key was not made by its library; where shares are not of
    polynomials with a coefficient, of a whole draw, for each that is needed beyond the first.

    **Assumes**: `os.urandom` and the library's keys are what they are taken for.

    **Not covered**: rounds between those that are played, in a run of more than the depth allows;
    randomness within the encryption's library.
    """

    name: str = "sources"
    tried: str = "whether a mask or a share rests on fewer random bits than 256"

    def refused(self, subject: Subject) -> str:
        return why_not(subject)

    def estimate(self, subject: Subject, depth: Depth) -> float:
        config = subject.config
        rounds = min(_STRETCHES[depth] * _LENGTH, config.pretrain.rounds + config.pools.rounds + 3)
        return 2 + _SECONDS * rounds * min(_MOST[depth], config.partition.clients)

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        scene, found = Scene.of(subject, _MOST[depth]), Findings()
        firsts = spread(scene.rounds, _STRETCHES[depth], seed, length=_LENGTH)
        masks = dealt = 0
        for done, first in enumerate(firsts):
            with watched() as drawn:
                rounds = min(_LENGTH, scene.rounds - first)
                stage = Stage(scene, randomness=drawn.by, rounds=rounds, first=first)
                stage.run()
            if not drawn.masked:
                said = f"no round comes to its uploads: {stage.server.failed}"
                return Outcome(self.name, self.tried, Adversary.SERVER, "", "not tried", said)
            drawn.judge(found)
            masks += len(drawn.masked)
            dealt += len(drawn.dealt)
            progress((done + 1) / len(firsts))
        _by_default(found)
        found.figures.append(Figure("blocks that were masked", float(masks)))
        held = f"seeds of {masks} masked blocks, and {dealt} dealings of shares, are whole"
        return found.outcome(self, Adversary.SERVER, "", held)


@dataclass(frozen=True)
class _Masked:
    """One block under its masks, and what its client had to make them of."""

    client: str
    round: int
    block: int
    terms: Terms = field(repr=False)
    private: bytes = field(repr=False)
    position: int
    neighbours: dict[int, bytes] = field(repr=False)
    federation: str

    def expected(self) -> set[tuple[bytes, int]]:
        """Each pair's seed and sign, derived a second time."""
        made = set()
        for other, public in self.neighbours.items():
            low, high = sorted((self.position, other))
            told = (self.federation, self.round, self.block, (low, high))
            sign = 1 if other > self.position else -1
            made.add((pair_seed(self.private, public, *told), sign))
        return made


@dataclass(frozen=True)
class _Dealt:
    """Shares of one client's secrets, a row a secret, and what was drawn for them, in order."""

    threshold: int
    rows: Sequence[Sequence[Share]] = field(repr=False)
    draws: Sequence[bytes] = field(repr=False)

    @property
    def whole(self) -> bool:
        """Whether each row has a polynomial of its own, with a coefficient of a whole draw for each
        share that is needed beyond the first. Else fewer shares say something of the secret.
        """
        drawn = [int.from_bytes(each, "big") & PRIME for each in self.draws]
        free = iter([value for value in drawn if value != PRIME])
        return all(
            self._of(row, [next(free, 0) for _ in row[: self.threshold - 1]]) for row in self.rows
        )

    def _of(self, row: Sequence[Share], coefficients: Sequence[int]) -> bool:
        secret = at_zero(row[: self.threshold])
        return 0 not in coefficients and all(
            share.value == (secret + _above(coefficients, share.index)) % PRIME
            for share in (row[0], row[-1])
        )


def _above(coefficients: Sequence[int], at: int) -> int:
    """A polynomial without its constant term."""
    return sum(each * at**power for power, each in enumerate(coefficients, 1))


@dataclass
class Drawn:
    """What clients drew, and what they used.

    Attributes:
        draws: by client, every draw.
        made: X25519 keys that the library made.
        masked: every block that was masked.
        dealt: every dealing of shares.
    """

    draws: dict[str, list[bytes]] = field(default_factory=dict, repr=False)
    made: set[bytes] = field(default_factory=set, repr=False)
    masked: list[_Masked] = field(default_factory=list, repr=False)
    dealt: list[_Dealt] = field(default_factory=list, repr=False)

    def by(self, name: str) -> Callable[[int], bytes]:
        """Where a client draws; the operating system, written down."""
        mine = self.draws.setdefault(name, [])

        def draw(size: int) -> bytes:
            mine.append(os.urandom(size))
            return mine[-1]

        return draw

    def judge(self, found: Findings) -> None:
        """Take in what does not come from where it should."""
        seeds = {name: set(filter(_whole, drawn)) for name, drawn in self.draws.items()}
        for one in self.masked:
            own = [seed for seed, sign in one.terms[:1] if sign == 1]
            found.exact(set(own) & seeds[one.client] != set(), _OWN)
            found.exact(set(one.terms[1:]) == one.expected(), _PAIRS)
            found.exact(one.private in self.made, _KEYS)
        found.exact(all(each.whole for each in self.dealt), _SHARES)


_OWN = "a self mask's seed is not 32 bytes that its client drew"
_KEYS = "a client's mask key is not one that its library made"
_SHARES = "shares are not of polynomials whose every coefficient was drawn for them"
_PAIRS = "pairs' masks are not those of the whole agreed secrets with all neighbours"


def _whole(draw: bytes) -> bool:
    return len(draw) == SEED_BYTES


def _by_default(found: Findings) -> None:
    """A client that nobody gives randomness to draws from the operating system."""
    for kind in (FederationClient, RoundClient):
        given = signature(kind).parameters["randomness"].default
        found.exact(given is os.urandom, "clients do not draw from the system")


@contextmanager
def watched() -> Iterator[Drawn]:
    """Watch this process' clients; what they do is not changed."""
    drawn = Drawn()
    mask_terms, split = RoundClient._mask_terms, vars(setup)["split_many"]
    generate = X25519PrivateKey.generate

    def of_masks(self: RoundClient, block: int) -> Terms:
        terms = mask_terms(self, block)
        drawn.masked.append(_masked(self, block, terms))
        return terms

    def of_shares(*told: Any, randomness: Callable[[int], bytes], **more: Any) -> Any:
        taken = list[bytes]()

        def draw(size: int) -> bytes:
            taken.append(randomness(size))
            return taken[-1]

        rows = split(*told, randomness=draw, **more)
        drawn.dealt.append(_Dealt(told[1], rows, taken))
        return rows

    def of_keys() -> X25519PrivateKey:
        made = generate()
        drawn.made.add(made.private_bytes_raw())
        return made

    with ExitStack() as patches:
        patches.enter_context(patch.object(RoundClient, "_mask_terms", of_masks))
        patches.enter_context(patch.object(setup, "split_many", of_shares))
        patches.enter_context(patch.object(X25519PrivateKey, "generate", of_keys))
        yield drawn


def _masked(client: RoundClient, block: int, terms: Terms) -> _Masked:
    state, book, position = client._state, client._book, client._position
    assert state.masking is not None
    near = set(state.dealers) & set(book.neighbours(position))
    return _Masked(
        client.name,
        client.plan.round,
        block,
        tuple(terms),
        state.masking.private_bytes_raw(),
        position,
        {other: book.keys[other].masking for other in near},
        client.plan.roster.federation,
    )


SOURCES = Sources()
