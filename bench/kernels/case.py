"""What is measured: a kernel, the providers that compute it, and a case, which is one size
of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from secure_fl_kernels import dispatch

Inputs = tuple[Tensor, ...]
Function = Callable[..., Tensor]
"""The kernel's inputs -> a scalar or a vector of losses, or what a kernel without a backward
pass returns.
"""

NAIVE = "naive torch"
TILES = "tiles"
REDUCED = "tiles, reduced precision"
TRITON = "triton"
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """One size. `rows` and `dimension` are the kernel's own two: rows of the similarity matrix and
    width, or as it says.
    """

    rows: int
    dimension: int
    threads: int = 1
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    device: str = "cpu"

    def random(self, *shape: int, seed: int = 0) -> Tensor:
        """Normal numbers in the case's dtype and on its device, the same for one seed."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, generator=generator).to(self.device, getattr(torch, self.dtype))

    def views(self, rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Two correlated views `[rows, D]`, as a trained projector gives them."""
        first = self.random(rows, self.dimension, seed=seed)
        return first, first + 0.5 * self.random(rows, self.dimension, seed=seed + 1)


def nothing(_: Case) -> str:
    """Nothing is missing."""
    return ""


def no_floor(*_: object) -> None:
    """No floor is known."""


def quadratic(case: Case) -> float:
    """Flops of one matrix of similarities."""
    return 2.0 * case.rows**2 * case.dimension


def no_bytes(_: Case) -> float:
    """Memory is no question."""
    return 0.0


@dataclass(frozen=True)
class Provider:
    """One program that computes the kernel.

    Attributes:
        make: builds the program for a case; it may import and compile.
        bytes: predicted extra memory, so that a case that cannot fit is left out before it
            is tried.
        missing: why it cannot run here, or the empty string.
        order: its time grows as `rows ** order`.
        request: value of `SECURE_FL_KERNELS` while it runs; None leaves it alone.
        precision: of float32 matrix products while it runs.
        setting: what else is fixed; programs of one setting compute the same numbers.
        compiles: whether it is built anew for every size.
    """

    name: str
    make: Callable[[Case], Function]
    bytes: Callable[[Case], float]
    missing: Callable[[Case], str] = nothing
    order: int = 2
    request: dispatch.Request | None = None
    precision: Literal["highest", "medium"] = "highest"
    setting: str = ""
    compiles: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Names it within its kernel."""
        return self.name, self.setting

    @property
    def ours(self) -> bool:
        """Whether it is this project's: then nothing it raises is forgiven."""
        return self.request is not None

    @contextmanager
    def active(self, threads: int) -> Iterator[None]:
        """Its request, precision and threads, put back afterwards."""
        before = (
            os.environ.get(dispatch.VARIABLE),
            torch.get_float32_matmul_precision(),
            torch.get_num_threads(),
        )
        if self.request is not None:
            os.environ[dispatch.VARIABLE] = self.request
        torch.set_float32_matmul_precision(self.precision)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            os.environ.pop(dispatch.VARIABLE, None)
            if before[0] is not None:
                os.environ[dispatch.VARIABLE] = before[0]
            torch.set_float32_matmul_precision(before[1])
            torch.set_num_threads(before[2])


@dataclass(frozen=True)
class Floor:
    """What the best method cannot do without.

    Attributes:
        flops: of matrix products.
        exps: exponentials.
        reads: times that the first input is read from memory.
    """

    flops: float = 0.0
    exps: float = 0.0
    reads: float = 0.0


@dataclass(frozen=True)
class Kernel:
    """What every provider computes.

    Attributes:
        title: says what rows and dimension are.
        exact: setting -> plain torch, called with float64 inputs; None where errors are not meant.
        exact_bytes: extra memory of `exact` in float64.
        tiles64: setting -> a program that is exact in float64 without the memory, for sizes `exact`
            cannot have.
        floor: for the share of it that a provider reaches.
        work: about how many flops a call does, to begin with the cheapest.
        backward: whether the gradient by the inputs is computed and timed too.
        baseline: the provider that `times_naive` compares with, within a setting.
        rows, dimensions: sizes measured unless others are asked for; `full_rows` and
            `full_dimensions` for all.
    """

    name: str
    title: str
    inputs: Callable[[Case], Inputs]
    providers: tuple[Provider, ...]
    exact: Callable[[str], Function] | None = None
    exact_bytes: Callable[[Case], float] = no_bytes
    tiles64: Callable[[str], Function] | None = None
    floor: Callable[[Case, str], Floor | None] = no_floor
    work: Callable[[Case], float] = quadratic
    backward: bool = True
    baseline: str = NAIVE
    rows: tuple[int, ...] = (256, 1024, 4096, 8192)
    full_rows: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
    dimensions: tuple[int, ...] = (128,)
    full_dimensions: tuple[int, ...] = (64, 128, 256, 512, 1024)

    @property
    def mode(self) -> str:
        """What is timed, for the table."""
        return "forward+backward" if self.backward else "forward"

    def provider(self, name: str, setting: str = "") -> Provider:
        """The provider of that name and setting; of several settings, without one named,
        the first.
        """
        found = [
            p for p in self.providers if p.name == name and (not setting or p.setting == setting)
        ]
        if not found:
            raise KeyError(f"{self.name} has no provider {name!r} with setting {setting!r}")
        return found[0]
