"""Parameter sets are what they say, in SEAL's words and the standard's; optional backends say why
they are missing.
"""

from __future__ import annotations

import builtins
import sys
from dataclasses import replace
from typing import Any

import pytest
import tenseal.sealapi as api
from he.standard import CLASSICAL, QUANTUM, level, security_level

from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.errors import DependencyError
from secure_fl.he.parameters import (
    BATCHING_PRIME,
    BFV_4096,
    BFV_4096_58,
    PARAMETER_SETS,
)
from secure_fl.he.seal_bridge import SealBridge
from secure_fl.secure_sum.protections import parameters_of


def test_the_table_is_the_standards() -> None:
    """SEAL carries the classical table; quantum bounds are lower everywhere."""
    for degree, bounds in CLASSICAL.items():
        kinds = (api.SEC_LEVEL_TYPE.TC256, api.SEC_LEVEL_TYPE.TC192, api.SEC_LEVEL_TYPE.TC128)
        assert bounds == tuple(api.CoeffModulus.MaxBitCount(degree, kind) for kind in kinds)
        assert all(q < c for q, c in zip(QUANTUM[degree], bounds, strict=True))


def test_primes_are_those_that_seal_would_choose() -> None:
    for chosen in PARAMETER_SETS:
        bits = [prime.bit_length() for prime in chosen.primes]
        assert chosen.primes == tuple(
            prime.value() for prime in api.CoeffModulus.Create(chosen.degree, bits)
        )
        assert all(prime % (2 * chosen.degree) == 1 for prime in chosen.primes)
    assert api.PlainModulus.Batching(4096, 40).value() == BATCHING_PRIME
    assert BATCHING_PRIME % 8192 == 1
    assert BATCHING_PRIME.bit_length() == 40


def test_the_field_fits() -> None:
    edge = 2**19 - 1
    assert edge * (1 + 2**20) <= (BATCHING_PRIME - 1) // 2


def test_security_levels() -> None:
    assert security_level(BFV_4096, "clients") == (256, 256)
    assert security_level(BFV_4096, "authority") == (128, 0)
    assert security_level(BFV_4096_58, "authority") == (256, 192)
    assert level(2048, 60)[0] == 0


def test_identifiers_name_every_number() -> None:
    variants = [
        replace(BFV_4096, degree=8192),
        replace(BFV_4096, primes=BFV_4096.primes[:1]),
        replace(BFV_4096, plain_modulus=65537),
    ]
    assert (
        len({chosen.digest for chosen in [*PARAMETER_SETS, *variants]}) == len(PARAMETER_SETS) + 3
    )
    for chosen in PARAMETER_SETS:
        assert len(chosen.identifier) < 64


def test_unsafe_sets_are_refused_by_seal() -> None:
    with pytest.raises(RefusedError) as caught:
        SealBridge(replace(BFV_4096, degree=1024))
    assert caught.value.reason is Reason.WRONG_PARAMETERS


def test_lazy_additions() -> None:
    assert [chosen.lazy_additions for chosen in PARAMETER_SETS] == [1024, 64]


def test_a_missing_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("tenseal"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setitem(sys.modules, "tenseal.sealapi", None)
    with pytest.raises(DependencyError, match="pip install tenseal"):
        SealBridge(BFV_4096)


def test_importing_the_backends_imports_no_tenseal() -> None:
    import subprocess

    code = (
        "import sys, secure_fl.he.bfv, secure_fl.he.ceremony; assert 'tenseal' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_defaults_keep_128_bits_against_quantum_attacks() -> None:
    assert parameters_of("bfv+masked") == BFV_4096
    assert parameters_of("bfv+masked", "authority") == BFV_4096_58
    for holder in ("clients", "authority"):
        chosen = parameters_of("bfv+masked", holder)
        assert chosen is not None
        assert security_level(chosen, holder)[1] >= 192  # type: ignore[arg-type]
    assert security_level(BFV_4096, "authority")[1] < 128
