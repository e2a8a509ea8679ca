"""Kernels under test run interpreted on the processor (`TRITON_INTERPRET=1 pytest -m triton`) or on
a GPU (`pytest -m gpu`).
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from secure_fl_kernels.proof.guard import Traffic

if find_spec("triton") is None:
    collect_ignore_glob = ["test_*.py"]

PROVIDER = "SECURE_FL_KERNELS"


@pytest.fixture
def device() -> str:
    """`cpu` where kernels are interpreted, `cuda` on a GPU."""
    from secure_fl_kernels.proof import interpreter

    if interpreter.interpreted():
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    pytest.fail(
        "nothing to run Triton kernels on: set TRITON_INTERPRET=1 to interpret them, or run on a "
        "machine with a GPU"
    )


@pytest.fixture(autouse=True)
def guard(device: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traffic]:
    """Every test runs guarded where kernels are interpreted; what it yields counts the bytes moved
    (none on a GPU).
    """
    from secure_fl_kernels.proof import interpreter

    monkeypatch.setenv(PROVIDER, "triton")
    if device == "cuda":
        yield interpreter.Traffic()
        return
    interpreter.install()
    with interpreter.guarded() as traffic:
        yield traffic
