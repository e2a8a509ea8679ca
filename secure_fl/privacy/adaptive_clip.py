"""A norm bound that follows a quantile of the clients' update norms, by one noised bit a client
and round.

Source: Andrew, Thakkar, McMahan, Ramaswamy, *Differentially private learning with adaptive
clipping*, NeurIPS 2021, arXiv 1905.03871.

**Guarantee**: the bits are fields of the same vector as the update, so `ClientLevel.event` already
charges for them: sent as ±½, a bit moves the sum by ½ under zero-out and by 1 under replace-one,
against noise of σ_b. The next bound is post-processing of their noised share.

**Assumes**: `ClientLevel.bit_noise` is set, and every client uses the round's public bound.

**Not covered**: nothing beyond the mechanism that carries the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf

from secure_fl.errors import PrivacyError


@dataclass(frozen=True)
class QuantileBound:
    """How the norm bound follows a quantile of the updates' norms from round to round.

    Attributes:
        quantile: share of clients whose update is to lie within the bound.
        rate: how fast it moves: at most by a factor of e^rate a round.
        smallest, largest: it never leaves this range, so that one noisy round cannot end training.

    Raises:
        PrivacyError: a setting is out of range.
    """

    quantile: float = 0.5
    rate: float = 0.2
    smallest: float = 1e-6
    largest: float = 1e6

    def __post_init__(self) -> None:
        for holds, field, remedy in (
            (0 < self.quantile < 1, "quantile", "between 0 and 1, for example 0.5"),
            (0 < self.rate <= 1, "rate", "above 0 and at most 1, for example 0.2"),
            (0 < self.smallest < self.largest < inf, "smallest", "positive and below largest"),
        ):
            if not holds:
                raise PrivacyError("out of range", field, getattr(self, field), remedy)

    def moved(self, bound: float, inside: float) -> float:
        """The next round's bound: `bound · exp(−rate · (inside − quantile))`, where `inside` is
        `Opened.inside`, within [0, 1]. Raises PrivacyError: `inside` is not a share.
        """
        if not 0 <= inside <= 1:
            raise PrivacyError("not a share of clients", "inside", inside, "pass Opened.inside")
        return min(
            self.largest, max(self.smallest, bound * exp(-self.rate * (inside - self.quantile)))
        )


def bit_noise_for(roster: int) -> float:
    """Deviation of the bit's noise, in clients, that the authors found to cost next to nothing: a
    twentieth of the clients, at least 1.
    """
    return max(1.0, roster / 20)
