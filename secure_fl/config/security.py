"""The settings of the secure sum, and the thresholds that follow from them for a cohort."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Literal

from pydantic import Field

from secure_fl.config.section import Rule, Section, require
from secure_fl.odds import default_threshold, smallest_degree, withstands

COMPLETE_UP_TO = 128
"""Clients in a round that all mask with all unless `neighbours` is set: work grows squared."""
FEWEST = 3
"""The fewest clients in a sum: of two, each would read the other's update."""


@dataclass(frozen=True)
class SumRules:
    """What one cohort's sums are opened by.

    Attributes:
        cohort: n, clients asked.
        degree: neighbours that a client masks with, None for all.
        threshold: t, shares that open one client's secrets.
        survivors: n_min, clients without whom no keys are accepted and nothing is opened.
        colluders: that a sparse graph withstands.
    """

    cohort: int
    degree: int | None
    threshold: int
    survivors: int
    colluders: int

    @property
    def holders(self) -> int:
        """m: clients that hold shares of one client's secrets, itself among them."""
        return self.cohort if self.degree is None else self.degree + 1

    @property
    def against_a_lying_server(self) -> int:
        """Colluders whom a server needs that shows two survivor sets to two halves: 2t − m."""
        return 2 * self.threshold - self.holders


class SecurityConfig(Section):
    """How clients' updates are summed so that nobody on the way reads one."""

    table = "security"
    protection: Literal["bfv+masked", "masked", "plain"] = "bfv+masked"
    """bfv+masked | masked | plain (an open experiment: the server reads everything)"""
    key_holder: Literal["clients", "authority"] = "clients"
    """who can decrypt sums: clients (one key, sealed to each) | authority"""
    rotation_rounds: int = Field(10, ge=1)
    """rounds that one encryption key serves"""
    min_pool_clients: int = Field(3, ge=3)
    """fewest clients of a pool that is opened; of two, each would read the other's update"""
    clamp: float = Field(1.0, gt=0)
    """largest change of one parameter in a round; larger ones are cut (not at client level)"""
    buffer_clamp: float = Field(1000000000000.0, gt=0)
    """the same for running statistics (batch normalisation), which have the units of the data"""
    robust: Literal["none", "median", "trimmed_mean"] = "none"
    """against clients that lie: none | median | trimmed_mean, coordinate by coordinate, of the
    means of groups that are summed apart
    """
    group_size: int = Field(9, ge=3)
    """robust: clients that a group has at least; sums over a group are opened, so fewer hide less
    """
    trim: int = Field(1, ge=1)
    """trimmed_mean: groups left out at each end of every coordinate; as many may lie"""
    neighbours: int | None = Field(None, ge=2, multiple_of=2)
    """clients that a client shares masks with, an even number; unset: all, and of more than 128 as
    few as `colluders` allow
    """
    threshold: int | None = Field(None, ge=2)
    """t: clients whose shares open one client's masks, with the server; unset: two thirds of those
    who hold shares, and one
    """
    min_survivors: int | None = Field(None, ge=3)
    """clients of a round's cohort without whom nothing is opened; unset: two thirds of it, and one
    """
    colluders: int | None = Field(None, ge=1)
    """neighbours: clients that may collude with the server and draw keys until they sit well;
    unset: a twentieth
    """

    def sums(self, cohort: int, colluders: int = 1) -> SumRules:
        """The rules of a cohort's sums.

        Args:
            cohort: n.
            colluders: that must be withstood whatever is set here.

        Raises:
            ConfigError: settings that contradict each other or the cohort, each named with
                the remedy.
        """
        allowed = max(-(-cohort // 20) if self.colluders is None else self.colluders, colluders)
        survivors = self.min_survivors or default_threshold(cohort)
        degree = self.neighbours
        if degree is None and cohort > COMPLETE_UP_TO:
            degree = smallest_degree(
                cohort, colluders=allowed, dropouts=cohort // 10, shown=survivors
            )
        degree = None if degree is None or degree >= cohort - 1 else degree
        holders = cohort if degree is None else degree + 1
        threshold = self.threshold or default_threshold(holders)
        if self.min_survivors is None:
            survivors = threshold if degree is None else max(survivors, threshold)
        rules = SumRules(cohort, degree, threshold, survivors, allowed)
        require(_rules(rules, self.threshold))
        return rules


def _rules(rules: SumRules, given: int | None) -> list[Rule]:
    """What must hold for a cohort."""
    cohort, degree, threshold, survivors, colluders = astuple(rules)
    holders, named = rules.holders, f"of {cohort} clients in a round"
    kept = degree is None or withstands(survivors, degree, threshold, colluders=colluders)
    # fmt: off
    return [
        (holders / 2 < threshold <= holders, "security.threshold", threshold,
         f"{named}, {holders} hold shares of one client's masks",
         f"between {holders // 2 + 1} and {holders}, or unset: {default_threshold(holders)}"),
        (threshold >= FEWEST, "security.threshold", threshold,
         f"{named}, so few could open each other's updates",
         f"at least {FEWEST}, with as many clients in a round"),
        (threshold <= survivors <= cohort, "security.min_survivors", survivors,
         f"{named}, at least security.threshold = {threshold} must survive",
         f"between {threshold} and {cohort}, or unset"),
        (kept, "security.neighbours", degree,
         f"{named}, {colluders} who collude and draw keys surround a client",
         _more_neighbours(rules, given)),
    ]
    # fmt: on


def _more_neighbours(rules: SumRules, given: int | None) -> str:
    least = smallest_degree(
        rules.cohort, colluders=rules.colluders, dropouts=0, shown=rules.survivors
    )
    enough = "leave it unset, so that all mask with all"
    if least < rules.cohort - 1:
        enough = f"at least {least}"
    return enough + ("" if given is None else ", and leave security.threshold unset")
