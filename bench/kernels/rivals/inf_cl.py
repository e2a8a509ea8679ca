"""Inf-CL (arXiv 2410.17243, PyPI `inf-cl`): InfoNCE in Triton kernels of its own, on a GPU."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from bench.kernels.case import Case, Function, Provider
from bench.kernels.infonce import TEMPERATURE
from bench.kernels.peers import reason

_WIDTH = 256
"""It walks the dimensions in pieces of so many."""


def missing(_: Case) -> str:
    """Why it cannot run here, or the empty string."""
    return reason(_program) if torch.cuda.is_available() else "its kernels need a GPU"


def make(_: Case) -> Function:
    """Its loss of queries and keys on one GPU; it takes unit rows, so torch normalises them."""
    program = _program()

    def function(q: Tensor, k: Tensor) -> Tensor:
        unit_q, unit_k = torch.nn.functional.normalize(q), torch.nn.functional.normalize(k)
        value: Tensor = program(
            unit_q, unit_k, scale=1 / TEMPERATURE, head_dim=min(q.shape[1], _WIDTH)
        )
        return value.mean()

    return function


def memory(case: Case) -> float:
    """Predicted extra bytes."""
    return 40.0 * case.rows * case.dimension


def _program() -> Any:
    return importlib.import_module("inf_cl.flash").cal_flash_loss


PROVIDERS = {"infonce": (Provider("Inf-CL", make, memory, missing),)}
