"""Uploads under the experimental pad show nothing, and a planted fault of each kind is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from experimental.pads import draw, make_plan, padded_sum
from numpy.typing import NDArray
from scipy.stats import chisquare

from secure_fl.crypto.refusals import RefusedError
from secure_fl.experimental import rlwe_pad
from secure_fl.experimental.rlwe_pad import PAD_LAYOUT, PadPlan
from secure_fl.experimental.rlwe_ring import DEGREE, centred, from_bytes

pytestmark = pytest.mark.filterwarnings(
    "ignore::secure_fl.experimental.rlwe_pad.ExperimentalWarning"
)

Q = 2**50
ALARM = 1e-6
Integers = NDArray[np.int64]


def uniform_p(words: NDArray[np.uint64]) -> float:
    """Bonferroni-corrected p of chi-square tests on the high and the low eight bits of residues
    modulo 2^50.
    """
    parts = [(words >> np.uint64(42)) & np.uint64(255), words & np.uint64(255)]
    return 2 * min(
        chisquare(np.bincount(part.reshape(-1).astype(np.int64), minlength=256)).pvalue
        for part in parts
    )


def weaknesses(plan: PadPlan, trials: int = 4) -> set[str]:
    """What is wrong with uploads of small values under the functions in force, at a false-alarm
    rate of `ALARM` a test.
    """
    found: set[str] = set()
    rng, rows = np.random.default_rng(9), list[NDArray[np.uint64]]()
    for trial in range(trials):
        pad, values = draw(plan, 100 + trial), rng.integers(-5, 6, plan.fields)
        words = from_bytes(pad.protect(values), plan.elements)
        rows.append(words)
        noise = centred(words - plan.pad(pad.secret)).reshape(-1)
        noise = ((noise + 512) & 1023) - 512
        if not 14 < float(noise.var()) < 18:
            found.add("noise of another size")
        shown = PAD_LAYOUT.unpack(
            (centred(words).reshape(-1)[: PAD_LAYOUT.slots(plan.fields)] >> 10).view(np.uint64),
            plan.fields,
        )
        if abs(np.corrcoef(shown, values)[0, 1]) * plan.fields**0.5 > 6:
            found.add("correlated with the truth")
    mask = np.uint64(Q - 1)
    for words in rows:
        if uniform_p(words) < ALARM:
            found.add("not uniform")
        if uniform_p((words[1:] - words[:-1]) & mask) < ALARM:
            found.add("elements share their pad")
    for one, other in zip(rows[1:], rows[:-1], strict=True):
        if uniform_p((one - other) & mask) < ALARM:
            found.add("clients share their pad")
    return found


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a fault in."""
    short, uniform = rlwe_pad.short_elements, rlwe_pad.uniform_elements

    def replaced(fault: str) -> None:
        def faulty_short(key: bytes, group: int, count: int) -> Integers:
            drawn = short(
                b"fixed" if fault == "one secret for all" and key.startswith(b"secret") else key,
                group,
                count,
            )
            factors = {
                "zero secret": (b"secret", 0),
                "no noise": (b"noise", 0),
                "noise too large": (b"noise", 12),
            }
            prefix, factor = factors.get(fault, (b"-", 1))
            return drawn * factor if key.startswith(prefix) else drawn

        def faulty_uniform(key: bytes, group: int, count: int) -> NDArray[np.uint64]:
            if fault == "constant a":
                return np.eye(1, DEGREE, dtype=np.uint64).repeat(count, axis=0)
            return (
                uniform(key, 0, 1).repeat(count, axis=0)
                if fault == "one a for all elements"
                else uniform(key, group, count)
            )

        monkeypatch.setattr(rlwe_pad, "short_elements", faulty_short)
        monkeypatch.setattr(rlwe_pad, "uniform_elements", faulty_uniform)

    return replaced


def test_uploads_show_nothing() -> None:
    assert weaknesses(make_plan(60_000)) == set()


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("zero secret", "not uniform"),
        ("zero secret", "correlated with the truth"),
        ("constant a", "not uniform"),
        ("one a for all elements", "elements share their pad"),
        ("one secret for all", "clients share their pad"),
        ("no noise", "noise of another size"),
        ("noise too large", "noise of another size"),
    ],
)
def test_a_planted_fault_is_found(fault: str, seen: str, plant: Callable[[str], None]) -> None:
    plant(fault)
    assert seen in weaknesses(make_plan(60_000))


def test_noise_that_is_too_large_does_not_open(plant: Callable[[str], None]) -> None:
    plant("noise too large")
    values = {f"c{k}": np.full(300, 1) for k in range(3)}
    with pytest.raises(RefusedError, match="noise beyond"):
        padded_sum(make_plan(300, 3), values, list(values))
