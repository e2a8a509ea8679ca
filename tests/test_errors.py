"""Every typed error says the same after it has crossed from a worker process."""

from __future__ import annotations

import copy
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from secure_fl import errors
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import DataError, SecureFLError
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError

PLAIN = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SecureFLError)
]
CASES: list[SecureFLError] = [
    kind("is wrong", field="some.field", value=[1, 2], remedy="mend it") for kind in PLAIN
]
CASES += [
    RefusedError(Reason.STALE, "is late", field="round", value=3, remedy="wait"),
    RoundRefusedError(
        RoundReason.NOT_PROVED,
        "is open",
        field="evidence",
        value="client-0001",
        remedy="leave it out",
        blamed=["client-0001"],
    ),
]


def fail(number: int) -> None:
    raise CASES[number]


@pytest.mark.parametrize("error", CASES, ids=lambda error: type(error).__name__)
def test_a_copy_says_the_same(error: SecureFLError) -> None:
    got = copy.copy(error)
    assert type(got) is type(error)
    assert str(got) == str(error)
    assert vars(got) == vars(error)


def test_errors_cross_from_worker_processes() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        for number, error in enumerate(CASES):
            with pytest.raises(type(error)) as caught:
                pool.submit(fail, number).result()
            assert str(caught.value) == str(error)


def test_no_array_crosses_with_them() -> None:
    error = DataError("is wrong", field="x", value={"rows": torch.arange(4.0)}, remedy="mend it")
    assert "3." not in repr(copy.copy(error).value)
    assert copy.copy(error).args == error.args
