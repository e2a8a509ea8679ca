"""Other people's programs: lightly, pytorch-metric-learning, torch.compile. All optional; each says
why it is missing. New ones have a file in `rivals`.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from bench.kernels.case import Function

PACKAGES = ("lightly", "pytorch-metric-learning", "inf-cl", "liger-kernel", "triton")
INSTALL = "pip install 'secure-fl[bench]'"


def lightly_missing() -> str:
    """Why lightly's NT-Xent cannot run here, or the empty string."""
    return reason(_lightly_class)


def lightly_nt_xent(temperature: float) -> Function:
    """lightly's `NTXentLoss` of two views."""
    loss: Function = _lightly_class()(temperature=temperature)
    return loss


def metric_learning_missing() -> str:
    """Why pytorch-metric-learning cannot run here, or the empty string."""
    return reason(lambda: _metric_learning("SupConLoss"))


def metric_learning(name: str, temperature: float) -> Function:
    """pytorch-metric-learning's `SupConLoss` or `NTXentLoss` of two views, row i of one being row
    i's partner in the other.
    """
    loss = _metric_learning(name)(temperature=temperature)

    def function(z1: Tensor, z2: Tensor) -> Tensor:
        labels = torch.arange(len(z1), device=z1.device).repeat(2)
        value: Tensor = loss(torch.cat([z1, z2]), labels)
        return value

    return function


@cache
def compiler_missing() -> str:
    """Why torch.compile cannot make programs for the processor here, or the empty string."""
    named = os.environ.get("CXX", "g++")
    if shutil.which(named) is None:
        return f"torch.compile needs a C++ compiler, and there is no {named}"
    return ""


def compiled(function: Function) -> Function:
    """`function` by torch.compile, built for one size; earlier builds are dropped."""
    # no pool of compiling processes beside the measurement
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    torch._dynamo.reset()
    made: Function = torch.compile(function, dynamic=False)
    return made


def reason(load: Callable[[], object]) -> str:
    """Why what `load` imports is not there, or the empty string."""
    try:
        load()
    except Exception as error:
        return (
            f"{type(error).__name__}: {error}"
            if not isinstance(error, ModuleNotFoundError)
            else f"{error}; {INSTALL}"
        )
    return ""


@cache
def _metric_learning(name: str) -> Any:
    return getattr(importlib.import_module("pytorch_metric_learning.losses"), name)


@cache
def _lightly_class() -> Any:
    """The class, by the ordinary import where that works, else without lightly's package files.

    Those import torchvision, which no torch but its own pairs with. The loss itself needs nothing
    of it, so its module is loaded from lightly's own unchanged file; torchvision's one name that is
    imported on the way raises when it is used.
    """
    try:
        return importlib.import_module("lightly.loss.ntx_ent_loss").NTXentLoss
    except ModuleNotFoundError as error:
        if error.name == "lightly":
            raise
    except (ImportError, RuntimeError):
        # torchvision of another torch: an operator it registers does not exist
        pass
    with _without_package_files("lightly"):
        return importlib.import_module("lightly.loss.ntx_ent_loss").NTXentLoss


@contextmanager
def _without_package_files(name: str) -> Iterator[None]:
    """Inside, `import name.a.b` runs b's file only, and torchvision is a stand-in; afterwards
    neither has been imported.
    """

    def involved(module: str) -> bool:
        return module.split(".")[0] in (name, "torchvision")

    before = {module: sys.modules.pop(module) for module in list(sys.modules) if involved(module)}
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    root = Path(next(iter(spec.submodule_search_locations)))
    for folder in (
        root,
        root / "loss",
        root / "models",
        root / "models" / "modules",
        root / "utils",
    ):
        package = ".".join((name, *folder.relative_to(root).parts))
        _put(package, [str(folder)])
    _put("torchvision", [])
    _put("torchvision.ops", []).StochasticDepth = _Absent  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in [module for module in sys.modules if involved(module)]:
            del sys.modules[module]
        sys.modules.update(before)


def _put(name: str, path: list[str]) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = path
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return module


class _Absent:
    """In the place of a torchvision class that the loss never uses."""

    def __init__(self, *_: object, **__: object) -> None:
        raise ImportError("torchvision is not imported in this benchmark")
