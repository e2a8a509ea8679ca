"""From scores to guesses: how many of the surest guesses about the coins are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from secure_fl.audit.bounds.result import split_scores
from secure_fl.errors import AuditError


@dataclass(frozen=True)
class Outcome:
    """Of `canaries` coins, `guesses` were guessed and `right` of those rightly.

    Raises:
        AuditError: not 0 ≤ right ≤ guesses ≤ canaries.
    """

    canaries: int
    guesses: int
    right: int

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.guesses <= self.canaries or self.canaries < 1:
            shown = (self.canaries, self.guesses, self.right)
            raise AuditError("no such counts", "outcome", shown, "right ≤ guesses ≤ canaries")


def schedule(canaries: int) -> tuple[int, ...]:
    """Numbers of guesses to try: all, half, a quarter, and so on down to ten or a 64th."""
    halved = (canaries >> k for k in range(7))
    return tuple(count for count in halved if count >= 10) or (canaries,)


def guessed(
    scores: ArrayLike, included: ArrayLike, guesses: Sequence[int] | None = None
) -> tuple[Outcome, ...]:
    """An outcome for each number of guesses: the highest scores are guessed in, as many of the
    lowest out.

    **Guarantee**: a guess depends on scores alone, never on coins; equal scores are taken in the
    order of the canaries. **Assumes**: `guesses` was chosen before the scores were seen, since
    every number is charged for. **Not covered**: a score that was computed from the coins.

    Args:
        scores: of every canary; higher means rather in.
        included: what the coins were.
        guesses: numbers of guesses to try; `schedule` by default.

    Raises:
        AuditError: scores and coins do not match, or a number is not within 1 and all canaries.
    """
    split_scores(scores, included)
    coins = np.asarray(included)[np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")]
    counts = tuple(guesses) if guesses is not None else schedule(len(coins))
    found = []
    for count in counts:
        if not 1 <= count <= len(coins):
            raise AuditError("not a number of guesses", "guesses", count, f"1 to {len(coins)}")
        high, low = (count + 1) // 2, count // 2
        right = int(coins[:high].sum()) + int((~coins[len(coins) - low :]).sum())
        found.append(Outcome(len(coins), count, right))
    return tuple(found)
