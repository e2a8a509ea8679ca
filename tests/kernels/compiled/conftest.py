"""Kernels under test are compiled for GPUs that are not there:
`pytest -m compiled -n auto --dist load tests/kernels/compiled`.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest

if find_spec("triton") is None:
    collect_ignore = ["test_binary.py", "test_check.py", "test_shipped.py"]


@pytest.fixture(autouse=True)
def _compiling(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("compiled") is None:
        return
    import triton

    if triton.knobs.runtime.interpret:
        pytest.fail(
            "TRITON_INTERPRET is set, and interpreted kernels cannot be compiled: run these tests "
            "in a process without it"
        )
