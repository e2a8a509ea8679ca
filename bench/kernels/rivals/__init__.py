"""Programs to be measured beside ours, one file each: whatever lies in this folder is found.

A file holds `PROVIDERS`, by name of the kernel that they compute (`bench.kernels.registry.NAMES`);
`inf_cl` is one to copy. Nothing else names it: the program is timed, weighed, compared with the
float64 reference and drawn as all others are, and left out with its reason where `missing` gives
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from bench.kernels.case import Provider


def of(kernel: str) -> Iterator[Provider]:
    """The programs of this folder's files that compute the kernel, in the files' order.

    Raises:
        AttributeError: a file has no `PROVIDERS`.
    """
    for name in sorted(module.name for module in iter_modules(__path__)):
        yield from import_module(f"{__name__}.{name}").PROVIDERS.get(kernel, ())
