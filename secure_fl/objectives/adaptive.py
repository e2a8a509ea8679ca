"""Weights of SSD's separation that follow how far clients differ.

SSD moves each client towards dimensions of its own (weight γ) and keeps its encoder near what its
projector says (δ). How much of either helps depends on how unlike the clients are, which nobody
knows beforehand: the paper leaves weights that follow it as future work. Here both are multiplied
by one factor,

    factor(d) = least + (most − least)·d,    d within [0, 1]: 0, clients are alike; 1, unlike,

with the bounds `objective.adaptive_least` ≤ 1 ≤ `objective.adaptive_most`. While nothing has been
measured the factor is 1, so that γ and δ are the settings'.

Nothing here is released. d is read off sums that were opened anyway, or off sketches that were
released with noise and charged, so that weights are post-processing; they follow from the
replicated state, and whoever has a run's record computes them again.

A larger γ pulls clients' updates apart, and may so raise a d that is measured from updates: the
bounds are what ends that.

Needs no torch: `verify` reads it.
"""

from __future__ import annotations

from secure_fl.config import ObjectiveConfig

GAMMA = {"code": 1.0, "normalized": 0.055, "paper": 0.01}
"""Weight of the regulariser that gives each form about the same tangential gradient; 1 is the
paper's, with the code form.
"""


def gamma_of(config: ObjectiveConfig) -> float:
    """γ as it is set, or that of the form."""
    return GAMMA[config.form] if config.gamma is None else config.gamma


def separation_factor(config: ObjectiveConfig, difference: float | None) -> float:
    """What γ and δ are multiplied by, within the bounds that are set.

    Args:
        difference: d, cut to [0, 1]; None where nothing was measured yet.
    """
    if not config.adaptive or difference is None:
        return 1.0
    least, most = config.adaptive_least, config.adaptive_most
    return least + (most - least) * min(1.0, max(0.0, difference))


def adapted(config: ObjectiveConfig, difference: float | None) -> ObjectiveConfig:
    """The objective with the γ and δ that belong to a difference; itself where they do not change.

    The same numbers at every party: one product of IEEE doubles each.
    """
    factor = separation_factor(config, difference)
    if factor == 1.0:
        return config
    weights = {"gamma": factor * gamma_of(config), "delta": factor * config.delta}
    return config.model_copy(update=weights)
