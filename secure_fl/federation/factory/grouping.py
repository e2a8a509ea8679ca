"""Robust averages as a run's setting: updates are summed in groups, and a model moves by the median
or trimmed mean of the groups' means.

**Guarantee**: with b lying clients in a round, a pool moves, coordinate by coordinate, no further
than the means of honest groups reach, as long as 2b is below the number of groups that open it
(`trimmed_mean`: b at most `trim`); a part that fewer than `needed` groups open stays as it is.

**Assumes**: groups are drawn after clients are fixed, by a seed that none of them chose: the run's,
with phase and round.

**Not covered**: more liars than that; the sketch start's k-means, whose sums are over all clients;
secrecy beyond a group's, whose sum is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from secure_fl.config import FederationConfig, SecurityConfig
from secure_fl.errors import ConfigError
from secure_fl.federation.summing import Summed
from secure_fl.secure_sum.grid import Grid
from secure_fl.secure_sum.robust import combine_means

PHASES = ("pretrain", "cluster")
"""Phases whose sums are updates."""
_FEWEST = 3


@dataclass(frozen=True)
class Grouping:
    """How updates are summed and combined.

    Attributes:
        how: `median` or `trimmed_mean`, coordinate by coordinate.
        size: clients that a group has at least.
        trim: b, groups that `trimmed_mean` leaves out at each end.
    """

    how: Literal["median", "trimmed_mean"]
    size: int
    trim: int

    @classmethod
    def of(cls, security: SecurityConfig) -> Grouping | None:
        """The run's; None where all clients are in one sum."""
        if security.robust == "none":
            return None
        return cls(security.robust, security.group_size, security.trim)

    @property
    def needed(self) -> int:
        """Groups without which nothing moves: of fewer, one that lies could move the result as
        it likes.
        """
        return _FEWEST if self.how == "median" else max(_FEWEST, 2 * self.trim + 1)

    def means(
        self, grid: Grid, groups: Sequence[Summed], minimum: int
    ) -> tuple[Tensor, Tensor, list[int]]:
        """Changes of the shared part `[S]` and of the pools `[K, P]`, float64, and how many groups
        opened each pool.

        A group's mean is over its members, by their weights where they have some. Groups count
        alike, since weights are what clients say.

        Args:
            grid: of the phase.
            groups: the groups' sums.
            minimum: members without whom a pool of a group is not opened.
        """
        shared: list[Tensor] = []
        pools: list[list[Tensor]] = [[] for _ in range(grid.pools)]
        for group in groups:
            of_shared, of_pools = grid.means(group.total, group.survivors, minimum)
            heard, passing = grid.heard(group.total, group.survivors, minimum)
            shared += [of_shared] if heard else []
            for pool in passing.nonzero().flatten().tolist():
                pools[pool].append(of_pools[pool])
        moved = torch.stack([self._combined(votes, grid.pooled) for votes in pools])
        return self._combined(shared, grid.shared), moved, [len(votes) for votes in pools]

    def _combined(self, votes: list[Tensor], width: int) -> Tensor:
        if not width or len(votes) < self.needed:
            return torch.zeros(width, dtype=torch.float64)
        return torch.from_numpy(combine_means(torch.stack(votes).numpy(), self.how, trim=self.trim))


def check_groups(config: FederationConfig, clients: int) -> None:
    """Refuse a run whose rounds call too few clients for as many groups as its robust average
    needs. Raises ConfigError: naming the size, the cohort and the remedy.
    """
    grouping = Grouping.of(config.security)
    if grouping is None:
        return
    phases = {
        "pretrain": (config.pretrain.mode == "federated", config.pretrain),
        "pools": (config.pools.enabled, config.pools),
    }
    for name, (runs, settings) in phases.items():
        cohort = settings.cohort_size(clients)
        if runs and cohort // grouping.size < grouping.needed:
            raise ConfigError(
                f"{cohort} clients a round ({name}) make {cohort // grouping.size} groups, and "
                f"{grouping.how} needs {grouping.needed}",
                "security.group_size",
                grouping.size,
                f"at most {max(1, cohort // grouping.needed)}, more clients, "
                'or security.robust = "none"',
            )
