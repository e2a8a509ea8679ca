"""The settings of differential privacy."""

from __future__ import annotations

from math import ceil
from typing import Literal

from pydantic import Field

from secure_fl.config.section import Section


class PrivacyConfig(Section):
    """Differential privacy. Every release is recorded in `ledger.json`; a round that would pass the
    budget does not start.
    """

    table = "privacy"
    unit: Literal["none", "example", "client"] = "none"
    """whose presence is hidden: none (said in red) | example (in each client's data) | client
    (needs many clients)
    """
    epsilon: float = Field(8.0, gt=0)
    """budget of the whole run, for each client's examples, or for each client"""
    delta: float = Field(1e-05, gt=0, lt=0.1)
    """probability of failure that goes with epsilon; below one over the number of units"""
    adjacency: Literal["add-remove", "zero-out", "replace-one"] = "zero-out"
    """what neighbours differ by: zero-out (sizes and roster are public) | replace-one | add-remove
    (refused in runs)
    """
    clip: float = Field(1.0, gt=0)
    """bound on the norm of an example's (or group's) gradient, or of a client's whole update"""
    adaptive_clip: bool = False
    """clip follows the median norm: of updates, or of supervised gradients; that is charged too"""
    noise: float | None = Field(None, gt=0)
    """noise multiplier of training; unset: the smallest that keeps the run within epsilon"""
    mechanism: Literal["auto", "released-statistics", "group", "per-example"] = "auto"
    """example level, by the objective's coupling: auto | released-statistics | group (true NT-Xent
    in groups) | per-example
    """
    statistic_share: float = Field(0.1, gt=0, lt=1)
    """released-statistics: share of the budget that the statistic takes"""
    features: int = Field(256, ge=8)
    """released-statistics: random features that stand for the uniformity kernel, others in every
    step
    """
    group_size: int = Field(4, ge=2, le=16)
    """group: examples that meet in one loss"""
    group_views: int = Field(2, ge=2, le=8)
    """group: views of an example; more cost time, as more rows are trained on, and no privacy"""
    choice: Literal["auto", "sketch", "exponential"] = "auto"
    """example level: sketch (the released one, at no cost) | exponential (mechanism, by loss) |
    auto (sketch if any)
    """
    choice_epsilon: float = Field(0.25, gt=0)
    """exponential: cost of one choice"""
    choice_every: int = Field(5, ge=1)
    """exponential: rounds between choices; clients keep their pool in between"""
    choice_stay: float = Field(0.05, ge=0)
    """exponential: how much lower, in nats, another pool's loss must be for a client to move"""
    choice_bound: float = Field(3.0, gt=0)
    """exponential: losses are cut off here, in nats"""
    sketch_epsilon: float = Field(1.0, gt=0)
    """of the sketches alone, also where unit = none: protected runs release them with noise; part
    of epsilon where unit = example
    """
    sketch_width: int | None = Field(None, ge=2)
    """directions that released sketches are projected to; 12, with labels 6"""
    moment_epsilon: float | None = Field(None, gt=0)
    """view_moments at example level: cost of its two sums alone, a part of epsilon; unset: epsilon,
    or half of it where pools are trained too
    """
    centre_share: float = Field(0.02, gt=0, lt=1)
    """view_moments at example level: share of that which the features' centre takes"""
    integer_noise: Literal["skellam", "discrete_gaussian"] = "skellam"
    """client level, view_moments: skellam (shares add up exactly) | discrete_gaussian"""
    rounding: Literal["toward_zero", "conditional"] = "toward_zero"
    """client level: toward_zero (never lengthens an update) | conditional (unbiased, charged for
    more)
    """
    scale_bits: int = Field(14, ge=4, le=20)
    """client level: grid of 2^-bits of the norm bound that updates are rounded to"""
    min_clients: int | None = Field(None, ge=2)
    """client level, view_moments: with fewer survivors nothing is opened; unset: 3/4 of all"""
    colluders: int = Field(1, ge=1)
    """client level, view_moments: clients whose noise share is not counted on"""
    count_noise: float | None = Field(None, gt=0)
    """client level: deviation of the noise on a pool's count; unset: calibrated"""
    false_pass: float = Field(0.05, gt=0, lt=1)
    """client level: probability allowed that a pool of 0 or 1 clients passes the minimum"""

    def fewest_survivors(self, roster: int) -> int:
        """Of so many clients, those without whom no sum under shares of noise is opened."""
        return ceil(0.75 * roster) if self.min_clients is None else self.min_clients

    def chooses_by_loss(self, start: str) -> bool:
        """Whether, with this start, pools are chosen through the exponential mechanism."""
        return self.choice == "exponential" or (self.choice == "auto" and start != "sketch")
