"""Examples in a few numbers: against oracles, and each from its own values only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from secure_fl.data.pooled import pooled_values, pooled_width

SHAPES = {
    (1, 8, 8): 16,
    (1, 28, 28): 49,
    (3, 32, 32): 3 * 49,
    (1, 5, 7): 35,
    (1, 64, 20): 7 * 7,
    (2, 128): 2 * 24,
    (1, 5): 5 + 5 + 2,
    (9,): 10,
}


@pytest.mark.parametrize(("shape", "width"), SHAPES.items())
def test_every_kind_of_example_becomes_a_short_row_of_its_own(
    shape: tuple[int, ...], width: int
) -> None:
    x = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0))
    rows = pooled_values(x)
    assert rows.shape == (6, width)
    assert pooled_width(shape) == width
    changed = x.clone()
    changed[0] = 100.0
    for same in (
        pooled_values(changed)[1:],
        torch.cat([pooled_values(x[i : i + 1]) for i in range(1, 6)]),
    ):
        assert float((same - rows[1:]).abs().max()) < 1e-13


def test_images_are_means_over_windows() -> None:
    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    np.testing.assert_allclose(
        pooled_values(x).reshape(4, 4), x.reshape(4, 2, 4, 2).numpy().mean((1, 3))
    )


def test_series_show_where_how_strong_and_how_fast() -> None:
    time = torch.arange(128) / 128
    flat = torch.zeros(1, 1, 128)
    late, slow, fast = (
        flat.clone(),
        torch.sin(2 * torch.pi * 4 * time)[None, None],
        torch.sin(2 * torch.pi * 40 * time)[None, None],
    )
    late[..., 120:] = 1
    values, squares, _ = pooled_values(late)[0].split(8)
    assert int(values.argmax()) == int(squares.argmax()) == 7
    for wave, band in ((slow, 0), (fast, 4)):
        assert int(pooled_values(wave)[0, 16:].argmax()) == band
        moved = pooled_values(torch.roll(wave, 11, dims=-1))[0, 16:]
        torch.testing.assert_close(moved, pooled_values(wave)[0, 16:], atol=1e-4, rtol=0)
