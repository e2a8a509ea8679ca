"""No row, however short, long or zero, makes what Triton computes NaN, nor infinite where the dtype
could hold it; interpreted or on a GPU.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from extreme_rows import DTYPES, faults, losses

pytestmark = [pytest.mark.triton, pytest.mark.gpu]

ROWS = 128
MILLION = 1 << 20


def hunted(name: str, dtype: torch.dtype, seeds: range, device: str, rows: int) -> list[str]:
    loss = losses()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of a half that overflows
        return [
            found
            for seed in seeds
            for found in faults(
                lambda a, b: loss(a.to(device), b.to(device)).cpu(), rows, dtype, seed
            )
        ]


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@pytest.mark.parametrize("name", losses())
def test_gradients_are_finite(name: str, dtype: torch.dtype, device: str) -> None:
    assert hunted(name, dtype, range(1), device, ROWS) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@pytest.mark.parametrize("name", losses())
def test_gradients_of_a_million_rows_are_finite(name: str, dtype: torch.dtype, device: str) -> None:
    """A million on a GPU; interpreted, some thousands."""
    rows = 4 * ROWS
    batches = MILLION // (2 * rows) if device == "cuda" else 8
    assert hunted(name, dtype, range(batches), device, rows) == []
