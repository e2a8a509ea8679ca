"""Metrics of a representation against closed forms and the losses they come from."""

from __future__ import annotations

import pytest
import torch

from secure_fl.objectives import metrics
from secure_fl_kernels.reference import uniformity_loss


def test_effective_rank_of_known_spectra() -> None:
    assert metrics.effective_rank(torch.eye(7)) == pytest.approx(7)
    assert metrics.effective_rank(torch.ones(9, 4)) == pytest.approx(1, abs=1e-6)
    assert metrics.effective_rank(torch.zeros(9, 4)) == 0


def test_blocked_uniformity_equals_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_BLOCK", 7)
    h = torch.randn(31, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert metrics.uniformity(h) == pytest.approx(uniformity_loss(h).item(), abs=1e-12)


def test_alignment_of_equal_views_is_zero() -> None:
    h = torch.randn(5, 3)
    assert metrics.alignment(h, 2 * h) == pytest.approx(0, abs=1e-12)
    assert metrics.alignment(h, -h) == pytest.approx(4)
