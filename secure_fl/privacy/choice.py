"""Which pool a client trains, chosen privately for its examples.

Where only its own example-level noise protects a client, the choice it shows is a release: the
exponential mechanism on bounded losses, in few rounds (`privacy.choice_every`); between them the
client stays where it is.

Source of the policy: R-DPCFL, arXiv 2405.19272. The mechanism: McSherry, Talwar 2007; its zCDP:
Cesar, Rogers 2021 (bounded range).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.privacy.events import PureEvent
from secure_fl.privacy.noise import NoiseStream


def bounded_score(losses: Tensor, bound: float, size: int) -> float:
    """Σ clamp(loss, 0, b) / n: what pools are compared by. Low is good. NaN counts as b.

    **Guarantee**: one example of the n moves each pool's score by b/n at most, under zero-out and
    under replace-one.

    Args:
        losses: of the examples there are, `[N]`, N ≤ n, under one pool; each from its own example
            only (eval mode, no batch statistics).
        bound: b, public.
        size: n, the client's public number of examples.

    Raises:
        PrivacyError: more losses than `size`, or a bound that is none.
    """
    if not 0 < bound < inf or not 0 < size >= len(losses):
        remedy = "a finite bound above 0, and size at least N"
        raise PrivacyError("not a bounded score", "losses", (bound, size), remedy)
    return float(losses.double().nan_to_num(nan=bound).clamp(0, bound).sum() / size)


@dataclass(frozen=True)
class PrivateChoice:
    """The exponential mechanism on bounded scores.

    Pool k is chosen with probability proportional to exp(−ε·score_k/(2Δ)), Δ = b/n, by adding
    Gumbel noise and taking the best.

    **Guarantee**: ε-DP for each choice, with bounded range ε, thus ε²/8-zCDP: replaced or zeroed,
    an example moves the difference of any two log-probabilities by ε at most, as each score moves
    by Δ at most.

    **Assumes**: scores by `bounded_score`; a secret stream; `previous` is the client's last
    released choice, follows from its released sketch, or is public.

    **Not covered**: chances below 2^-50, where 53-bit uniforms end: a pool that should be chosen
    that seldom never is.

    Attributes:
        epsilon: of one choice.
        bound: b of the scores.
        size: n of the scores.
        stay: public bonus of the previous choice, in units of the score: how much better another
            pool must look.

    Raises:
        PrivacyError: a setting is out of range.
    """

    epsilon: float
    bound: float
    size: int
    stay: float = 0.0

    def __post_init__(self) -> None:
        for holds, field in (
            (0 < self.epsilon < inf, "epsilon"),
            (0 < self.bound < inf, "bound"),
            (self.size >= 1, "size"),
            (0 <= self.stay < inf, "stay"),
        ):
            if not holds:
                remedy = "a finite positive number; stay may be 0"
                raise PrivacyError("out of range", field, getattr(self, field), remedy)

    def choose(
        self, scores: Sequence[float], stream: NoiseStream, previous: int | None = None
    ) -> int:
        """The index that is drawn. Raises PrivacyError: no score, or one outside [0, bound]."""
        u = self._utilities(scores, previous)
        return int(np.argmax(u - np.log(-np.log(stream.uniform(len(u))))))

    def probabilities(self, scores: Sequence[float], previous: int | None = None) -> list[float]:
        """The probability of each pool. As private as the scores: for planning and tests."""
        utilities = torch.from_numpy(self._utilities(scores, previous))
        return [float(p) for p in torch.softmax(utilities, 0)]

    def _utilities(
        self, scores: Sequence[float], previous: int | None
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        if not scores or not all(0 <= score <= self.bound * (1 + 1e-12) for score in scores):
            remedy = "make them by bounded_score, all with this bound"
            raise PrivacyError("scores are not bounded", "scores", "not shown", remedy)
        lowered = [score - (self.stay if k == previous else 0.0) for k, score in enumerate(scores)]
        return np.array(lowered) * (-self.epsilon * self.size / (2 * self.bound))

    def event(self, choices: int) -> PureEvent:
        """What so many choices cost."""
        return PureEvent(epsilon=self.epsilon, bounded_range=True, releases=choices)
