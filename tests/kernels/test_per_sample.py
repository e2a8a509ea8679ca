"""Norms and clipped sums of per-sample gradients: against float64, autograd, extreme rows, and
deliberately broken forms.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secure_fl_kernels import dispatch, per_sample
from secure_fl_kernels.cpu import gradients as cpu
from secure_fl_kernels.reference import gradients as plain

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
"""Half the distance of neighbouring numbers, relative."""

Clip = Callable[[Tensor, Tensor, float, Tensor | None], Tensor]


@pytest.fixture(params=["cpu", "reference"])
def provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(dispatch.VARIABLE, request.param)
    return str(request.param)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def squares(g: Tensor) -> Tensor:
    return g.double().square().sum(1)


def clipped(g: Tensor, max_norm: float, noise: Tensor | None = None) -> Tensor:
    """The sum in float64, of finite rows."""
    norms = g.double().norm(dim=1)
    total = (g.double() * torch.where(norms > max_norm, max_norm / norms, 1.0)[:, None]).sum(0)
    return total if noise is None else total + noise.double()


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-5) -> bool:
    """Within `tolerance` of the largest element: clipping in float32 is 2⁻¹⁸ too strong
    on purpose.
    """
    return not got.numel() or bool(
        (got.double() - expected).abs().max() <= tolerance * expected.abs().max()
    )


# Norms of rows


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(0, 5),
    width=st.one_of(st.integers(0, 40), st.integers(1000, 5000)),
    dtype=st.sampled_from(DTYPES),
    scale=st.floats(-8, 8).map(lambda power: 10**power),
    layout=st.sampled_from(["rows", "apart", "columns", "every other"]),
)
def test_square_norms_of_any_shape(
    samples: int, width: int, dtype: torch.dtype, scale: float, layout: str
) -> None:
    scale = 1.0 if dtype == torch.float16 else scale
    wide = (random(samples, 2 * width + 3, seed=width) * scale).to(dtype)
    g = {
        "rows": wide[:, :width].clone(),
        "apart": wide[:, :width],
        "columns": wide[:, :width].T.clone().T,
        "every other": wide[:, : 2 * width : 2],
    }[layout]
    got = per_sample.square_norms(g)
    assert got.shape == (samples,)
    assert got.dtype == plain.accumulator(dtype)
    assert torch.allclose(got.double(), squares(g), rtol=100 * UNIT[got.dtype], atol=0)


def test_one_long_row_is_summed_as_well_as_a_short_one() -> None:
    """One float32 sum over it loses 2·10⁻³ of the norm's square: the ones fill the accumulators and
    the rest is rounded off.
    """
    row = torch.cat([torch.ones(64), torch.full((10_000_000,), 2.0**-13)])[None]
    assert float(per_sample.square_norms(row)) == pytest.approx(64 + 1e7 * 2.0**-26, rel=2.0**-20)
    row = random(1, 3_000_001)
    assert float(per_sample.square_norms(row)) == pytest.approx(float(squares(row)), rel=4e-7)
    assert float(per_sample.square_norms(row.bfloat16())) == pytest.approx(
        float(squares(row.bfloat16())), rel=4e-7
    )


def test_what_float32_cannot_square_is_infinite() -> None:
    g = torch.tensor([[1e30, 1.0], [torch.inf, 0], [torch.nan, 0], [1e-30, 0], [-1e18, 0]])
    norms = per_sample.square_norms(g)
    assert [norms[0].item(), norms[1].item(), norms[3].item()] == [torch.inf, torch.inf, 0.0]
    assert torch.isnan(norms[2])
    assert norms[4].item() == pytest.approx(1e36)
    assert per_sample.square_norms(g.double())[0].item() == pytest.approx(1e60)


# Clipping


def faults(clip: Clip) -> set[str]:
    """What is wrong with a way of clipping and summing; nothing is, of the right one."""
    g = torch.stack([random(50, seed=k) for k in range(6)])
    g = (
        g
        / g.norm(dim=1, keepdim=True)
        * torch.tensor([0.1, 0.5, 1.0, 1.0 + 1e-6, 3.0, 1e12])[:, None]
    )
    noise, found = random(50, seed=9), set()
    singles = [clip(row[None], squares(row[None]).float(), 1.0, None) for row in g]
    if any(float(single.double().norm()) > 1 + 2.0**-23 for single in singles):
        found.add("longer than the bound")
    if not all(
        close(single, clipped(row[None], 1.0)) for single, row in zip(singles, g, strict=True)
    ):
        found.add("wrong length")
    norms = squares(g).float()
    if not close(clip(g, norms, 1.0, noise) - clip(g, norms, 1.0, None), noise.double()):
        found.add("wrong noise")
    bad = torch.stack(
        [torch.full((50,), torch.nan), torch.full((50,), -torch.inf), torch.full((50,), 1e30)]
    )
    if not torch.equal(clip(bad, squares(bad).float(), 1.0, noise), noise):
        found.add("rows that are not finite leak")
    if not torch.equal(clip(g, torch.full_like(norms, -1.0), 1.0, noise), noise):
        found.add("negative squares count")
    near = torch.cat([2.0 ** torch.arange(40, 62, 0.5), torch.tensor([1 - 3e-7]) * 2.0**64])
    lengths = [
        torch.cat(
            [clip(row[None], squares(row[None]).float(), 1.0, None) for row in (k * near)[:, None]]
        )
        for k in (1.0, 1 + 1e-6)
    ]
    if float((lengths[0] - lengths[1]).abs().max()) > 4e-6:
        found.add("a step that rounding can flip")
    return found


def test_the_right_form_has_no_fault(provider: str) -> None:
    assert faults(per_sample.clip_and_sum) == set()
    mixed = {"longer than the bound", "a step that rounding can flip"}
    assert faults(lambda g, s, c, n: per_sample.clip_and_sum(g.double(), s, c, n)) <= mixed, (
        "float32's squares, float64's slack and ceiling"
    )


def _without_minimum(g: Tensor, s: Tensor, c: float, n: Tensor | None) -> Tensor:
    return (
        torch.nan_to_num(g, 0, 0, 0)
        * torch.where(s.isfinite() & (s >= 0), c / s.sqrt(), 0)[:, None]
    ).sum(0) + (0 if n is None else n)


def _without_root(g: Tensor, s: Tensor, c: float, n: Tensor | None) -> Tensor:
    return plain.clip_and_sum(g, s.square(), c, n)


def _leaking(g: Tensor, s: Tensor, c: float, n: Tensor | None) -> Tensor:
    return (g * plain.clip_factors(s, c)[:, None]).sum(0) + (0 if n is None else n)


def _noise_twice(g: Tensor, s: Tensor, c: float, n: Tensor | None) -> Tensor:
    return plain.clip_and_sum(g, s, c, None if n is None else 2 * n)


def _unrounded(g: Tensor, s: Tensor, c: float, n: Tensor | None) -> Tensor:
    return plain.clip_and_sum(g, s * (1 - 2.0**-16), c, n)


def _all_rows(g: Tensor, s: Tensor, c: float, n: Tensor | None) -> Tensor:
    return plain.clip_and_sum(g, s.abs(), c, n)


def _step_at_overflow(g: Tensor, s: Tensor, c: float, n: Tensor | None) -> Tensor:
    factors = torch.where(s < torch.inf, (c / s.sqrt()).clamp(max=1), 0.0)
    return (torch.nan_to_num(g, 0, 0, 0) * factors[:, None]).sum(0) + (0 if n is None else n)


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (_without_minimum, "wrong length"),
        (_without_root, "wrong length"),
        (_leaking, "rows that are not finite leak"),
        (_noise_twice, "wrong noise"),
        (_unrounded, "longer than the bound"),
        (_all_rows, "negative squares count"),
        (_step_at_overflow, "a step that rounding can flip"),
    ],
)
def test_planted_faults_are_found(broken: Clip, fault: str) -> None:
    assert fault in faults(broken)


@settings(max_examples=80, deadline=None)
@given(
    width=st.one_of(st.integers(1, 20), st.integers(1000, 4000)),
    dtype=st.sampled_from(DTYPES),
    max_norm=st.floats(-33, 33).map(lambda power: 10**power),
    ratio=st.one_of(
        st.floats(-1e-6, 1e-6).map(lambda x: 1 + x), st.floats(-30, 30).map(lambda power: 10**power)
    ),
    seed=st.integers(0, 99),
)
def test_no_sample_is_ever_longer_than_the_bound(
    width: int, dtype: torch.dtype, max_norm: float, ratio: float, seed: int
) -> None:
    row = random(width, seed=seed, dtype=torch.float64)
    g = (row / row.norm() * max_norm * ratio).to(dtype)[None]
    norms = per_sample.square_norms(g)
    factor = per_sample.clip_factors(norms, max_norm)
    lengths = [
        float((factor.double() * g.double()).norm()) if factor.item() else 0.0,
        float(per_sample.clip_and_sum(g, norms, max_norm).double().norm()),
    ]
    assert lengths[0] <= max_norm * (1 + 1e-15), "the sum of squares here rounds too"
    assert lengths[1] <= max_norm * (1 + 2 * UNIT[norms.dtype])
    true = float(g.double().norm())
    if 1e-15 < true < 1e15 and max_norm > 1e-9:
        assert lengths[0] >= min(max_norm, true) * (1 - 1e-5), "and not much shorter either"


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(0, 12),
    width=st.one_of(st.integers(0, 40), st.integers(1000, 3000)),
    dtype=st.sampled_from(DTYPES),
    max_norm=st.floats(0.01, 100),
    noisy=st.booleans(),
    bad=st.sets(st.integers(0, 11)),
)
def test_clipped_sums_of_any_shape(
    samples: int, width: int, dtype: torch.dtype, max_norm: float, noisy: bool, bad: set[int]
) -> None:
    g = random(samples, width + 2, seed=width, dtype=dtype)[:, :width]
    good = [row for row in range(samples) if row not in bad or width == 0]
    for row in set(range(samples)) - set(good):
        g[row, row % width] = torch.tensor([torch.nan, torch.inf])[row % 2]
    noise = random(width, seed=1) if noisy else None
    got = per_sample.clip_and_sum(g, per_sample.square_norms(g), max_norm, noise)
    assert got.dtype == plain.accumulator(dtype)
    assert torch.allclose(got.double(), clipped(g[good], max_norm, noise), rtol=1e-5, atol=2e-5)


def test_no_rows_give_the_noise_and_inputs_stay_as_they_were(provider: str) -> None:
    noise = random(7)
    assert torch.equal(
        per_sample.clip_and_sum(torch.empty(0, 7), torch.empty(0), 1.0), torch.zeros(7)
    )
    g, kept = random(3, 7), noise.clone()
    got = per_sample.clip_and_sum(torch.empty(0, 7), torch.empty(0), 1.0, noise)
    assert torch.equal(got, noise)
    assert got.data_ptr() != noise.data_ptr()
    per_sample.clip_and_sum(g, per_sample.square_norms(g), 1.0, noise)
    assert torch.equal(noise, kept)
    assert torch.equal(
        per_sample.clip_and_sum(g, per_sample.square_norms(g), 1e300),
        per_sample.clip_and_sum(g, torch.zeros(3), 1.0),
    )


@pytest.mark.parametrize("max_norm", [0.0, -1.0, float("inf"), float("nan")])
def test_bounds_that_are_none(max_norm: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        per_sample.clip_and_sum(random(2, 3), torch.ones(2), max_norm)
    with pytest.raises(ValueError, match="positive and finite"):
        per_sample.clip_factors(torch.ones(2), max_norm)


def test_what_does_not_fit_is_refused() -> None:
    g, ones = random(2, 3), torch.ones(2)
    for error, match, call in (
        (TypeError, "gradients must be floating", lambda: per_sample.square_norms(g.int())),
        (ValueError, "2 axes", lambda: per_sample.square_norms(g[0])),
        (
            ValueError,
            "not one squared norm for each row",
            lambda: per_sample.clip_and_sum(g, torch.ones(3), 1.0),
        ),
        (
            ValueError,
            "3 elements and the noise has 4",
            lambda: per_sample.clip_and_sum(g, ones, 1.0, torch.ones(4)),
        ),
        (
            TypeError,
            "noise must be floating",
            lambda: per_sample.clip_and_sum(g, ones, 1.0, torch.ones(3, dtype=torch.int64)),
        ),
        (TypeError, "float32 or float64", lambda: per_sample.clip_factors(ones.half(), 1.0)),
        (ValueError, "features", lambda: per_sample.ghost_square_norms_linear(g[0], g[0])),
        (
            ValueError,
            "positions differ",
            lambda: per_sample.ghost_square_norms_linear(random(2, 4, 3), random(2, 5, 3)),
        ),
        (
            ValueError,
            "groups of 3",
            lambda: per_sample.ghost_square_norms_linear(g, g, group_size=3),
        ),
        (
            ValueError,
            "groups of 0",
            lambda: per_sample.ghost_square_norms_linear(g, g, group_size=0),
        ),
    ):
        with pytest.raises(error, match=match):
            call()


# Ghost norms of single layers; `test_ghost_networks` has whole networks


@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(0, 4),
    positions=st.one_of(st.integers(1, 20), st.integers(250, 600)),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES),
    bias=st.booleans(),
)
def test_both_forms_err_upwards_and_little(
    samples: int, positions: int, inputs: int, outputs: int, dtype: torch.dtype, bias: bool
) -> None:
    a, b = (
        random(samples, positions, inputs, dtype=dtype),
        random(samples, positions, outputs, seed=1, dtype=dtype),
    )
    true = plain.ghost_square_norms_linear(a.double(), b.double(), bias)
    wide = plain.accumulator(dtype)
    margin = plain.ghost_margin(inputs, outputs, wide)
    spread = (a.double().square().sum(2) + bias).sqrt().mul(b.double().norm(dim=2)).sum(1).square()
    for form in (cpu._by_gram, cpu._by_gradient):
        got = form(a.to(wide), b.to(wide), bias)
        assert bool((got >= true * (1 - 200 * UNIT[wide])).all())
        assert bool((got <= true * (1 + 200 * UNIT[wide]) + 2 * margin.relative * spread).all())
    whole = per_sample.ghost_square_norms_linear(a, b, bias)
    assert whole.dtype == wide
    assert torch.allclose(whole.double(), true, rtol=1e-3, atol=0)


def test_positions_that_cancel_never_make_the_norm_too_small() -> None:
    a, b = random(8, 1, 60).expand(8, 30, 60), random(8, 30, 50, seed=1)
    b = b - b.mean(1, keepdim=True)
    true = plain.ghost_square_norms_linear(a.double(), b.double(), False)
    assert bool((per_sample.ghost_square_norms_linear(a, b, False).double() >= true).all())


@pytest.mark.parametrize("form", [cpu._by_gram, cpu._by_gradient])
def test_extreme_inputs_of_a_layer(form: Callable[[Tensor, Tensor, bool], Tensor]) -> None:
    """Squares lost to underflow are allowed for, and overflow is never mistaken for a
    small norm.
    """
    a, b = random(4, 3, 6), random(4, 3, 5, seed=1)
    for small, large in ((1e-24, 1e17), (1e-15, 1e16), (1e17, 1e-24), (1e-19, 1e-19)):
        true = plain.ghost_square_norms_linear(a.double() * small, b.double() * large, False)
        got = form(a * small, b * large, False).double() + plain.FLOOR[torch.float32]
        assert bool((got >= true * (1 - 1e-5)).all())
    for large in (1e20, 1e25):
        true = plain.ghost_square_norms_linear(a.double() * large, b.double() / large, True)
        got = form(a * large, b / large, True).double()
        assert bool((~torch.isfinite(got) | (got >= true * (1 - 1e-5))).all())
    a[2, 1, 0], b[3, 0, 0] = torch.nan, torch.inf
    assert torch.isfinite(form(a, b, True)).tolist() == [True, True, False, False]


def test_the_cheaper_form_is_the_one_with_fewer_multiplications() -> None:
    assert plain.gram_is_cheaper(1, 512, 512)
    assert plain.gram_is_cheaper(255, 512, 512)
    assert not plain.gram_is_cheaper(256, 512, 512)
    assert not plain.gram_is_cheaper(1, 1, 1000)
