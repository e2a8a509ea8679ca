"""Pads over small vectors, from secret bytes that repeat."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from secure_fl.experimental.rlwe_pad import PadPlan, PadSum, RlwePad
from secure_fl.secure_sum.masks import UsedSeeds

Integers = NDArray[np.int64]


def make_plan(fields: int = 300, clients: int = 4, colluders: int = 0, block: int = 0) -> PadPlan:
    return PadPlan("test", 5, block, fields, clients, colluders)


def fixed(label: int) -> Callable[[int], bytes]:
    """Secret bytes that repeat."""
    return lambda count: hashlib.shake_256(b"pad %d" % label).digest(count)


def draw(plan: PadPlan, label: int) -> RlwePad:
    return RlwePad(plan, UsedSeeds(), randomness=fixed(label))


def padded_sum(plan: PadPlan, values: dict[str, Integers], survivors: list[str]) -> Integers:
    """Everybody pads; the sum is taken over the survivors."""
    pads = {name: draw(plan, number) for number, name in enumerate(values)}
    uploads = {name: pad.protect(values[name]) for name, pad in pads.items()}
    total = PadSum(plan)
    for name in survivors:
        total.add(name, uploads[name])
    return total.open(survivors, np.sum([pads[name].secret for name in survivors], axis=0))
