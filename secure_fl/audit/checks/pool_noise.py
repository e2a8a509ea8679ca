"""Is every pool's block, and every count, noised in every round: chosen or not, empty or not?

Clients of client-level privacy hide their choice by sending K blocks that all carry noise. A block
without it would show who chose which pool, or that nobody did. So rounds are played in which all
clients choose one pool, another one, or each its own, and what every client sent in each block is
compared with what it is without noise: apart for blocks that were chosen, that were not, and that
nobody chose in that round, for the counts, the bit of an adaptive bound, and the shared part. What
is packed, masked and encrypted must be that very sum, in every block: also in those that the
protocol never opens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.client_noise import client_level_only, opened_of
from secure_fl.audit.checks.noise_law import measured, of_integers
from secure_fl.audit.checks.rounds_again import (
    Given,
    Played,
    RoundsAgain,
    certain,
    flat,
    rounds_of,
)
from secure_fl.audit.checks.verdicts import Findings
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.subject import Subject
from secure_fl.privacy.claims import Adversary
from secure_fl.secure_sum import client as secure_sum_client
from secure_fl.secure_sum.blocks import Integers

_ROUNDS = {Depth.MINUTES: 4, Depth.HOUR: 32, Depth.NIGHT: 256}
_WIDTH = 8190
Noise = dict[str, list[NDArray[np.int64]]]


@dataclass(frozen=True)
class PoolNoise:
    """The check `pool-noise`."""

    name: str = "pool-noise"
    tried: str = "whether a pool's block, or a count, is sent with too little noise"

    def refused(self, subject: Subject) -> str:
        """Where there is one pool, or no client-level noise."""
        config = subject.config
        if not config.pools.enabled or config.pools.count < 2:
            return "there are no pools to tell apart"
        return client_level_only(subject)

    def estimate(self, subject: Subject, depth: Depth) -> float:
        """By the rounds that are played."""
        config = subject.config
        each = 0.02 * (2 + config.pools.count) * (config.partition.clients or 8)
        return 3 + _ROUNDS[depth] * each

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        """Play rounds of all patterns of choices, and measure each kind of block apart."""
        found = Findings()
        noise: Noise = defaultdict(list)
        again = RoundsAgain(subject, "cluster", width=_WIDTH)
        rng = np.random.default_rng(seed)
        for number, at in enumerate(rounds_of(subject, "cluster", _ROUNDS[depth], seed)):
            again.go_to(at)
            with _packed() as packed:
                played = _play(again, number, rng)
            _take(again, played, noise, found)
            same = all(np.array_equal(packed[block], row) for block, row in _rows(played))
            found.exact(same, "what clients pack, mask and encrypt is not what they noised")
            progress((number + 1) / _ROUNDS[depth])
        _judge(again, noise, found)
        return found.outcome(
            self,
            Adversary.MODEL,
            "client",
            f"in {_ROUNDS[depth]} rounds every block and count had the noise charged",
        )


@contextmanager
def _packed() -> Iterator[dict[int, NDArray[np.int64]]]:
    """Sums of the blocks as clients pack them, by their numbers: also of those never opened."""
    sums, protect = dict[int, NDArray[np.int64]](), vars(secure_sum_client)["protect"]

    def watcher(plan: Any, cipher: Any, block: int, values: Integers, *rest: Any) -> None:
        sums[block] = sums.get(block, 0) + values
        protect(plan, cipher, block, values, *rest)

    with patch.object(secure_sum_client, "protect", watcher):
        yield sums


def _rows(played: Played) -> list[tuple[int, NDArray[np.int64]]]:
    """The sum of what clients noised, by the numbers that blocks have in an upload."""
    total = played.total
    rows = [total.head, *([total.shared] if len(total.shared) else []), *total.pools]
    return [(number, row.numpy()) for number, row in enumerate(rows) if len(row)]


def _play(again: RoundsAgain, number: int, rng: np.random.Generator) -> Played:
    """One round: all in one pool, in turn; in every third round each client in another."""
    level, clients = again.level, len(again.clients)
    one = number % level.pools
    spread = number % 3 == 2
    choices = [(one + client) % level.pools if spread else one for client in range(clients)]
    return again.play(Given(again.sure(rng), choices))


def _take(again: RoundsAgain, played: Played, noise: Noise, found: Findings) -> None:
    """Sort what every client added to its vector by the kind of block."""
    level, sent, given = again.level, flat(played.total), played.given
    chosen_by = {given.choices[number] for number in played.sent}
    for number, blocks in played.sent.items():
        clean = again.clean(number, given, played.bound)
        own = {
            "counts": blocks.head[: level.pools] - clean.head[: level.pools],
            "the bound's bit": blocks.head[level.pools :] - clean.head[level.pools :],
            "shared part": blocks.shared - clean.shared,
        }
        for name, part in own.items():
            if len(part):
                noise[name].append(part.numpy())
        for pool in range(level.pools):
            kind = "not chosen by the client"
            if pool == given.choices[number]:
                kind = "chosen by the client"
            elif pool not in chosen_by:
                kind = "chosen by nobody"
            noise[f"pool {kind}"].append((blocks.pools[pool] - clean.pools[pool]).numpy())
    total = played.opened.total
    front = len(total.head) + len(total.shared)
    same = np.array_equal(opened_of(played)[:front], sent[:front])
    for pool, row in enumerate(total.pools):
        same &= bool((row == played.total.pools[pool]).all()) or not row.any()
    found.exact(same, "what was opened is not the sum of what clients sent")
    head = level.open_head(total.head, played.opened.survivors)
    found.exact(
        not total.pools[~head.passing].any(), "a pool below the minimum by its count was opened"
    )


def _judge(again: RoundsAgain, noise: Noise, found: Findings) -> None:
    """Each kind's variance, its law, and that no single block lacks it."""
    level, share = again.level, again.level.variance / certain(again)
    for name, parts in noise.items():
        drawn = np.concatenate(parts)
        found.noise(measured(name, drawn.astype(float), share))
        otherwise = f"{name}: not of the {level.kind} law that is charged"
        found.test(of_integers(drawn, level.kind, share), otherwise)
        least = min(measured(name, part.astype(float), share).p_narrow for part in parts)
        found.test(least * len(parts), f"{name}: one client's block lacks noise in one round")


POOL_NOISE = PoolNoise()
