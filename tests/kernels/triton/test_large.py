"""More rows than a grid's narrow axes have blocks, and buffers of more elements than 2³¹.

The buffers are address space that nobody fills: of each kernel the last program runs, and of a loop
over columns the first and last turns. An index that was kept in 32 bits wraps to a lane outside
its tensor, which the guard refuses, as it would any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter as machine
from triton.runtime.errors import InterpreterError

from secure_fl_kernels.gpu import contrast, distil, groups, moment, ntxent, rows, uniform
from secure_fl_kernels.gpu.launch import Tile
from secure_fl_kernels.proof.guard import OutOfBounds, guarded

pytestmark = pytest.mark.triton

WIDTH = 128
MANY = 2**24 + 128
"""Rows; times the width it is more than 2³¹ elements."""
FEW = 128
TILE = Tile(128, 64, 128, 8, 1)
NARROW = 65_535
"""Blocks of a grid's second and third axes at most."""

Launch = Callable[..., object]


class LastProgram:
    """In a kernel's place: launches its last program alone, and remembers the grid."""

    def __init__(self, kernel: Any, grids: list[tuple[int, ...]]) -> None:
        self._kernel, self._grids = kernel, grids

    def __getitem__(self, grid: tuple[int, ...]) -> Launch:
        whole = (*grid, 1, 1)[:3]
        self._grids.append(whole)

        def launch(*args: object, **options: object) -> None:
            builder = machine.InterpreterBuilder
            place = builder.set_grid_idx

            def last(own: Any, *_: int) -> None:
                place(own, 0, 0, 0)
                own.grid_idx = tuple(size - 1 for size in whole)

            builder.set_grid_idx = last
            try:
                self._kernel[(1, 1, 1)](*args, **options)
            finally:
                builder.set_grid_idx = place

        return launch


@pytest.fixture(autouse=True)
def grids(device: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Kernels run their last program, and loops their ends; gives the grids asked for."""
    if device != "cpu":
        pytest.skip("the interpreter is asked")
    found: list[tuple[int, ...]] = []
    kernels: dict[ModuleType, tuple[str, ...]] = {
        contrast: ("row_sums_kernel", "gradient_kernel"),
        uniform: ("pull_kernel",),
        rows: ("project_kernel", "tangent_kernel"),
        groups: ("group_kernel",),
        distil: ("distil_kernel",),
        moment: ("moment_kernel",),
    }
    for module, names in kernels.items():
        monkeypatch.setattr(module, "range", ends, raising=False)
        for name in names:
            monkeypatch.setattr(module, name, LastProgram(getattr(module, name), found))
    return found


def ends(*bounds: Any) -> Iterator[int]:
    """The first and last turns of a loop."""
    whole = range(
        *(int(each.handle.data.item()) if hasattr(each, "handle") else each for each in bounds)
    )
    yield from dict.fromkeys([*whole[:2], *whole[-2:]])


@triton.jit
def narrow_kernel(Z, OUT, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    """Sums of rows, by an index of 32 bits."""
    first = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    z = tl.load(Z + first[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :])
    tl.store(OUT + first, tl.sum(z.to(tl.float32), 1))


def space(count: int, dtype: torch.dtype = torch.float16, width: int = WIDTH) -> Tensor:
    """A buffer whose pages are not there until they are written: its last rows are zeros."""
    made = torch.empty(count, width, dtype=dtype)
    made[-256:] = 0
    made[:256] = 0
    return made


def vector(count: int) -> Tensor:
    made = torch.empty(count)
    made[-512:] = 0
    made[:512] = 0
    return made


def sums(left: int, right: int) -> None:
    ntxent.row_sums(space(left), space(right), 1, left, right, 0.2, TILE)


def gradient(left: int, right: int) -> None:
    out = torch.empty(left, WIDTH, dtype=torch.float16)
    a, b, pull = vector(left), vector(right), vector(min(left, right))
    ntxent.gradient(
        space(left), space(right), a, b, pull, a, a[:1], a, 1, 0.2, False, out, tile=TILE
    )


def moment_of(z: Tensor) -> None:
    """The kernel alone: its launcher projects all rows and sums all slices."""
    slices = -(-len(z) // 1024)
    part = torch.empty(slices, WIDTH, WIDTH)
    moment.moment_kernel[(slices, 2, 2)](
        z, part, len(z), WIDTH=WIDTH, SLICE=1024, EDGE=64, DEPTH=32, PRECISION="ieee"
    )


CASES: dict[str, Callable[[], object]] = {
    "sums, many of both": lambda: sums(MANY, MANY),
    "sums, many columns": lambda: sums(FEW, MANY),
    "gradient, many rows": lambda: gradient(MANY, FEW),
    "gradient, many columns": lambda: gradient(FEW, MANY),
    "uniformity": lambda: uniform.pulls(space(MANY), vector(MANY), 1, tile=TILE),
    "project": lambda: rows.project(space(MANY), None),
    "tangent": lambda: rows.tangent(
        space(MANY, torch.float32), torch.ones(1), None, None, space(MANY), vector(MANY),
        torch.empty(0, 0), torch.empty(0, 0),
    ),
    "groups": lambda: groups.forward(space(MANY), space(MANY), 8, 0.2),
    "distillation": lambda: distil.forward(space(MANY), space(MANY), 0.5),
    "moment": lambda: moment_of(space(MANY)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_lanes_stay_in_their_tensors_beyond_two_to_the_31(
    name: str, grids: list[tuple[int, ...]]
) -> None:
    with guarded(races=False):
        CASES[name]()
    assert grids
    for _, second, third in grids:
        assert max(second, third) <= NARROW


def test_an_index_of_32_bits_is_found(grids: list[tuple[int, ...]]) -> None:
    z, out = space(MANY), vector(MANY)
    launch = LastProgram(narrow_kernel, grids)[(MANY // 128,)]
    with (
        guarded(races=False),
        pytest.raises((OutOfBounds, InterpreterError), match=r"out of bounds|overflow"),
    ):
        launch(z, out, WIDTH=WIDTH, ROWS=128)
    half = space(MANY // 2), vector(MANY // 2)
    with guarded(races=False):
        LastProgram(narrow_kernel, grids)[(MANY // 256,)](*half, WIDTH=WIDTH, ROWS=128)
