"""Triton's norms and clipped sums of per-sample gradients against float64, with every
lane watched.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from secure_fl_kernels import per_sample, reference
from secure_fl_kernels.reference import gradients as plain

pytestmark = [
    pytest.mark.triton,
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning"),
]

gpu = pytest.importorskip("secure_fl_kernels.gpu.gradients")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
EXACT = {torch.float32: 1e-6, torch.bfloat16: 1e-6, torch.float16: 1e-6}
"""Relative: inputs of any dtype are widened exactly and summed in float32."""

few = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def random(
    *shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Tensor:
    return (
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        .to(dtype)
        .to(device)
    )


def squares(g: Tensor) -> Tensor:
    return g.cpu().double().square().sum(1)


def clipped(g: Tensor, max_norm: float, noise: Tensor | None = None) -> Tensor:
    """What the sum should be, in float64, of rows that are finite."""
    g = g.cpu().double()
    norms = g.norm(dim=1)
    total = (g * torch.where(norms > max_norm, max_norm / norms, 1.0)[:, None]).sum(0)
    return total if noise is None else total + noise.cpu().double()


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-5) -> bool:
    """Within `tolerance` of the largest expected element: clipping is 2⁻¹⁸ too strong
    on purpose.
    """
    return (
        bool((got.cpu().double() - expected).abs().max() <= tolerance * expected.abs().max())
        if expected.numel()
        else not got.numel()
    )


@few
@given(
    samples=st.integers(1, 3),
    width=st.integers(1, 5000),
    dtype=st.sampled_from(DTYPES),
    apart=st.integers(0, 5),
)
def test_square_norms_of_any_shape(
    device: str, samples: int, width: int, dtype: torch.dtype, apart: int
) -> None:
    g = random(samples, width + apart, seed=width, dtype=dtype, device=device)[:, :width]
    assert torch.allclose(
        per_sample.square_norms(g).cpu().double(), squares(g), rtol=EXACT[dtype], atol=0
    )


@pytest.mark.parametrize("rows", [(256, 1, 2), (1024, 1, 4), (2048, 4, 4)])
def test_every_shipped_block_of_square_norms(device: str, rows: tuple[int, int, int]) -> None:
    g = random(2, 9001, device=device)
    assert torch.allclose(
        gpu.square_norms(g, gpu.Rows(*rows)).cpu().double(), squares(g), rtol=1e-6, atol=0
    )


@few
@given(
    samples=st.integers(0, 20),
    width=st.integers(1, 300),
    dtype=st.sampled_from(DTYPES),
    noisy=st.booleans(),
    max_norm=st.floats(0.1, 30),
)
def test_clipped_sums_of_any_shape(
    device: str, samples: int, width: int, dtype: torch.dtype, noisy: bool, max_norm: float
) -> None:
    g = random(samples, width, seed=width, dtype=dtype, device=device)
    noise = random(width, seed=1, device=device) if noisy else None
    got = per_sample.clip_and_sum(g, per_sample.square_norms(g), max_norm, noise)
    assert torch.allclose(got.cpu().double(), clipped(g, max_norm, noise), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [(8, 256, 4), (16, 64, 4)])
def test_every_shipped_block_of_clipped_sums(device: str, columns: tuple[int, int, int]) -> None:
    g, noise = random(19, 300, device=device), random(300, seed=1, device=device)
    got = gpu.clip_and_sum(g, per_sample.square_norms(g), 9.0, noise, gpu.Columns(*columns))
    assert close(got, clipped(g, 9.0, noise))


def test_rows_that_are_not_finite_add_exactly_zero_and_are_not_read(
    device: str, guard: object
) -> None:
    g, noise = random(6, 100, device=device), random(100, seed=1, device=device)
    g[1, 3], g[2, 99], g[4] = torch.nan, torch.inf, 1e30
    norms = per_sample.square_norms(g)
    assert torch.isfinite(norms).tolist() == [True, False, False, True, False, True]
    got = per_sample.clip_and_sum(g, norms, 2.0, noise)
    assert close(got, clipped(g[[0, 3, 5]], 2.0, noise))
    assert torch.equal(per_sample.clip_and_sum(g[[1, 2, 4]], norms[[1, 2, 4]], 2.0, noise), noise)
    nothing = torch.full_like(norms, -1.0)
    assert torch.equal(per_sample.clip_and_sum(g, nothing, 2.0), torch.zeros_like(noise))


def test_factors_fade_out_before_lengths_overflow(device: str) -> None:
    """Row by row the factor of the reference, on the ramp and beyond."""
    lengths = 2.0 ** torch.arange(44, 64, 0.5)
    got = torch.cat(
        [
            per_sample.clip_and_sum(row[None].to(device), row.square().to(device), 1.0).cpu()
            for row in lengths[:, None]
        ]
    )
    assert close(got, lengths * plain.clip_factors(lengths.square(), 1.0), 1e-6)
    assert 0 < float(got[lengths == 2.0**59.5]) < 0.6
    assert not got[lengths >= 2.0**60].any()


@pytest.mark.parametrize("max_norm", [1e-30, 1e-13, 1e-3, 1.0, 1e30])
def test_no_sample_is_longer_than_the_bound(device: str, max_norm: float) -> None:
    for scale in (1e-25, 1e-14, 1e-3, 1.0, 1 + 1e-6, 1e10):
        row = random(1, 64, seed=7)
        g = (row / row.double().norm() * max_norm * scale).float().to(device)
        length = float(
            per_sample.clip_and_sum(g, per_sample.square_norms(g), max_norm).cpu().double().norm()
        )
        assert length <= max_norm * (1 + 2.0**-23), (max_norm, scale)


def test_each_gradient_is_read_once(device: str, guard: object) -> None:
    g, norms = random(10, 500, device=device), torch.ones(10, device=device)
    gpu.clip_and_sum(g, norms, 1.0, None)
    gpu.square_norms(g)
    if device == "cpu":
        assert (
            guard.loaded("clip_kernel", "G") == guard.loaded("square_kernel", "G") == 4 * g.numel()
        )  # type: ignore[attr-defined]


Blocking = Callable[[], object]
GRAMS = [
    (16, 64, 2, 3),
    (16, 16, 2, 2),
    (32, 64, 8, 3),
    (32, 32, 4, 2),
    (64, 32, 4, 3),
    (64, 16, 8, 3),
]
OUTERS = [(32, 32, 32, 4, 3), (32, 32, 16, 4, 3), (64, 64, 64, 4, 3), (64, 64, 16, 8, 3)]


def judged(got: Tensor, a: Tensor, b: Tensor, bias: bool) -> None:
    """Never below the truth by more than the slack of clipping allows, and above it by the margin
    at most.
    """
    true = plain.ghost_square_norms_linear(a.cpu().double(), b.cpu().double(), bias)
    margin = plain.ghost_margin(a.shape[2], b.shape[2], torch.float32).relative
    spread = (
        (a.cpu().double().square().sum(2) + bias)
        .sqrt()
        .mul(b.cpu().double().norm(dim=2))
        .sum(1)
        .square()
    )
    got = got.cpu().double()
    assert bool((got >= true * (1 - 2.0**-18)).all()), (got, true)
    assert bool((got <= true * (1 + 1e-6) + 2 * margin * spread + 1e-30).all()), (got, true)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "shape",
    [gpu.Gram(*blocks) for blocks in GRAMS] + [gpu.Outer(*blocks) for blocks in OUTERS],
    ids=str,
)
def test_every_shipped_block_of_ghost_norms(device: str, shape: object, bias: bool) -> None:
    a, b = random(2, 70, 40, device=device), random(2, 70, 35, seed=1, device=device)
    judged(gpu.ghost_square_norms_linear(a, b, bias, shape), a, b, bias)


@few
@given(
    samples=st.integers(1, 2),
    positions=st.integers(1, 70),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES),
    bias=st.booleans(),
)
def test_ghost_norms_of_any_shape(
    device: str,
    samples: int,
    positions: int,
    inputs: int,
    outputs: int,
    dtype: torch.dtype,
    bias: bool,
) -> None:
    a = random(samples, positions, inputs, seed=inputs, dtype=dtype, device=device)
    b = random(samples, positions, outputs, seed=outputs + 100, dtype=dtype, device=device)
    for blocking in (
        gpu.gram_for(positions, dtype != torch.float32),
        gpu.outer_for(inputs, outputs, dtype != torch.float32),
    ):
        judged(gpu.ghost_square_norms_linear(a, b, bias, blocking), a, b, bias)
    judged(per_sample.ghost_square_norms_linear(a, b, bias), a, b, bias)


def test_positions_that_cancel_never_make_the_norm_too_small(device: str) -> None:
    a, b = (
        random(1, 1, 48, device=device).expand(1, 20, 48),
        random(1, 20, 33, seed=1, device=device),
    )
    b = b - b.mean(1, keepdim=True)
    true = plain.ghost_square_norms_linear(a.cpu().double(), b.cpu().double(), False)
    for blocking in (gpu.Gram(16, 32, 2, 2), gpu.Gram(64, 16, 8, 3)):
        assert bool(
            (gpu.ghost_square_norms_linear(a, b, False, blocking).cpu().double() >= true).all()
        )


def test_strides_mixed_dtypes_and_bad_samples(device: str) -> None:
    a, b = (
        random(3, 24, 20, device=device).mT,
        random(3, 18, 20, seed=1, dtype=torch.bfloat16, device=device).mT,
    )
    judged(per_sample.ghost_square_norms_linear(a, b, True), a, b, True)
    a = a.clone()
    a[1, 2, 3] = torch.nan
    assert torch.isfinite(per_sample.ghost_square_norms_linear(a, b, True)).tolist() == [
        True,
        False,
        True,
    ]
    assert per_sample.ghost_square_norms_linear(a[:0], b[:0], True).shape == (0,)


def test_samples_too_large_for_32_bits_take_plain_torch(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = random(3, 5, 6, device=device), random(3, 5, 4, seed=1, device=device)
    monkeypatch.setattr(gpu, "_FARTHEST", 29)
    assert torch.equal(
        gpu.ghost_square_norms_linear(a, b, True), plain.ghost_square_norms_linear(a, b, True)
    )


def test_convolutions_with_channel_groups_and_groups_of_samples(device: str) -> None:
    layer = torch.nn.Conv2d(
        4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2
    ).double()
    images = random(4, 4, 7, 8, dtype=torch.float64)
    outputs = layer(images)
    backprops = random(*outputs.shape, seed=1, dtype=torch.float64)
    for size in (1, 2):
        expected = []
        for start in range(0, 4, size):
            gradients = torch.autograd.grad(
                outputs[start : start + size],
                tuple(layer.parameters()),
                backprops[start : start + size],
                retain_graph=True,
            )
            expected.append(sum(float(gradient.square().sum()) for gradient in gradients))
        got = per_sample.ghost_square_norms_conv2d(
            images.float().to(device),
            backprops.float().to(device),
            (3, 2),
            (2, 1),
            (1, 0),
            (1, 2),
            2,
            True,
            size,
        )
        assert torch.allclose(
            got.cpu().double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4
        )


def test_repeats_bit_for_bit_in_any_order_of_programs(device: str) -> None:
    from secure_fl_kernels.proof import interpreter

    g, a, b = (
        random(3, 5000, device=device),
        random(2, 40, 20, device=device),
        random(2, 40, 30, seed=1, device=device),
    )

    def everything() -> list[Tensor]:
        norms = gpu.square_norms(g)
        ways = (gpu.Gram(16, 32, 2, 2), gpu.Outer(32, 32, 16, 4, 3))
        ghosts = [gpu.ghost_square_norms_linear(a, b, True, way) for way in ways]
        return [norms, gpu.clip_and_sum(g, norms, 1.0, None), *ghosts]

    first = everything()
    if device == "cpu":
        with interpreter.reversed_grid():
            second = everything()
    else:
        second = everything()
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_float64_takes_another_provider_and_variants_are_named_apart(device: str) -> None:
    g = random(3, 50, dtype=torch.float64, device=device)
    assert torch.allclose(per_sample.square_norms(g).cpu(), squares(g), rtol=1e-14)
    assert per_sample.square_norms(g).dtype == torch.float64
    for arch in ("sm80", "sm90", "sm100", "gfx942"):
        names = [variant.name for variant in gpu.variants(arch)]
        assert len(set(names)) == len(names)
    assert reference.gradients is plain
