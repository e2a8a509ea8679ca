"""No row, however short, long or zero, makes a loss or its gradient NaN, nor infinite where the
dtype could hold it.
"""

from __future__ import annotations

import pytest
import torch
from extreme_rows import DTYPES, draw, faults, losses

from secure_fl_kernels import dispatch

ROWS = 512
MILLION = 1 << 20


@pytest.mark.parametrize("provider", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", losses())
def test_gradients_are_finite(
    name: str, dtype: torch.dtype, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, provider)
    assert [f for seed in range(3) for f in faults(losses()[name], ROWS, dtype, seed)] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", losses())
def test_gradients_of_a_million_rows_are_finite(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "cpu")
    batches = MILLION // (2 * ROWS)
    found = (f for seed in range(batches) for f in faults(losses()[name], ROWS, dtype, seed))
    assert next(found, None) is None


def test_what_is_hunted_is_found() -> None:
    """Lengths by 1/√Σx² without care for zero, and one infinity for all rows of a batch."""

    def careless(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        unit = a * a.float().square().sum(1, keepdim=True).rsqrt()
        return (unit * b.float().sign()).nan_to_num().sum()

    def shared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).sum() * torch.tensor(torch.inf)

    for loss in (careless, shared):
        assert faults(loss, ROWS, torch.bfloat16, 0)
    lengths = draw(4096, torch.bfloat16, 0).detach().double().norm(dim=1)
    for low, high in ((0, 0), (5e-8, 7e-8), (1e-13, 9e-13), (1.1e-12, 1e-11), (1e20, 1e38)):
        assert ((lengths >= low) & (lengths <= high)).sum() > 20
