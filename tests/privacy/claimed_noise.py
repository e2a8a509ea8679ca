"""Is the noise that was charged for in what was released? Everything is measured in deviations of
the noise that the ledger claims.

What was released is compared with what would have been without noise, under the same coins. The
root mean square of the difference over many coordinates is the noise that was there; its standard
error, as a share, is 1/√(2·coordinates). A thousand coordinates tell halved noise from whole noise
by twenty standard errors, where a bound on ε from so many runs would see nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from typing import Any

import pytest
from torch import Tensor

from secure_fl.privacy.noise import NoiseStream


@dataclass(frozen=True)
class Measured:
    """A ratio to what is claimed, and its standard error."""

    ratio: float
    error: float

    def require(self, *, rounding: float = 0.02) -> None:
        """Within five standard errors of 1: fails once in two million times where the claim
        is true.
        """
        assert abs(self.ratio - 1) <= 5 * self.error + rounding, (
            f"{self.ratio:.3f} ± {self.error:.3f} of what is claimed"
        )


def noise_over_claim(residual: Tensor, deviation: float) -> Measured:
    """Noise in the released coordinates, `residual` from what they would be without, over the
    deviation that is claimed.
    """
    values = residual.double().flatten() / deviation
    return Measured(float(values.square().mean().sqrt()), 1 / sqrt(2 * len(values)))


def share_over_claim(total: float, parts: float, rate: float) -> Measured:
    """How often units took part, from the length of a sum of equal contributions, over the rate
    that is charged.

    Args:
        total: the sum's length in units of one contribution.
        parts: how many contributions there are at a rate of 1.
        rate: charged.
    """
    return Measured(total / parts / rate, sqrt((1 - rate) / (parts * rate)))


@contextmanager
def quiet(monkeypatch: pytest.MonkeyPatch, *, length: int | None = None) -> Iterator[None]:
    """Within it Gaussian noise is zero, or only draws of one `length`; uniform numbers that become
    noise are the median. Coins stay as they are.
    """
    gaussian, uniform = NoiseStream.gaussian, NoiseStream.uniform

    def silent(self: NoiseStream, shape: Any, deviation: float) -> Tensor:
        drawn = gaussian(self, shape, deviation)
        return drawn * 0 if length is None or tuple(shape) == (length,) else drawn

    with monkeypatch.context() as patch:
        patch.setattr(NoiseStream, "gaussian", silent)
        if length is None:
            patch.setattr(
                NoiseStream, "uniform", lambda self, count: uniform(self, count) * 0 + 0.5
            )
        yield


def times(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Plant a fault: all Gaussian noise is so much smaller than asked for."""
    gaussian, uniform = NoiseStream.gaussian, NoiseStream.uniform
    monkeypatch.setattr(
        NoiseStream,
        "gaussian",
        lambda self, shape, deviation: gaussian(self, shape, deviation) * factor,
    )
    # Of a normal deviate by the inverse of its distribution: a factor of the deviate is one of its
    # distance from the median, nearly.
    monkeypatch.setattr(
        NoiseStream, "uniform", lambda self, count: 0.5 + (uniform(self, count) - 0.5) * factor
    )
