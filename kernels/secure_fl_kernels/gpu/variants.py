"""What a shipped kernel is made of, so that every one of them can be compiled and inspected without
a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Architecture = Literal["sm80", "sm90", "sm100", "gfx942"]
ARCHITECTURES: tuple[Architecture, ...] = ("sm80", "sm90", "sm100", "gfx942")
"""The families that have tiles of their own; every other GPU runs the tiles of the family
below it.
"""


@dataclass(frozen=True)
class Loop:
    """What one turn of the hot loop does, for the static model of its cost.

    Attributes:
        elements: similarities per turn and program.
        products: matrix products per similarity, each over `width` dimensions.
    """

    elements: int
    products: int
    width: int


@dataclass(frozen=True)
class Variant:
    """One kernel with everything that decides its binary.

    Attributes:
        name: `kernel/dtype/D`, as in `ntxent_backward/bf16/128`.
        kernel: the `triton.jit` function.
        types: every argument that is not a constexpr, `*bf16`, `*fp32`, `*i64`, `i32`, `fp32`, in
            any order.
        constants: every constexpr.
        loop: of kernels whose time is in one loop of matrix products.
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    warps: int
    stages: int
    loop: Loop | None = None


def variant(
    name: str,
    kernel: Any,
    types: Mapping[str, str],
    constants: Mapping[str, Any],
    tile: Any,
    loop: Loop | None = None,
) -> Variant:
    """A variant from types that may name more arguments than this kernel has, and a
    `launch.Tile`.
    """
    types = {
        argument: types[argument] for argument in kernel.arg_names if argument not in constants
    }
    return Variant(name, kernel, types, constants, tile.warps, tile.stages, loop)
