"""Trainers and claims that are none: words, and never a pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from secure_fl.audit import Claim, DiracCanaries, audit_trainer
from secure_fl.errors import AuditError

SIZE = 1000


class Gives:
    """Releases the canaries' sum as something else."""

    def __init__(self, made: Any) -> None:
        self.made, self.called = made, False

    def release(self, data: None, canaries: DiracCanaries) -> Any:
        self.called = True
        noisy = canaries.sum() + np.random.default_rng(0).normal(0, 5, canaries.dimension)
        return self.made(noisy)


def play(made: Any, **options: Any) -> Any:
    claim = options.pop("claim", Claim(1.0, 1e-5))
    return audit_trainer(Gives(made), None, claim, dimension=SIZE, **options)


def test_lists_and_tensors_are_vectors() -> None:
    for made in (
        np.ndarray.tolist,
        torch.from_numpy,
        lambda v: torch.tensor(v, dtype=torch.bfloat16, requires_grad=True),
    ):
        assert play(made).canaries == SIZE


@pytest.mark.parametrize(
    "made",
    [
        lambda v: "release",
        lambda v: list(map(str, v)),
        lambda v: None,
        lambda v: [[1.0], [1.0, 2.0]],
        lambda v: v + 1j,
        lambda v: v[:-1],
        lambda v: v[None],
        lambda v: np.append(v[:-1], np.nan),
        lambda v: {"a": v},
        lambda v: 0 * v,
    ],
)
def test_what_is_no_release_is_said(made: Any) -> None:
    with pytest.raises(AuditError, match="release"):
        play(made)


def test_nothing_finite_beyond_the_canaries_is_asked_too() -> None:
    with pytest.raises(AuditError, match="not finite"):
        audit_trainer(
            Gives(lambda v: np.append(v[:-1], np.inf)), None, Claim(1.0, 1e-5), dimension=2 * SIZE,
            canaries=SIZE,
        )  # fmt: skip


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf"), "1", True])
def test_a_claim_that_nothing_could_refute_is_none(epsilon: Any) -> None:
    with pytest.raises(AuditError, match="epsilon"):
        Claim(epsilon, 1e-5)


@pytest.mark.parametrize("delta", [0.0, 1.0, 2.0, float("nan"), True])
def test_a_delta_is_a_probability(delta: float) -> None:
    with pytest.raises(AuditError, match="delta"):
        Claim(1.0, delta)


@pytest.mark.parametrize("noise", [(0.0, 1.0), (1.0, 0.0), (1.0, float("nan")), (-1.0, 1.0)])
def test_noise_that_is_claimed_is_noise(noise: tuple[float, float]) -> None:
    with pytest.raises(AuditError, match="noise"):
        Claim(1.0, 1e-5, noise)


@pytest.mark.parametrize(
    "options",
    [
        {"clip": 0.0}, {"clip": float("nan")}, {"confidence": 1.0}, {"false_alarm": 0.0},
        {"canaries": 999}, {"canaries": SIZE + 1}, {"canaries": 1000.0},
    ],
)  # fmt: skip
def test_arguments_are_looked_at_before_anything_is_trained(options: dict[str, Any]) -> None:
    trainer = Gives(lambda v: v)
    with pytest.raises(AuditError):
        audit_trainer(trainer, None, Claim(1.0, 1e-5), dimension=SIZE, **options)
    assert not trainer.called
