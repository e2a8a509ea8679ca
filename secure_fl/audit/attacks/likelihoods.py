"""Membership scores from shadow models: what an example's figures are like in models that were
trained on it, and in others.

Each takes figures of a target model and of S shadow models, which an attacker trained by the run's
own procedure on other halves of the same candidates.

Suffixes: S shadows, E examples, F figures, Z examples of the population.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from secure_fl.audit.attacks.rates import Scores
from secure_fl.errors import AuditError


def lira(target_EF: Scores, shadows_SEF: Scores, inside_SE: np.ndarray) -> Scores:
    """log-likelihood ratio of "was trained on" against "was not", `[E]`: both laws normal, with
    means of the example's own and one covariance for all, as fits few shadows.

    With few shadows an example's own shift between the two is mostly noise, so it is drawn towards
    the common shift by as much as shadows say that shifts differ beyond that noise.

    Source: Carlini, Chien, Nasr, Song, Terzis and Tramèr, "Membership inference attacks from first
    principles" (arXiv 2112.03570), section IV; the drawing together is ours.

    Raises:
        AuditError: an example is in fewer than two shadows, or left out by fewer than two.
    """
    inside = inside_SE[..., None].astype(np.float64)
    counts = inside.sum(0), (1 - inside).sum(0)
    if min(float(count.min()) for count in counts) < 2:
        remedy = "train at least four shadows, each example in half of them"
        raise AuditError("too few shadows", "shadows", len(shadows_SEF), remedy)
    there = (shadows_SEF * inside).sum(0) / counts[0]
    away = (shadows_SEF * (1 - inside)).sum(0) / counts[1]
    rest = shadows_SEF - np.where(inside_SE[..., None], there, away)
    freedom = rest.shape[0] * rest.shape[1] - 2 * rest.shape[1]
    covariance = np.einsum("sef,seg->fg", rest, rest) / freedom
    covariance += np.eye(len(covariance)) * (1e-9 * np.trace(covariance) + 1e-300)
    own = there - away
    noise = covariance.diagonal() * (1 / counts[0] + 1 / counts[1]).mean()
    beyond = np.maximum(own.var(0) - noise, 0.0)
    shift = own.mean(0) + beyond / (beyond + noise) * (own - own.mean(0))
    centred = target_EF - (there + away) / 2
    scores: Scores = np.einsum("ef,ef->e", centred, np.linalg.solve(covariance, shift.T).T)
    return scores


def rmia(
    target_E: Scores,
    shadows_SE: Scores,
    population_Z: Scores,
    population_SZ: Scores,
    gamma: float = 1.0,
) -> Scores:
    """The share of a population over which an example stands out, `[E]`: for which
    p(x | target)/p(x) ≥ γ · p(z | target)/p(z), p without a model being the mean over shadows.

    Source: Zarifzadeh, Liu and Shokri, "Low-cost high-power membership inference attacks" (arXiv
    2312.03262), equations 3 and 5.

    Args:
        target_E, shadows_SE: log-probabilities of the examples.
        population_Z, population_SZ: of others, which no model was trained on.
        gamma: γ.
    """
    own = target_E - _log_mean(shadows_SE)
    others = np.sort(population_Z - _log_mean(population_SZ) + np.log(gamma))
    below: Scores = np.searchsorted(others, own, side="right") / np.float64(len(others))
    return below


def _log_mean(logs_SN: Scores) -> Scores:
    """log of the mean over shadows of exp."""
    return np.asarray(logsumexp(logs_SN, axis=0) - np.log(len(logs_SN)), dtype=np.float64)


def decoded(update_P: Scores, gradients_DP: Scores, ridge: float = 1e-3) -> Scores:
    """Weights `[D]` of descent directions that make up an update: least squares with a ridge, all
    directions taken at one length.

    An update is a sum over the examples that were trained on. Whoever sees it and knows candidates'
    gradients where training began reads off which ones are in. Sources: Nasr, Shokri and Houmansadr
    (arXiv 1812.00910) for gradients as evidence of membership; the decoding of all candidates at
    once is ours.
    """
    unit_DP = gradients_DP / np.maximum(np.linalg.norm(gradients_DP, axis=1), 1e-300)[:, None]
    gram = unit_DP @ unit_DP.T + ridge * np.eye(len(unit_DP))
    return np.asarray(np.linalg.solve(gram, unit_DP @ update_P), dtype=np.float64)
