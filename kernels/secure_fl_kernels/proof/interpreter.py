"""Triton's interpreter made fit for proofs: bfloat16 that rounds as a GPU does, autotuning without
one, programs in any order.

The interpreter of triton 3.7 to 3.9 multiplies bfloat16 by its bit patterns (a product of two ones
comes out near 1e10) and casts to bfloat16 by cutting bits off, where a GPU rounds to the nearest
even. `install` mends both; without it every bfloat16 result is garbage. Bfloat16 sums and
comparisons stay broken there: kernels do all but matrix products in float32.

`guarded`, which finds accesses out of bounds and races, is in `guard`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import numpy as np
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.runtime import interpreter as machine

from secure_fl_kernels.proof.guard import OutOfBounds, Race, Traffic, Violation, guarded, hook

__all__ = [
    "OutOfBounds",
    "Race",
    "Traffic",
    "Violation",
    "guarded",
    "install",
    "interpreted",
    "reversed_grid",
    "shuffled_grid",
]

Order = Callable[[int], Sequence[int]]
"""From the number of programs to the order they run in."""

_INSTALLED = "_secure_fl_installed"


def interpreted() -> bool:
    """Whether kernels decorated from now on are interpreted, as `TRITON_INTERPRET=1` asks before
    triton is imported.
    """
    return bool(triton.knobs.runtime.interpret)


def install() -> None:
    """Mend bfloat16 and let `triton.autotune` and `warmup` work with no GPU; calling it twice is
    calling it once.
    """
    builder = machine.InterpreterBuilder
    if not hasattr(builder, _INSTALLED):
        builder.create_dot = _wide_dot(builder.create_dot)
        builder.cast_impl = _rounding_cast(builder.cast_impl)
        _patch_once_a_launch()
        setattr(builder, _INSTALLED, True)
    try:
        triton.runtime.driver.active  # noqa: B018  # a property that raises where there is no GPU
    except RuntimeError:
        triton.runtime.driver.set_active(_NoDriver())


@contextmanager
def reversed_grid() -> Iterator[None]:
    """Programs run from the last to the first: a kernel without races gives the same bits."""
    with _ordered(lambda count: range(count - 1, -1, -1)):
        yield


@contextmanager
def shuffled_grid(seed: int) -> Iterator[None]:
    """Programs run in a random order that `seed` fixes."""

    def order(count: int) -> Sequence[int]:
        return Random(seed).sample(range(count), count)  # noqa: S311  # an order, not a secret

    with _ordered(order):
        yield


@contextmanager
def _ordered(order: Order) -> Iterator[None]:
    hook()  # before ours, so that the guard sees the programs that run and stays when we leave
    builder = machine.InterpreterBuilder
    place = builder.set_grid_idx
    known: dict[int, Sequence[int]] = {}

    def elsewhere(self: Any, x: int, y: int, z: int) -> None:
        _, height, depth = self.grid_dim
        count = self.grid_dim[0] * height * depth
        taken = known.setdefault(count, order(count))[(x * height + y) * depth + z]
        place(self, taken // (height * depth), taken // depth % height, taken % depth)

    builder.set_grid_idx = elsewhere
    try:
        yield
    finally:
        builder.set_grid_idx = place


def _wide_dot(original: Callable[..., Any]) -> Callable[..., Any]:
    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return original(self, _widened(a), _widened(b), *rest)

    return create_dot


def _rounding_cast(original: Callable[..., Any]) -> Callable[..., Any]:
    def cast_impl(self: Any, source: Any, to: Any) -> Any:
        if source.dtype.scalar == tl.bfloat16 and to.scalar != tl.bfloat16:
            source = _widened(source)
        if to.scalar != tl.bfloat16 or source.dtype.scalar == tl.bfloat16:
            return original(self, source, to)
        single = source if source.dtype.scalar == tl.float32 else original(self, source, tl.float32)
        return machine.TensorHandle(_to_bfloat16(single.data), tl.bfloat16)

    return cast_impl


def _patch_once_a_launch() -> None:
    """Spare the interpreter half of its time: it patches triton's language anew for every call of
    every device function.
    """
    patch, launch = machine._patch_lang, machine.GridExecutor.__call__
    patched: set[int] = set()

    def patch_lang(function: Any) -> Any:
        names = id(function.__globals__)
        if names in patched:
            return machine._LangPatchScope()
        patched.add(names)
        return patch(function)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        patched.clear()
        return launch(self, *args, **kwargs)

    machine._patch_lang = patch_lang
    machine.GridExecutor.__call__ = call


def _widened(handle: Any) -> Any:
    """bfloat16 bits as the float32 numbers they stand for; anything else as it is."""
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    return machine.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


def _to_bfloat16(
    single: np.ndarray[Any, np.dtype[np.float32]],
) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Bits of the nearest bfloat16, ties to even: add just under half of the last kept bit, plus
    that bit, and cut.
    """
    bits = np.ascontiguousarray(single, dtype=np.float32).view(np.uint32).reshape(single.shape)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(single), np.uint16(0x7FC0), rounded)


class _NoDriver:
    """What autotuning and warm-up ask of a driver. Every configuration ties, so the first is taken
    and none is run to be timed.
    """

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_benchmarker(self) -> Callable[..., list[float]]:
        return lambda _call, quantiles=(0.5,), **_: [1.0] * len(quantiles)
