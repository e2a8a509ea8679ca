"""What a user can ask of the kernels on their own machine: do all providers agree, and are the
binaries sound.

`agreements` compares every provider at hand with plain torch in float64. `interpreted` does so for
Triton's kernels in a process of its own, under the guard and in both orders of programs. The
binaries are `matrix`'s. Results come one by one, as plain records; `secure-fl kernels check`
prints them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from math import inf, isnan
from types import ModuleType

import torch
from torch import Tensor

from secure_fl_kernels import dispatch, functional, reference
from secure_fl_kernels.cpu import gradients as on_processor
from secure_fl_kernels.subspace import Subspace

TOLERANCES: Mapping[str, float] = {
    "float64": 1e-9,
    "float32": 1e-5,
    "bfloat16": 5e-3,
    "float16": 5e-3,
}
"""Relative error that values and gradients of a dtype are allowed."""

_ROWS = 70
"""They fill no tile: 140 of both views make two programs of 128 rows, or three of 64."""

_NARROW, _WIDE = 33, 160
"""Dimensions that are held whole and in chunks."""


@dataclass(frozen=True)
class Agreement:
    """One function of one provider against plain torch in float64.

    Attributes:
        provider: `triton`, `cpu` or `reference`, with the device.
        value: relative error of the result.
        gradient: relative error of the gradients, by norm; 0 where there is none.
        tolerance: what both may be.
        problem: what else is wrong: the guard's violation, other bits in another order,
            an exception.
    """

    function: str
    provider: str
    dtype: str
    rows: int
    width: int
    value: float
    gradient: float
    tolerance: float
    problem: str = ""

    @property
    def holds(self) -> bool:
        return not self.problem and self.value <= self.tolerance and self.gradient <= self.tolerance


_INTERPRETED_DTYPES = ("float32", "bfloat16")
INTERPRETED = 26
"""Agreements that `interpreted` yields: 9 functions narrow and wide in float32, 8 narrow
in bfloat16.
"""

Function = Callable[[Tensor, Tensor], Tensor]
Outcome = tuple[Tensor, tuple[Tensor, ...]]
"""A function's result, and its gradients by the arguments."""


def agreements(
    provider: dispatch.Provider, device: str, dtypes: tuple[str, ...]
) -> Iterator[Agreement]:
    """Every function in every dtype; narrow rows in all of them, wide ones in the first."""
    for dtype in dtypes:
        for width in (_NARROW, _WIDE) if dtype == dtypes[0] else (_NARROW,):
            for name, function in _functions(width, dtype).items():
                yield _compare(name, function, provider, device, dtype, width)
            yield _compare_clipping(provider, device, dtype, width)


def available() -> Iterator[tuple[dispatch.Provider, str, tuple[str, ...]]]:
    """What `agreements` can be asked for in this process: the processor's forms, and Triton on
    a GPU.
    """
    yield "reference", "cpu", ("float32",)
    yield "cpu", "cpu", ("float64", "float32")
    if torch.cuda.is_available() and find_spec("triton") is not None:
        yield "triton", "cuda", ("float32", "bfloat16", "float16")


def interpreted() -> Iterator[Agreement]:
    """Triton's kernels on the processor, guarded and in both orders, from a process that imports
    triton as an interpreter.

    Raises:
        RuntimeError: that process failed before its end.
    """
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(  # noqa: S603 # our own interpreter and module
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            yield Agreement(**json.loads(line))
        complaint = process.stderr.read()
    if process.returncode:
        raise RuntimeError(
            f"the interpreter's process ended with {process.returncode}: {complaint.strip()[-500:]}"
        )


def _functions(width: int, dtype: str) -> dict[str, Function]:
    """By name. A temperature that needs a running maximum multiplies rounding by 83, more than half
    precision has to spare.
    """
    cold: dict[str, Function] = {
        "nt_xent, online": lambda a, b: functional.nt_xent_loss(a, b, 0.012)
    }
    subspace = Subspace(torch.arange(0, width, 4), 10.0, None, "normalized")
    return {
        "nt_xent": lambda a, b: functional.nt_xent_loss(a, b, 0.2),
        "nt_xent_dsr": lambda a, b: torch.stack(functional.nt_xent_dsr_loss(a, b, 0.2, subspace)),
        "align_uniformity": lambda a, b: torch.stack(functional.align_uniformity_loss(a, b, 2.0)),
        "info_nce": lambda a, b: functional.info_nce_loss(a[:50], b, 0.2),
        "group_nt_xent": lambda a, b: functional.group_nt_xent_loss(a, b, 10, 0.2),
        "spectral_moment": functional.spectral_moment,
        "distillation": lambda a, b: functional.distillation_loss(a, b, 0.5),
    } | ({} if dtype in ("bfloat16", "float16") else cold)


def _compare(
    name: str, function: Function, provider: dispatch.Provider, device: str, dtype: str, width: int
) -> Agreement:
    rows = [view.to(device, getattr(torch, dtype)) for view in _views(width)]
    with _asked_for("reference"):
        expected = _outcome(function, [view.cpu().double() for view in rows])
    return _judged(
        name, provider, device, dtype, width, expected, lambda: _outcome(function, rows), provider
    )


def _compare_clipping(
    provider: dispatch.Provider, device: str, dtype: str, width: int
) -> Agreement:
    """Squared norms, and clip and sum with noise: what differential privacy does to
    per-sample gradients.
    """
    samples, noise = (view.to(device, getattr(torch, dtype)) for view in _views(width))

    def clipped(module: ModuleType, g: Tensor, extra: Tensor) -> Outcome:
        squares = module.square_norms(g)
        return torch.cat([squares, module.clip_and_sum(g, squares, width**0.5, extra[0])]), ()

    expected = clipped(reference.gradients, samples.cpu().double(), noise.cpu().double())
    module = _gradients_of(provider)
    return _judged(
        "clip_and_sum",
        provider,
        device,
        dtype,
        width,
        expected,
        lambda: clipped(module, samples, noise),
        "reference",
    )


def _gradients_of(provider: dispatch.Provider) -> ModuleType:
    if provider == "triton":
        from secure_fl_kernels.gpu import gradients

        return gradients
    return on_processor if provider == "cpu" else reference.gradients


def _judged(
    name: str,
    provider: str,
    device: str,
    dtype: str,
    width: int,
    expected: Outcome,
    run: Callable[[], Outcome],
    asked: dispatch.Provider,
) -> Agreement:
    values, problem = (inf, inf), ""
    try:
        with _asked_for(asked):
            outcome, problem = (
                _watched(run) if provider == "triton" and device == "cpu" else (run(), "")
            )
        values = _error([outcome[0]], [expected[0]], 1.0), _error(outcome[1], expected[1], 1e-3)
    except Exception as error:  # a check reports whatever a kernel does, and goes on
        problem = f"{type(error).__name__}: {error}"
    return Agreement(
        name, f"{provider} on {device}", dtype, _ROWS, width, *values, TOLERANCES[dtype], problem
    )


def _watched(run: Callable[[], Outcome]) -> tuple[Outcome, str]:
    """The outcome under the guard, and whether the programs' order changes its bits."""
    from secure_fl_kernels.proof import interpreter

    interpreter.install()
    with interpreter.guarded():
        forwards = run()
        with interpreter.reversed_grid():
            backwards = run()
    same = all(
        torch.equal(a, b)
        for a, b in zip((forwards[0], *forwards[1]), (backwards[0], *backwards[1]), strict=True)
    )
    return forwards, "" if same else "other bits when programs run in reverse order"


def _outcome(function: Function, views: list[Tensor]) -> Outcome:
    views = [view.clone().requires_grad_() for view in views]
    result = function(*views)
    weights = torch.linspace(
        1, 2, result.numel(), device=result.device, dtype=result.dtype
    ).view_as(result)
    return result.detach(), torch.autograd.grad((result * weights).sum(), views)


def _error(got: Sequence[Tensor], expected: Sequence[Tensor], least: float) -> float:
    """Largest relative error by norm, of norms that are at least `least`: below it, it is an
    absolute one. NaN is infinitely wrong.
    """
    pairs = zip((x.detach().cpu().double() for x in got), expected, strict=True)
    errors = [
        float((mine - theirs).norm() / theirs.norm().clamp_min(least)) for mine, theirs in pairs
    ]
    return inf if any(isnan(error) for error in errors) else max(errors, default=0.0)


def _views(width: int) -> list[Tensor]:
    """Two views of the same rows, far enough apart for losses of order 1 at every
    temperature here.
    """
    generator = torch.Generator().manual_seed(width)
    first = torch.randn(_ROWS, width, generator=generator, dtype=torch.float64)
    return [first, first + 4 * torch.randn(_ROWS, width, generator=generator, dtype=torch.float64)]


@contextmanager
def _asked_for(provider: dispatch.Provider) -> Iterator[None]:
    before = os.environ.get(dispatch.VARIABLE)
    os.environ[dispatch.VARIABLE] = provider
    try:
        yield
    finally:
        if before is None:
            del os.environ[dispatch.VARIABLE]
        else:
            os.environ[dispatch.VARIABLE] = before


def main() -> None:
    """The interpreter's process: one agreement a line."""
    torch.set_num_threads(1)
    for agreement in agreements("triton", "cpu", _INTERPRETED_DTYPES):
        print(json.dumps(asdict(agreement)), flush=True)


if __name__ == "__main__":
    main()
