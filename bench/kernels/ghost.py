"""Ghost norms: norms of a linear layer's per-sample gradients without the gradients."""

from __future__ import annotations

from torch import Tensor

from bench.kernels.case import Case, Function, Inputs, Kernel, Provider
from bench.kernels.providers import naive, ours
from secure_fl_kernels import per_sample

NAME = "ghost"
STEPS = (1, 16)


def _setting(steps: int) -> str:
    return f"T = {steps}"


def _steps(setting: str) -> int:
    return int(setting.rsplit(" ", 1)[1])


def _ours(steps: int) -> Function:
    def function(inputs: Tensor, outputs: Tensor) -> Tensor:
        return per_sample.ghost_square_norms_linear(
            inputs[:, :steps], outputs[:, :steps], bias=True
        )

    return function


def _naive(steps: int) -> Function:
    def function(inputs: Tensor, outputs: Tensor) -> Tensor:
        weight = outputs[:, :steps].mT @ inputs[:, :steps]
        bias = outputs[:, :steps].sum(1)
        return weight.square().sum((1, 2)) + bias.square().sum(1)

    return function


def _inputs(case: Case) -> Inputs:
    steps = max(STEPS)
    return case.random(case.rows, steps, case.dimension), case.random(
        case.rows, steps, case.dimension, seed=1
    )


def _bytes(case: Case) -> float:
    return 8.0 * case.rows * case.dimension**2


def _small_bytes(case: Case) -> float:
    return 16.0 * case.rows * (max(STEPS) ** 2 + max(STEPS) * case.dimension)


def _providers(steps: int) -> tuple[Provider, ...]:
    setting = _setting(steps)
    return (*ours(_ours(steps), setting, _small_bytes, NAME), naive(_naive(steps), _bytes, setting))


KERNEL = Kernel(
    name="ghost",
    title="squared norms of a linear layer's per-sample gradients, bias too; rows are examples, "
    "dimension is both widths, T positions",
    inputs=_inputs,
    providers=tuple(provider for steps in STEPS for provider in _providers(steps)),
    exact=lambda setting: _naive(_steps(setting)),
    exact_bytes=lambda case: 2 * _bytes(case),
    work=lambda case: 2.0 * max(STEPS) * case.rows * case.dimension**2,
    backward=False,
    rows=(64,),
    full_rows=(16, 64, 256),
    dimensions=(512,),
    full_dimensions=(128, 512, 1024),
)
