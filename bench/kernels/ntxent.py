"""NT-Xent: every provider, forward and backward."""

from __future__ import annotations

from torch import Tensor

from bench.kernels.case import Case, Floor, Inputs, Kernel, Provider
from bench.kernels.peers import (
    lightly_missing,
    lightly_nt_xent,
    metric_learning,
    metric_learning_missing,
)
from bench.kernels.providers import compiled_naive, naive, ours, square_bytes
from secure_fl_kernels import functional, reference

TEMPERATURE = 0.2
LIGHTLY = "lightly NTXentLoss"
SUPCON = "pytorch-metric-learning SupConLoss"
CUBIC = "pytorch-metric-learning NTXentLoss"


def _ours(z1: Tensor, z2: Tensor) -> Tensor:
    return functional.nt_xent_loss(z1, z2, TEMPERATURE)


def _naive(z1: Tensor, z2: Tensor) -> Tensor:
    return reference.nt_xent_loss(z1, z2, TEMPERATURE)


def _inputs(case: Case) -> Inputs:
    return case.views(case.rows // 2)


KERNEL = Kernel(
    name="ntxent",
    title="NT-Xent at temperature 0.2; rows are those of the similarity matrix, two views stacked",
    inputs=_inputs,
    providers=(
        *ours(_ours),
        naive(_naive, square_bytes(14)),
        compiled_naive(_naive, square_bytes(6)),
        Provider(
            LIGHTLY,
            lambda _: lightly_nt_xent(TEMPERATURE),
            square_bytes(18),
            lambda _: lightly_missing(),
        ),
        Provider(
            SUPCON,
            lambda _: metric_learning("SupConLoss", TEMPERATURE),
            square_bytes(46),
            lambda _: metric_learning_missing(),
        ),
        Provider(
            CUBIC,
            lambda _: metric_learning("NTXentLoss", TEMPERATURE),
            lambda case: 18.0 * case.rows**3,
            lambda _: metric_learning_missing(),
            order=3,
        ),
    ),
    exact=lambda _: _naive,
    exact_bytes=square_bytes(28),
    tiles64=lambda _: _ours,
    floor=lambda case, _: Floor(4 * case.rows**2 * case.dimension, case.rows**2),
)
