"""Where a profiled stretch of time went: training, cryptography, and the rest, which is the
protocol's own overhead.

Time is a function's own; what built-in functions and other packages take is their callers'. What
the profiler itself takes, which is as much for each call, is left out.
"""

from __future__ import annotations

import cProfile
import pstats
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

Function = tuple[str, int, str]
CRYPTOGRAPHY = frozenset(
    {
        "bfv",
        "bit_packing",
        "block_codec",
        "boxes",
        "cipher_sum",
        "ciphers",
        "ciphertexts",
        "derive",
        "encryptor",
        "envelope",
        "identities",
        "key_agreement",
        "key_streams",
        "keys",
        "layout",
        "masks",
        "seal_bridge",
        "sealing",
        "share_box",
        "shares",
    }
)
"""Files of masks, shares, encryption and signatures, with what packs integers into their slots."""

_DEEPEST = 6


@dataclass(frozen=True)
class Spent:
    """Seconds by what they went into.

    Attributes:
        training: clients' answers, their integers included.
        cryptography: masks, shares, encryption, signatures, hashes of what is signed.
        rest: everything else.
        files: the rest's seconds by file, most first.
    """

    training: float
    cryptography: float
    rest: float
    files: Mapping[str, float]

    @property
    def overhead(self) -> float:
        """The rest's share."""
        return self.rest / (self.training + self.cryptography + self.rest)


def spent(profile: cProfile.Profile, training: float, others: float) -> Spent:
    """Where a round's time goes.

    Args:
        profile: of rounds, off while clients answered.
        training: seconds of a round that clients' answers take, whatever they call.
        others: the other seconds of a round that is not profiled.
    """
    stats: dict[Function, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    rounds, calls = _rounds(stats), sum(row[1] for row in stats.values())
    each = max(0.0, sum(row[2] for row in stats.values()) - rounds * others) / calls
    homes: dict[Function, Mapping[str, float]] = {}
    files: Counter[str] = Counter()
    for function, (_, count, own, _, _) in stats.items():
        for home, share in _home(stats, function, homes, ()).items():
            files[home] += max(0.0, own - each * count) * share
    whole = sum(files.values())
    files = Counter({name: seconds * others / whole for name, seconds in files.items()})
    crypto = sum(seconds for name, seconds in files.items() if name in CRYPTOGRAPHY)
    left = {name: seconds for name, seconds in files.most_common() if name not in CRYPTOGRAPHY}
    return Spent(training, crypto, others - crypto, left)


def _rounds(stats: Mapping[Function, Any]) -> int:
    """How many were profiled."""
    return sum(
        row[1] for name, row in stats.items() if name[2] == "run" and "engines/parties" in name[0]
    )


def _home(
    stats: Mapping[Function, Any],
    function: Function,
    known: dict[Function, Mapping[str, float]],
    above: tuple[Function, ...],
) -> Mapping[str, float]:
    """Files of this project that a function works for, with shares that add up to one."""
    if function in known:
        return known[function]
    path = PurePath(function[0])
    if "secure_fl" in path.parts:
        known[function] = {path.stem: 1.0}
        return known[function]
    callers = {who: row[3] for who, row in stats[function][4].items() if who not in above}
    total = sum(callers.values())
    if not callers or total == 0 or len(above) > _DEEPEST:
        return {"elsewhere": 1.0}
    found: Counter[str] = Counter()
    for caller, seconds in callers.items():
        for home, share in _home(stats, caller, known, (*above, function)).items():
            found[home] += share * seconds / total
    if not above:
        known[function] = found
    return found
