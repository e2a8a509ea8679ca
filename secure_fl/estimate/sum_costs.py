"""What one protected sum costs in bytes, read off one small round with made-up vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from secure_fl.config import FederationConfig
from secure_fl.secure_sum.block_codec import body_bytes
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.embedded import EmbeddedFederation
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.sizes import sum_bytes

SMALL_COHORT, SMALL_WIDTH = 16, 64
"""Clients, and fields of a pool, of the round that shows what a sum costs beside its vectors."""


def sum_cost(config: FederationConfig, real: BlockShape, clients: int) -> tuple[int, int]:
    """Bytes down and up of one protected sum over so many clients, every pool opened.

    A round of the protocol with narrow pools, and as many clients up to sixteen, shows what the
    rest costs. That grows with clients times those they share masks with; bodies and sums are the
    layout's own.
    """
    few = min(clients, SMALL_COHORT)
    small = replace(real, width=SMALL_WIDTH, shared=min(real.shared, SMALL_WIDTH))
    plan, down, up = made_up_round(config, small, few)
    grown = replace(plan, shape=real)
    bodies = sum(body_bytes(grown, block) - body_bytes(plan, block) for block in range(real.blocks))
    degree = (
        config.security.sums(clients, config.privacy.colluders).degree if clients > few else None
    )
    more = clients / few * ((clients if degree is None else degree + 1) / few)
    fixed = sum(body_bytes(plan, block) for block in range(real.blocks))
    down = round((down - _sums(plan)) * more) + _sums(grown)
    up = round((up - few * fixed) * more) + clients * (fixed + bodies)
    return down, up


def _sums(plan: RoundPlan) -> int:
    """Bytes of all sums that are sent to whoever decrypts, beside the counts'; none where there is
    nothing to decrypt.
    """
    return (
        sum(sum_bytes(plan, block) for block in range(1, plan.shape.blocks))
        if plan.encrypted
        else 0
    )


def made_up_round(
    config: FederationConfig,
    shape: BlockShape,
    clients: int,
    parties: EmbeddedFederation | None = None,
    number: int = 0,
) -> MadeUpRound:
    """A whole round of the protocol over made-up vectors.

    Args:
        parties: who take part; fresh ones, with keys to make, where none are given.
        number: of the round.
    """
    everybody = parties or parties_of(config, clients)
    running = everybody.begin(number, shape, cohort=[], bound=1, minimum=1)
    for place, name in enumerate(running.plan.cohort):
        ones = np.ones(shape.width, dtype=np.int64)
        shared = np.ones(shape.shared, dtype=np.int64) if shape.shared else None
        made_up = BlockVector.one_hot(shape, place % shape.pools, ones, shared=shared)
        running.add(running.protect(name, made_up))
    running.open()
    return MadeUpRound(running.plan, sum(running.down.values()), sum(running.up.values()))


def parties_of(config: FederationConfig, clients: int) -> EmbeddedFederation:
    """All parties of a secure sum of so many clients, in this process."""
    security = config.security
    return EmbeddedFederation(
        clients,
        protection=security.protection,
        key_holder=security.key_holder,
        rotation_rounds=security.rotation_rounds,
    )


class MadeUpRound(NamedTuple):
    """A round's plan, and its bytes from the server and to it."""

    plan: RoundPlan
    down: int
    up: int
