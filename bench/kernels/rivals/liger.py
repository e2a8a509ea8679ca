"""Liger-Kernel (PyPI `liger-kernel`): Triton kernels for language models, on a GPU. Its
cross-entropy of a matrix of similarities is an InfoNCE. Its KL divergence is left out: it has no
gradient by the target, and distillation has both.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.kernels.case import Case, Function, Provider
from bench.kernels.infonce import TEMPERATURE
from bench.kernels.peers import reason


def missing(_: Case) -> str:
    """Why it cannot run here, or the empty string."""
    if not torch.cuda.is_available():
        return "its kernels need a GPU"
    return reason(_program)


def make(_: Case) -> Function:
    """Its cross-entropy over torch's product of unit queries and keys."""
    loss = _program()()

    def function(q: Tensor, k: Tensor) -> Tensor:
        similarities = normalize(q) @ normalize(k).T / TEMPERATURE
        value: Tensor = loss(similarities, torch.arange(len(q), device=q.device))
        return value

    return function


def _program() -> Any:
    return importlib.import_module("liger_kernel.transformers.cross_entropy").LigerCrossEntropyLoss


PROVIDERS = {
    "infonce": (Provider("Liger cross-entropy", make, lambda case: 12.0 * case.rows**2, missing),)
}
