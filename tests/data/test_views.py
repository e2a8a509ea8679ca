"""Views: seeded, batched, in range, and of the right kind."""

from __future__ import annotations

import random
from collections.abc import Callable
from importlib import metadata

import numpy as np
import pytest
import torch
from torch import Tensor

from secure_fl.coins import Coins
from secure_fl.config import ViewsConfig
from secure_fl.data.augmentations import GlyphViews, PhotoViews, SeriesViews, TableViews, cropped
from secure_fl.data.dataset import Dataset
from secure_fl.data.views import batch_views, build_views, check_range, two_views
from secure_fl.errors import ConfigError, DataError, PrivacyError

SHAPES = [(3, 32, 32), (1, 28, 28), (4, 50), (12,), (1,)]


@pytest.mark.parametrize("shape", SHAPES)
def test_views_are_a_function_of_the_seed_and_leave_the_global_state_alone(
    shape: tuple[int, ...],
) -> None:
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
    view, _ = two_views(SeriesViews(noise=0, mask=0.3, scale=0, warp=0), x, 0)
    hidden = (view == 0).all(1)
    assert hidden.sum(1).tolist() == [30] * 5
    assert all(int((row.int().diff() != 0).sum()) <= 2 for row in hidden)


def test_warping_keeps_the_ends_and_the_values() -> None:
    x = torch.linspace(0, 1, 80).repeat(4, 1, 1)
    view, _ = two_views(SeriesViews(noise=0, mask=0, scale=0, warp=0.1), x, 0)
    torch.testing.assert_close(view[..., [0, -1]], x[..., [0, -1]], atol=1e-5, rtol=0)
    assert (view.diff() >= -1e-6).all()
    assert not torch.allclose(view, x, atol=1e-3)


def test_columns_of_tables_are_replaced_by_standard_normal_draws_and_noised() -> None:
    x = torch.full((2000, 20), 100.0)
    first, second = two_views(TableViews(corrupt=0.3, noise=0), x, 0)
    replaced = first != x
    assert float(replaced.float().mean()) == pytest.approx(0.3, abs=0.01)
    assert bool((replaced.any(0) & ~replaced.all(0)).all())
    assert float((replaced & (second != x)).float().mean()) == pytest.approx(0.09, abs=0.01)
    drawn = first[replaced]
    assert (float(drawn.mean()), float(drawn.std())) == pytest.approx((0, 1), abs=0.03)
    noise = two_views(TableViews(corrupt=0, noise=0.5), x, 0)[0] - x
    assert (float(noise.mean()), float(noise.std())) == pytest.approx((0, 0.5), abs=0.02)
    assert torch.equal(two_views(TableViews(corrupt=0, noise=0), x, 0)[0], x)


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_a_column_of_every_example_stays(columns: int) -> None:
    x = torch.full((500, columns), 100.0)
    assert bool((two_views(TableViews(corrupt=0.99, noise=0), x, 0)[0] == x).any(1).all())
    assert isinstance(build_views(ViewsConfig(corrupt=0.4, noise=0.2), (columns,)), TableViews)
    assert build_views(ViewsConfig(corrupt=0.4, noise=0.2), (columns,)) == TableViews(0.4, 0.2)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("photo", (1, 28, 28)),
        ("series", (1, 28, 28)),
        ("glyph", (4, 50)),
        ("photo", (9,)),
        ("table", (4, 50)),
        ("table", (1, 8, 8)),
    ],
)
def test_views_that_do_not_fit_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"views\.kind"):
        build_views(ViewsConfig(kind=kind), shape)


# One example's views do not depend on the others


@pytest.mark.parametrize("shape", SHAPES)
def test_an_example_s_views_are_the_same_whoever_else_is_there(shape: tuple[int, ...]) -> None:
    augment, x, coins = build_views(ViewsConfig(), shape), torch.rand(40, *shape), Coins.public(0)
    together, some = two_views(augment, x, coins.at(2, torch.arange(40))), torch.tensor([31, 2, 17])
    alone = two_views(augment, x[some], coins.at(2, some))
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one[some], other, rtol=0, atol=1e-6)


def noisy(x: Tensor) -> Tensor:
    return x + torch.randn_like(x)


def test_a_caller_s_callable_gets_one_example_at_a_time_and_coins_of_its_own() -> None:
    x, coins, rows = torch.rand(6, 5), Coins.public(0), []

    def watched(x: Tensor) -> Tensor:
        rows.append(len(x))
        return noisy(x)

    together = two_views(watched, x, coins.at(0, torch.arange(6)))
    assert rows == [1] * 12
    alone = two_views(watched, x[4:], coins.at(0, torch.arange(4, 6)))
    assert all(torch.equal(one[4:], other) for one, other in zip(together, alone, strict=True))
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[0][0] - x[0], together[0][1] - x[1])


def test_a_callable_that_writes_into_its_input_or_last_output_makes_two_views_all_the_same() -> (
    None
):
    def in_place(x: Tensor) -> Tensor:
        return x.mul_(torch.rand(len(x), 1))

    kept = torch.empty(0)

    def into_one_place(x: Tensor) -> Tensor:
        return torch.mul(x, torch.rand(len(x), 1), out=kept.resize_(x.shape))

    x = torch.rand(6, 5) + 0.5
    before = x.clone()
    for augment in (in_place, into_one_place):
        for make in (two_views, batch_views):
            views = make(augment, x, 3)
            expected = make(lambda x: x * torch.rand(len(x), 1), before, 3)
            assert torch.equal(x, before)
            assert all(torch.equal(one, other) for one, other in zip(views, expected, strict=True))
            assert not torch.equal(views[0], views[1])


def test_an_augmentation_that_mixes_the_batch_cannot_do_so() -> None:
    """And does in `batch_views`, which is for training without privacy: the planted fault."""

    def mixup(x: Tensor) -> Tensor:
        return 0.6 * x + 0.4 * x[torch.randperm(len(x))]

    x = torch.rand(8, 5)
    other = torch.cat([x[:7], torch.full((1, 5), 99.0)])
    assert all(
        torch.equal(a[:7], b[:7])
        for a, b in zip(two_views(mixup, x, 0), two_views(mixup, other, 0), strict=True)
    )
    assert not all(
        torch.equal(a[:7], b[:7])
        for a, b in zip(batch_views(mixup, x, 0), batch_views(mixup, other, 0), strict=True)
    )


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_coins_of_other_generators_are_refused(draw: Callable[[], float]) -> None:
    with pytest.raises(PrivacyError, match="numpy's generator"):
        two_views(lambda x: x + draw(), torch.rand(3, 2), 0)


# The formulas are kornia's


KORNIA = pytest.mark.skipif(
    metadata.version("kornia") < "0.9", reason="this kornia takes its numbers in another order"
)


@KORNIA
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 33), (1, 2, 7), (2, 1, 5)])
def test_crops_are_kornia_s_for_the_same_numbers(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kornia import augmentation
    from kornia.augmentation.random_generator._2d import crop

    x, numbers = torch.rand(32, *shape), torch.rand(32, 22)
    given = iter(
        [
            numbers[:, :10],
            (4 / 3 / (3 / 4)) ** numbers[:, 10:20] * (3 / 4),
            numbers[:, 20],
            numbers[:, 21],
        ]
    )
    monkeypatch.setattr(crop, "_adapted_rsampling", lambda size, *_: _log_second(next(given), size))
    peer = augmentation.RandomResizedCrop(
        shape[1:], scale=(0.08, 1.0), p=1.0, cropping_mode="resample"
    )
    torch.testing.assert_close(cropped(x, numbers, (0.08, 1.0)), peer(x), rtol=0, atol=2e-5)


def _log_second(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Shapes of boxes are asked for as logarithms; they are the only numbers that can be 1
    or more.
    """
    return (values.log() if values.ndim == 2 and float(values.max()) > 1 else values).reshape(size)


@KORNIA
def test_colours_are_kornia_s_for_the_same_factors() -> None:
    from kornia import augmentation

    x, numbers, order = torch.rand(16, 3, 8, 8), torch.rand(4, 16), (2, 0, 3, 1)
    peer = augmentation.ColorJitter(0.8, 0.8, 0.8, 0.2, p=1.0, order=order)
    names = ("brightness_factor", "contrast_factor", "saturation_factor")
    factors = {name: 0.2 + 1.6 * row for name, row in zip(names, numbers, strict=False)} | {
        "hue_factor": 0.2 * (2 * numbers[3] - 1)
    }
    ours = PhotoViews()._jittered(x, list(numbers), order)
    torch.testing.assert_close(
        ours,
        peer.apply_transform(x, {**factors, "order": torch.tensor(order)}, {}),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("kind", [GlyphViews, PhotoViews])
def test_each_change_is_made_as_often_as_it_says(kind: type[GlyphViews | PhotoViews]) -> None:
    """Flips of a picture that shows them, and the share of pictures whose colours stay; 5 standard
    deviations of 4,000 coins.
    """
    ramp = (torch.arange(16) / 32 + 0.2).expand(4000, 3, 16, 16)
    plain = kind(crop_scale=(1.0, 1.0), flip=0.25, jitter=0.0)
    view = plain.changed(ramp.clone(), Coins.public(0).at(0, torch.arange(4000)))
    assert (
        abs(float((view[:, 0, 0, 0] > view[:, 0, 0, -1]).double().mean()) - 0.25)
        < 5 * (0.25 * 0.75 / 4000) ** 0.5
    )


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_moves_pixels_and_changes_none(quarters: int) -> None:
    """A whole crop, turned; a picture that is not square loses what lies outside of it."""
    x, whole, wide = torch.rand(5, 2, 9, 9), torch.full((5, 22), 0.5), torch.ones(5, 1, 6, 8)
    angle = torch.full((5,), quarters * torch.pi / 2)
    turned = cropped(x, whole, (1.0, 1.0), angle)
    torch.testing.assert_close(turned, x.rot90(quarters, (2, 3)), rtol=0, atol=1e-5)
    whole[:, 10:20] = 1 - 1e-6  # four to three
    seen = cropped(wide, whole, (1.0, 1.0), angle)[0, 0]
    assert float(seen.sum()) == pytest.approx(48 if quarters == 2 else 36, abs=1e-3)


def test_images_are_turned_by_any_angle_up_to_the_one_set() -> None:
    """Read off a bright spot to the right of the middle, with nothing else changed."""
    x = torch.zeros(2000, 1, 41, 41)
    x[:, 0, 20, 34:37] = 1.0
    views = GlyphViews(crop_scale=(1.0, 1.0), jitter=0.0, turn=60.0)
    seen = views.changed(x, Coins.public(1).at(0, torch.arange(2000)))[:, 0]
    y, at = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(41.0) - 20, indexing="ij")
    angles = torch.atan2((seen * y).sum((1, 2)), (seen * at).sum((1, 2))) * 180 / torch.pi
    assert float(angles.abs().max()) < 62
    assert abs(float(angles.mean())) < 5 * 60 / (3 * 2000) ** 0.5
    assert float(angles.std()) == pytest.approx(60 / 3**0.5, rel=0.05)


def test_an_image_that_is_not_turned_uses_no_further_coins() -> None:
    x, draws = torch.rand(4, 3, 8, 8), Coins.public(2).at(0, torch.arange(4))
    views = build_views(ViewsConfig(turn=1e-6), (3, 8, 8))
    plain = build_views(ViewsConfig(), (3, 8, 8))
    torch.testing.assert_close(
        views.changed(x.clone(), draws), plain.changed(x.clone(), draws), rtol=0, atol=0.05
    )


def test_views_are_the_same_under_mixed_precision() -> None:
    """bfloat16 has eight bits: positions in a wide picture need more."""
    x = (torch.arange(256) / 256).expand(4, 3, 256, 256).clone()
    views = build_views(ViewsConfig(kind="photo", colour_jitter=0.0, flip=0.0), (3, 256, 256))
    exact, _ = two_views(views, x, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = two_views(views, x, 3)
    assert torch.equal(exact, mixed)


@pytest.mark.parametrize("draw", [two_views, batch_views])
def test_a_callers_own_augmentation_is_computed_in_full_precision_too(
    draw: Callable[..., tuple[Tensor, ...]],
) -> None:
    """Matrix products are what autocast computes in fewer bits."""
    x, turn = torch.rand(6, 3, 8, 8), torch.rand(8, 8)
    exact = draw(lambda rows: rows @ turn, x, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = draw(lambda rows: rows @ turn, x, 3)
    assert all(
        torch.equal(one, other) and other.dtype == torch.float32
        for one, other in zip(exact, mixed, strict=True)
    )
