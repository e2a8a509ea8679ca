"""Views: seeded, batched, in range, and of the right kind."""

from __future__ import annotations

import pytest
import torch

from secure_fl.config import ViewsConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.views import SeriesViews, build_views, check_range, two_views
from secure_fl.errors import ConfigError, DataError

SHAPES = [(3, 32, 32), (1, 28, 28), (4, 50), (12,)]


@pytest.mark.parametrize("shape", SHAPES)
def test_views_are_a_function_of_the_seed_and_leave_the_global_state_alone(shape: tuple[int, ...]) -> None:
    augment, x = build_views(ViewsConfig(), shape), torch.rand(6, *shape)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (two_views(augment, x, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[1])
    assert first[0].shape == x.shape


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_image_views_stay_in_range_and_differ_within_a_batch(shape: tuple[int, ...]) -> None:
    x = torch.rand(1, *shape).repeat(8, 1, 1, 1)
    view, _ = two_views(build_views(ViewsConfig(), shape), x, 0)
    assert view.min() >= 0
    assert view.max() <= 1
    assert not torch.equal(view[0], view[1])


def test_glyphs_are_never_flipped() -> None:
    """A ramp that brightens to the right keeps doing so under every crop and jitter."""
    x = torch.linspace(0.2, 0.8, 28).repeat(64, 1, 28, 1)
    view, _ = two_views(build_views(ViewsConfig(), (1, 28, 28)), x, 0)
    assert (view[..., 20:].mean((1, 2, 3)) >= view[..., :8].mean((1, 2, 3))).all()
    flipped, _ = two_views(build_views(ViewsConfig(flip=1.0), (1, 28, 28)), x, 0)
    assert (flipped[..., 20:].mean((1, 2, 3)) <= flipped[..., :8].mean((1, 2, 3))).all()


def test_images_outside_the_unit_range_are_refused_and_not_clipped() -> None:
    for x in (torch.full((2, 1, 4, 4), 1.5), torch.full((2, 1, 4, 4), -0.2)):
        with pytest.raises(DataError, match=r"outside \[0, 1\]"):
            check_range(Dataset.from_arrays(x))
    check_range(Dataset.from_arrays(torch.rand(2, 1, 4, 4)))
    check_range(Dataset.from_arrays(5 * torch.randn(2, 1, 4)))


def test_series_are_masked_in_one_stretch() -> None:
    x = torch.ones(5, 2, 100)
    view = SeriesViews(noise=0, mask=0.3, scale=0, warp=0)(x)
    hidden = (view == 0).all(1)
    assert hidden.sum(1).tolist() == [30] * 5
    assert all(int((row.int().diff() != 0).sum()) <= 2 for row in hidden)


def test_warping_keeps_the_ends_and_the_values() -> None:
    x = torch.linspace(0, 1, 80).repeat(4, 1, 1)
    view = SeriesViews(noise=0, mask=0, scale=0, warp=0.1)(x)
    torch.testing.assert_close(view[..., [0, -1]], x[..., [0, -1]], atol=1e-5, rtol=0)
    assert (view.diff() >= -1e-6).all()
    assert not torch.allclose(view, x, atol=1e-3)


@pytest.mark.parametrize(("kind", "shape"), [("photo", (1, 28, 28)), ("series", (1, 28, 28)), ("glyph", (4, 50)), ("photo", (9,))])
def test_views_that_do_not_fit_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"views\.kind"):
        build_views(ViewsConfig(kind=kind), shape)
