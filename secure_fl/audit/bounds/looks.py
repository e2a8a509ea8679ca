"""A one-run audit that may stop early: it looks at fixed times, and every look is paid for.

**What is valid, and why.** Batches of canaries come one after another, each with fresh fair coins,
in one release or in several; look k uses batches 1 to k, and there are at most K looks.

1. A canary is in one batch only. What was released before does not depend on its coin, its own
   batch is released with the claimed guarantee, and what comes later depends on its coin through
   that release only. So all releases up to look k together have the guarantee for each single
   coin, and look k is an ordinary one-run test on m₁ + ... + m_k canaries.
2. Scores of a batch are fixed when it is added, before its coins are opened, so guesses at a later
   look never use opened coins.
3. Look k, on its own, refutes something true with probability at most (1 − confidence)/K, whether
   or not anybody would have stopped before: imagine all K batches run to their end.
4. Hence, with probability at least `confidence`, none of the K bounds is above the truth. Whatever
   rule says when to stop, also one that uses everything seen, picks among these, and so does their
   running maximum.

This is a union over a fixed schedule: no law of large numbers, no martingale and no law of the
noise is needed. It costs a factor K in the error probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from secure_fl.audit.bounds.guesses import guessed
from secure_fl.audit.bounds.one_run_f import one_run_f_bound
from secure_fl.audit.bounds.result import Bound, Vector, probability, split_scores
from secure_fl.errors import AuditError


@dataclass
class Looks:
    """At most `looks` bounds, of which the largest so far holds at any time.

    **Guarantee**: with probability at least `confidence` none of the bounds that `add` returns is
    above the true ε(δ); so one may stop at any look, for any reason.
    **Assumes**: as `one_run_f_bound`; sizes of batches and the number of looks are fixed before; no
    batch is chosen, trained or scored with the opened coins of another.
    **Not covered**: more looks than planned, which are refused.

    Args:
        looks: how many there may be.
        delta: of the claim.
        confidence: of all bounds together.
        family: as `one_run_f_bound`.

    Raises:
        AuditError: no look at all, or no probability.
    """

    looks: int
    delta: float
    confidence: float = 0.95
    family: Literal["gaussian", "approximate"] = "gaussian"
    _scores: list[Vector] = field(default_factory=list, init=False, repr=False)
    _coins: list[Vector] = field(default_factory=list, init=False, repr=False)
    _best: Bound | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        probability(self.confidence, "confidence")
        probability(self.delta, "delta")
        if self.looks < 1:
            raise AuditError("not a count", "looks", self.looks, "at least 1")

    def add(
        self, scores: ArrayLike, included: ArrayLike, guesses: Sequence[int] | None = None
    ) -> Bound:
        """The bound after one more batch: the largest of all looks so far.

        Scores of several batches are ranked together, so they have to be on one scale.

        Raises:
            AuditError: all looks are spent, or scores and coins do not match.
        """
        if len(self._scores) == self.looks:
            raise AuditError("all looks are spent", "looks", self.looks, "plan more before")
        split_scores(scores, included)
        self._scores.append(np.array(scores, dtype=np.float64))
        self._coins.append(np.array(included))
        each = 1 - (1 - self.confidence) / self.looks
        outcomes = guessed(np.concatenate(self._scores), np.concatenate(self._coins), guesses)
        found = one_run_f_bound(outcomes, self.delta, each, self.family)
        if self._best is None or found.epsilon > self._best.epsilon:
            details = {**found.details, "look": len(self._scores)}
            self._best = replace(
                found,
                method=f"{found.method}, {self.looks} looks",
                confidence=self.confidence,
                details=details,
            )
        return self._best
