"""The laws of integer noise as tables hold them: P(|X| = k) in units of 2^-127."""

from __future__ import annotations

from fractions import Fraction

from secure_fl.privacy.noise_tables import gaussian_weights, masses, skellam_weights


def skellam_masses(variance: float) -> list[int]:
    return masses(skellam_weights(Fraction(variance)))


def gaussian_masses(deviation: float) -> list[int]:
    return masses(gaussian_weights(Fraction(deviation) ** 2))
