"""Differential privacy's clipping: norm, clip, sum and noise of per-sample gradients."""

from __future__ import annotations

from torch import Tensor

from bench.kernels.case import Case, Floor, Inputs, Kernel
from bench.kernels.providers import naive, ours
from secure_fl_kernels import per_sample

NAME = "two reads"


def _max_norm(gradients: Tensor) -> float:
    """The length of a typical row, so that about half of them are clipped."""
    return float(gradients.shape[1] ** 0.5)


def _ours(gradients: Tensor, noise: Tensor) -> Tensor:
    return per_sample.clip_and_sum(
        gradients, per_sample.square_norms(gradients), _max_norm(gradients), noise
    )


def _naive(gradients: Tensor, noise: Tensor) -> Tensor:
    norms = gradients.square().sum(1).sqrt()
    clipped = gradients * (_max_norm(gradients) / norms).clamp(max=1)[:, None]
    return clipped.sum(0) + noise


def _inputs(case: Case) -> Inputs:
    return case.random(case.rows, case.dimension), case.random(case.dimension, seed=1)


def _bytes(case: Case) -> float:
    return 4.0 * case.rows * case.dimension


KERNEL = Kernel(
    name="clip",
    title="clip and sum per-sample gradients, noise given; rows are "
    "examples, dimension is parameters",
    inputs=_inputs,
    providers=(
        *ours(_ours, bytes_of=lambda case: 16.0 * case.dimension, name=NAME),
        naive(_naive, lambda case: 2 * _bytes(case)),
    ),
    exact=lambda _: _naive,
    exact_bytes=lambda case: 4 * _bytes(case),
    floor=lambda _, __: Floor(reads=2),
    work=lambda case: 6.0 * case.rows * case.dimension,
    backward=False,
    rows=(64,),
    full_rows=(16, 64, 256),
    dimensions=(1_000_000,),
    full_dimensions=(100_000, 1_000_000),
)
