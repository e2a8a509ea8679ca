"""The private sketch: what an example can move, what the noise is, and that groups are found
through it.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.privacy.accounting import epsilon
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.noise import NoiseSource, NoiseStream
from secure_fl.privacy.private_sketch import GRID, PrivateSketch, on_grid

WIDTH = 6
ODD = st.sampled_from([0.0, 1e-45, 1e-13, 3.4e38, -3.4e38, float("nan"), float("inf")])
ROW = st.lists(st.one_of(st.floats(-3, 3, width=32), ODD), min_size=WIDTH, max_size=WIDTH)
CENTRE = st.lists(
    st.one_of(st.floats(-1, 1), st.sampled_from([1e30, float("nan")])),
    min_size=WIDTH,
    max_size=WIDTH,
)


def make(**changes: Any) -> PrivateSketch:
    return PrivateSketch(
        **{"noise_multiplier": 2.0, "features": WIDTH, "seed": 7, "dimensions": 4, **changes}
    )


def stream(purpose: str = "sketch", client: int = 0, seed: int = 0) -> NoiseStream:
    return NoiseSource.for_tests(seed).stream(client=client, round=0, purpose=purpose)


@settings(max_examples=60)
@given(
    st.lists(ROW, min_size=1, max_size=4),
    ROW,
    CENTRE,
    st.integers(0, 3),
    st.lists(st.integers(-1, 3), min_size=5, max_size=5),
    st.booleans(),
)
def test_no_example_moves_either_sum_by_more_than_one(
    rows: list[list[float]],
    other: list[float],
    centre: list[float],
    at: int,
    labels: list[int],
    split: bool,
) -> None:
    """Zero-out by 1, replace-one by 2, in grid steps and exactly, whatever the others, the labels
    and the public centre are.
    """
    at, sketch = at % len(rows), make(classes=3 if split else 0)
    x, y = torch.tensor(rows), torch.tensor(labels[: len(rows)])
    x2, y2 = x.clone(), y.clone()
    x2[at], y2[at] = torch.tensor(other), labels[4]
    keep, public = torch.arange(len(rows)) != at, torch.tensor(centre, dtype=torch.float64)

    def sums(x: Tensor, y: Tensor) -> list[Tensor]:
        return [on_grid(x).sum(0), sketch.contributions(x, y if split else None, public).sum(0)]

    for full, replaced, without in zip(
        sums(x, y), sums(x2, y2), sums(x[keep], y[keep]), strict=True
    ):
        assert int((full - without).square().sum()) <= GRID**2
        assert int((full - replaced).square().sum()) <= (2 * GRID) ** 2
    contributions = sketch.contributions(x, y if split else None, public)
    assert not bool(contributions[~x.isfinite().all(1)].any())


def test_the_bound_is_attained() -> None:
    rows = torch.eye(WIDTH)
    moved = float((on_grid(rows).sum(0) - on_grid(rows[1:]).sum(0)).double().norm()) / GRID
    assert 1 - 1e-5 < moved <= 1


def test_without_centring_groups_in_a_narrow_cone_need_more_noise_multiplier() -> None:
    """Why the centre is worth its share of the budget: all groups are found at a noise that hides
    them from the plain sketch.
    """
    assert _groups_found(centring=0.2, noise=16.0) == 5
    assert _groups_found(centring=0.0, noise=16.0) <= 1


def _groups_found(centring: float, noise: float) -> int:
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    generator, found = torch.Generator().manual_seed(1), 0
    common = torch.randn(32, generator=generator)
    centres = 0.25 * torch.randn(3, 32, generator=generator)
    for seed in range(5):
        source = NoiseSource.for_tests(seed)
        sketch = PrivateSketch(
            noise_multiplier=noise, features=32, seed=seed, dimensions=16, centring=centring
        )
        clients = [
            2 * common + centres[i % 3] + 0.5 * torch.randn(300, 32, generator=generator)
            for i in range(12)
        ]
        centre = None
        if centring:
            shares = [
                sketch.release_mean(x, 300, source.stream(client=i, round=0, purpose="centre"))
                for i, x in enumerate(clients)
            ]
            centre = torch.stack(shares).mean(0)
        sketches = [
            sketch.release(x, None, 300, centre, source.stream(client=i, round=0, purpose="sketch"))
            for i, x in enumerate(clients)
        ]
        groups = KMeans(3, n_init=10, random_state=0).fit_predict(torch.stack(sketches).numpy())
        found += adjusted_rand_score([i % 3 for i in range(12)], groups) == 1
    return found


def test_noise_is_as_charged_and_the_events_add_up() -> None:
    """Mean, variance and kurtosis at a false alarm of 1e-6; the two events together are one of the
    noise multiplier asked for.
    """
    sketch = PrivateSketch(
        noise_multiplier=3.0, features=4000, seed=0, dimensions=4000, centring=0.25
    )
    first, second = sketch.events()
    assert first.noise_multiplier**-2 + second.noise_multiplier**-2 == pytest.approx(3.0**-2)
    assert first.noise_multiplier == pytest.approx(6.0)
    assert (first.sampling_rate, first.steps, first.contributions) == (1.0, 1, 1.0)
    nothing = torch.zeros(1, 4000)
    drawn = sketch.release_mean(nothing, 10, stream("a"))
    again = sketch.release(nothing, None, 10, drawn, stream("b"))
    for release, event in ((drawn, first), (again, second)):
        z = release * 10 / event.noise_multiplier
        assert abs(float(z.mean())) < 5 / sqrt(4000)
        assert abs(float(z.square().mean()) - 1) < 5 * sqrt(2 / 4000)
        assert abs(float(z.pow(4).mean()) - 3) < 5 * sqrt(96 / 4000)
    assert abs(float((drawn * again).mean()) * 100 / (6.0 * second.noise_multiplier)) < 5 / sqrt(
        4000
    )


def test_released_values_are_on_the_grid() -> None:
    """No low bits: what is released is a whole number of steps over the public size, noise
    and all.
    """
    sketch = make()
    x = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(0))
    steps = sketch.release(x, None, 64, torch.zeros(WIDTH), stream()) * (GRID * 64)
    assert bool((steps == steps.round()).all())
    shift = sketch.contributions(x, None, torch.zeros(WIDTH)).sum(0) - sketch.contributions(
        x[1:], None, torch.zeros(WIDTH)
    ).sum(0)
    without = sketch.release(x[1:], None, 64, torch.zeros(WIDTH), stream()) * (GRID * 64)
    assert torch.equal(
        steps.round() - without.round(), shift.double()
    )  # the noise does not depend on the data


def test_the_projection_is_public_orthonormal_and_repeatable() -> None:
    sketch = make()
    torch.testing.assert_close(
        sketch.projection @ sketch.projection.T, torch.eye(4, dtype=torch.float64)
    )
    assert torch.equal(sketch.projection, make().projection)
    assert not torch.equal(sketch.projection, make(seed=8).projection)
    assert torch.equal(make(dimensions=99).projection, torch.eye(WIDTH, dtype=torch.float64))
    assert (
        make(classes=3).width,
        make().width,
        PrivateSketch(1.0, 128, 0).width,
        PrivateSketch(1.0, 128, 0, classes=10).width,
    ) == (16, 4, 12, 24)


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 100])
def test_codes_are_public_unit_vectors_that_tell_labels_apart(classes: int) -> None:
    codes = make(classes=classes).codes
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(classes, dtype=torch.float64))
    assert torch.equal(codes, make(classes=classes).codes)
    assert bool((codes[:, 0] == codes[0, 0]).all())
    if 1 < classes <= 10:
        assert float((codes @ codes.T).fill_diagonal_(-1).max()) < 0.9, "two labels look alike"
    if classes > 3:
        assert not torch.equal(codes, make(classes=classes, seed=8).codes)


@pytest.mark.parametrize("classes", [3, 10])
def test_a_sketch_with_labels_is_the_outer_product_with_their_codes_and_holds_the_plain_one(
    classes: int,
) -> None:
    x = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(0))
    centre = torch.full((WIDTH,), 0.1)
    labels = torch.arange(20) % classes
    sketch = make(classes=classes)
    plain = make().contributions(x, None, centre).double()
    made = sketch.contributions(x, labels, centre).double()
    expected = torch.stack(
        [
            torch.outer(sketch.codes[label], row).flatten()
            for label, row in zip(labels.tolist(), plain, strict=True)
        ]
    )
    assert float((made - expected).abs().max()) < 3
    assert float((sketch.plain(made) - plain).abs().max()) < 10
    for outside in (-1, classes):
        assert not bool(sketch.contributions(x, torch.full((20,), outside), centre).any())


@pytest.mark.parametrize("adjacency", [Adjacency.ZERO_OUT, Adjacency.REPLACE_ONE])
@pytest.mark.parametrize(("budget", "delta"), [(1.0, 1e-5), (0.25, 1e-6), (4.0, 1e-3)])
def test_both_releases_together_cost_what_was_asked_for(
    adjacency: Adjacency, budget: float, delta: float
) -> None:
    sketch = PrivateSketch.within(budget, delta, adjacency, WIDTH, 7)
    assert budget * (1 - 1e-6) < epsilon(sketch.events(), delta, adjacency) <= budget


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": float("inf")},
        {"centring": 1.0},
        {"dimensions": 0},
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(PrivacyError):
        make(**changes)


def test_what_the_budget_does_not_hold_is_refused() -> None:
    x, centre = torch.zeros(3, WIDTH), torch.zeros(WIDTH)
    plain = make(centring=0.0)
    assert len(plain.events()) == 1
    with pytest.raises(PrivacyError, match="budget"):
        plain.release_mean(x, 3, stream())
    for sketch, arguments in (
        (plain, (x, None, 3, centre)),
        (make(), (x, None, 3, None)),
        (make(), (x, torch.zeros(3), 3, centre)),
        (make(classes=2), (x, None, 3, centre)),
        (make(), (x, None, 2, centre)),
        (make(), (x[:, 1:], None, 3, centre)),
    ):
        with pytest.raises(PrivacyError):
            sketch.release(*arguments, stream())  # type: ignore[arg-type]


def test_no_examples_release_noise_alone() -> None:
    released = make().release(torch.zeros(0, WIDTH), None, 5, torch.zeros(WIDTH), stream())
    assert released.shape == (4,)
    assert bool((released != 0).all())
