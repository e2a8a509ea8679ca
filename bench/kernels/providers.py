"""The providers that most kernels have: ours, plain torch and torch.compile of it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch

from bench.kernels.case import MIB, NAIVE, REDUCED, TILES, TRITON, Case, Function, Provider
from bench.kernels.peers import compiled, compiler_missing
from secure_fl_kernels.processor import has_amx

COMPILED = "torch.compile of naive"
_BUFFERS = 4 * MIB
_COPIES = 4


def tile_bytes(case: Case) -> float:
    """Extra memory of the tiles: a few copies of the rows a thread, and a tile or two."""
    return (case.threads + _COPIES) * (4 * case.rows * case.dimension + _BUFFERS)


def ours(
    function: Function,
    setting: str = "",
    bytes_of: Callable[[Case], float] = tile_bytes,
    name: str = TILES,
) -> tuple[Provider, ...]:
    """One function by our kernels: exact and, of matrix products, reduced precision on the
    processor; Triton on a GPU.
    """
    found = [
        Provider(name, lambda _: function, bytes_of, _no_processor, request="cpu", setting=setting),
        Provider(
            TRITON, lambda _: function, bytes_of, _no_triton, request="triton", setting=setting
        ),
    ]
    if name == TILES:
        found.insert(
            1,
            Provider(
                REDUCED,
                lambda _: function,
                bytes_of,
                _no_amx,
                request="cpu",
                precision="medium",
                setting=setting,
            ),
        )
    return tuple(found)


def naive(function: Function, bytes_of: Callable[[Case], float], setting: str = "") -> Provider:
    """Plain torch."""
    return Provider(NAIVE, lambda _: function, bytes_of, setting=setting)


def compiled_naive(
    function: Function, bytes_of: Callable[[Case], float], setting: str = ""
) -> Provider:
    """Plain torch by torch.compile, for one size at a time."""
    return Provider(
        COMPILED,
        lambda _: compiled(function),
        bytes_of,
        _no_compiler,
        setting=setting,
        compiles=True,
    )


def square_bytes(per_element: float) -> Callable[[Case], float]:
    """Extra memory of a program that takes so many bytes an element of the matrix of
    similarities.
    """
    return lambda case: per_element * case.rows**2


def _no_processor(case: Case) -> str:
    return "" if case.device == "cpu" else f"the tensors are on {case.device}"


def _no_amx(case: Case) -> str:
    if case.dtype != "float32":
        return f"reduced precision is of float32 products, and the inputs are {case.dtype}"
    return _no_processor(case) or ("" if has_amx() else "the processor has no amx_bf16")


def _no_triton(case: Case) -> str:
    if case.device == "cpu":
        return "Triton needs a GPU, and the tensors are on the processor"
    if find_spec("triton") is None or not torch.cuda.is_available():
        return "triton or a GPU is missing"
    return "float64 is not Triton's" if case.dtype == "float64" else ""


def _no_compiler(case: Case) -> str:
    return compiler_missing() if case.device == "cpu" else ""
