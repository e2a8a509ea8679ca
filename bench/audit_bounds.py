"""How tight each bound on ε is, for a mechanism whose ε is known.

    python -m bench.audit_bounds [--repeats 100] [--peer-repeats 40] [--confidence 0.95]

The Gaussian mechanism with everybody in, at δ = 1e-5, of true ε 10, 4.4 and 2, audited by 200,
1,000 and 5,000 Dirac canaries in one run. A row for each method: median and 90 % interval of the
bound over repeats, the share of repeats in which it was above the truth (at most 1 − confidence for
a bound; an estimate promises nothing), and the time of one call. Methods of jax-privacy, where that
is installed, see the same scores in `--peer-repeats` of the repeats. Rows go to
`results/audit_bounds.csv`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.harness import append_row, provenance
from secure_fl.audit.bounds import (
    epsilon_of_gaussian,
    gaussian_shift_bound,
    guessed,
    noise_shift_bound,
    one_run_bound,
    one_run_f_bound,
    one_shot_estimate,
)

CSV, DELTA = "audit_bounds.csv", 1e-5
TRUE, CANARIES = (10.0, 4.4, 2.0), (200, 1000, 5000)

Scores, Coins = NDArray[np.float64], NDArray[np.bool_]
Method = Callable[[Scores, Coins], float]


def ours(confidence: float) -> dict[str, Method]:
    """Name -> bound from scores and coins."""

    def by_guesses(bound: Callable[..., Any], scores: Scores, coins: Coins) -> float:
        return float(bound(guessed(scores, coins), DELTA, confidence).epsilon)

    def by_scores(bound: Callable[..., Any], scores: Scores, coins: Coins) -> float:
        return float(bound(scores, coins, DELTA, confidence).epsilon)

    approximate = partial(one_run_f_bound, family="approximate")
    return {
        "one run": partial(by_guesses, one_run_bound),
        "one run, f-DP": partial(by_guesses, approximate),
        "one run, Gaussian DP": partial(by_guesses, one_run_f_bound),
        "Gaussian shift": partial(by_scores, gaussian_shift_bound),
        "noise shift": partial(by_scores, noise_shift_bound),
        "one shot (estimate)": lambda scores, coins: float(
            one_shot_estimate(scores, coins, DELTA).epsilon
        ),
    }


def peers(confidence: float) -> dict[str, Method]:
    """Those of jax-privacy; none where it is not installed."""
    if find_spec("jax_privacy") is None:
        return {}
    auditor = import_module("jax_privacy.auditing").CanaryScoreAuditor

    def call(name: str, scores: Scores, coins: Coins) -> float:
        made = auditor(scores[coins], scores[~coins])
        return float(getattr(made, name)(1 - confidence, DELTA))

    names = ("clopper_pearson", "one_run", "one_run_fdp", "from_gdp")
    return {f"jax-privacy {name}": partial(call, f"epsilon_{name}") for name in names}


def mu_of(epsilon: float) -> float:
    """The μ of the Gaussian mechanism of this ε."""
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if epsilon_of_gaussian(middle, DELTA) < epsilon else (low, middle)
        )
    return high


def measure(
    method: Method, epsilon: float, canaries: int, repeats: int
) -> Mapping[str, float | int]:
    """What one method says over repeats of one setting; the n-th repeat is the same for all."""
    mu, found = mu_of(epsilon), []
    began = time.perf_counter()
    for repeat in range(repeats):
        rng = np.random.default_rng([repeat, canaries, round(10 * epsilon)])
        coins = rng.random(canaries) < 0.5
        found.append(method(mu * coins + rng.normal(size=canaries), coins))
    seconds = (time.perf_counter() - began) / repeats
    low, middle, high = np.quantile(found, [0.05, 0.5, 0.95])
    return {
        "median": round(float(middle), 3),
        "q05": round(float(low), 3),
        "q95": round(float(high), 3),
        "above_truth": round(float(np.mean(np.array(found) > epsilon + 1e-6)), 3),
        "repeats": repeats,
        "ms": round(1e3 * seconds, 2),
    }


def main() -> None:
    """Measure, print and append."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--peer-repeats", type=int, default=40)
    parser.add_argument("--confidence", type=float, default=0.95)
    arguments = parser.parse_args()
    where = provenance(["jax-privacy", "scipy"])
    own, others = ours(arguments.confidence), peers(arguments.confidence)
    for epsilon in TRUE:
        for canaries in CANARIES:
            for name, method in {**own, **others}.items():
                repeats = arguments.peer_repeats if name in others else arguments.repeats
                found = measure(method, epsilon, canaries, repeats)
                row = {"true_epsilon": epsilon, "canaries": canaries, "method": name}
                row |= {"confidence": arguments.confidence, **found}
                append_row(CSV, row, where)
                print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
