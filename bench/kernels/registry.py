"""The kernels that are measured, by name; each is imported when it is asked for."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

from bench.kernels import rivals
from bench.kernels.case import Kernel

_WHERE = {
    "ntxent": ("ntxent", "KERNEL"),
    "uniformity": ("uniformity", "KERNEL"),
    "ssd": ("ssd", "ALIGN_UNIFORMITY"),
    "ssd-ntxent": ("ssd", "NT_XENT"),
    "infonce": ("infonce", "KERNEL"),
    "group": ("group", "KERNEL"),
    "distillation": ("joint", "DISTILLATION"),
    "moment": ("joint", "MOMENT"),
    "clip": ("clip", "KERNEL"),
    "ghost": ("ghost", "KERNEL"),
    "step": ("step", "KERNEL"),
}
NAMES = tuple(_WHERE)


def kernel(name: str) -> Kernel:
    """The kernel of that name, with the programs of `rivals` behind its own.

    Raises:
        KeyError: there is none.
    """
    module, attribute = _WHERE[name]
    found: Kernel = getattr(import_module(f"bench.kernels.{module}"), attribute)
    return replace(found, providers=(*found.providers, *rivals.of(name)))
