"""Where a profiled stretch of time went: training, cryptography, and the rest, which is the
protocol's own overhead.

Time is a function's own; what built-in functions and other packages take is their callers'.
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
        "cipher_sum",
        "ciphers",
        "ciphertexts",
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

_ANSWER, _CLIENT, _DEEPEST = "answered", "federation/client.py", 6


@dataclass(frozen=True)
class Spent:
    """Seconds by what they went into.

    Attributes:
        training: clients' answers, their integers included.
        cryptography: masks, shares, encryption, signatures, hashes of what is signed.
        rest: everything else.
        files: seconds by file, most first, cryptography's left out; training is among them.
    """

    training: float
    cryptography: float
    rest: float
    files: Mapping[str, float]

    @property
    def overhead(self) -> float:
        """The rest's share."""
        return self.rest / (self.training + self.cryptography + self.rest)


def spent(profile: cProfile.Profile) -> Spent:
    """What a profile of rounds says: clients' answers are training, whatever they call."""
    stats: dict[Function, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    training = sum(
        row[3] for name, row in stats.items() if name[2] == _ANSWER and _CLIENT in name[0]
    )
    homes: dict[Function, Mapping[str, float]] = {}
    files: Counter[str] = Counter()
    for function, (_, _, own, _, _) in stats.items():
        for home, share in _home(stats, function, homes, ()).items():
            files[home] += own * share
    crypto = sum(seconds for name, seconds in files.items() if name in CRYPTOGRAPHY)
    whole = sum(files.values())
    left = {name: seconds for name, seconds in files.most_common() if name not in CRYPTOGRAPHY}
    return Spent(training, crypto, max(0.0, whole - training - crypto), left)


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
