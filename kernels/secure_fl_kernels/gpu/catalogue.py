"""Every kernel that is shipped, for one family of GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from secure_fl_kernels.gpu import distil, gradients, groups, moment, ntxent, rows, uniform
from secure_fl_kernels.gpu.variants import Architecture, Variant

_FILES = (rows, ntxent, uniform, moment, distil, groups, gradients)


def shipped(family: Architecture) -> list[Variant]:
    """All variants; their names differ."""
    return list(_all(family))


def _all(family: Architecture) -> Iterator[Variant]:
    for file in _FILES:
        yield from file.variants(family)
