"""Watching pools for collapse, CP-CFL's clustering failure: all clients choose the same model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from secure_fl.config import FederationConfig
from secure_fl.config.advice import Lower, Option, Raise, Setting, advise
from secure_fl.records import Record

_CROWDED = 0.9


@dataclass(frozen=True)
class PoolHealth(Record):
    """Occupancy of the pools after a round.

    Attributes:
        counts: clients in each pool.
        active: pools with at least one client.
        largest_share: share of clients in the fullest pool.
        entropy: of the occupancy, divided by log K; 1 is even, 0 is one pool.
        ari: adjusted Rand index against known groups, or None without them. Only a simulation sets
            it: it needs each client's choice.
        alert: what is wrong and what to do, or None.
    """

    counts: tuple[int, ...]
    active: int
    largest_share: float
    entropy: float
    ari: float | None
    alert: str | None


def pool_health(counts: Sequence[int], config: FederationConfig | None = None) -> PoolHealth:
    """Figures and alert for `counts[k]` clients in pool k, which an opened sum says.

    `config`: of the run, which decides what the alert advises; without it, it advises nothing.
    """
    total = sum(counts)
    shares = [count / total for count in counts if count] if total else []
    active, largest = len(shares), max(shares, default=0.0)
    entropy = (
        -sum(share * log(share) for share in shares) / log(len(counts)) if len(counts) > 1 else 0.0
    )
    alert = _alert(len(counts), total, active, largest, config)
    return PoolHealth(tuple(counts), active, largest, entropy + 0.0, None, alert)


def _alert(
    pools: int, total: int, active: int, largest: float, config: FederationConfig | None
) -> str | None:
    if pools < 2 or total < 2:
        return None
    remedy = "" if config is None else f"; {_remedy(config)}"
    if active == 1:
        return f"clustering failure: all {total} clients chose one pool of {pools}{remedy}"
    if largest >= _CROWDED:
        return f"near collapse: {largest:.0%} of {total} clients chose one pool of {pools}{remedy}"
    return None


def _remedy(config: FederationConfig) -> str:
    """What is left to try: a start that finds groups, or what makes found ones clearer."""
    pretrain, pools = config.pretrain, config.pools
    options: list[Option] = [Setting("pools.start", "sketch")]
    if pools.start == "sketch":
        options += [Raise("privacy.sketch_epsilon")] if config.noises_sketches else []
        if config.privacy.unit != "example" or config.privacy.chooses_by_loss(pools.start):
            keeps = Raise("pools.keep_margin", limit=1)
            if config.privacy.unit == "example":
                keeps = Raise("privacy.choice_stay")
            options += [Raise("pools.warmup_rounds", limit=pools.rounds - 1), keeps]
    elif pools.start == "random":
        options.append(Setting("pools.start", "pretrained"))
    if pretrain.trains and pools.start == "pretrained":
        options.append(Raise("pretrain.rounds"))
    return advise(config, *options, Lower("pools.count", limit=2))


def adjusted_rand(choices: Sequence[int], groups: Sequence[int | None]) -> float | None:
    """Adjusted Rand index of choices against known groups; None where a group is not known."""
    known = [group for group in groups if group is not None]
    if not choices or len(known) != len(choices):
        return None
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(known, list(choices)))
