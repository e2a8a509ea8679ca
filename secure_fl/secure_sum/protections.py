"""What may protect a sum, by name, and the layout and parameters that follow."""

from __future__ import annotations

from typing import Literal, get_args

from secure_fl.errors import SecureSumError
from secure_fl.he.parameters import BFV_4096, BFV_4096_58, KeyHolder, ParameterSet
from secure_fl.secure_sum.layout import FieldLayout

Protection = Literal["plain", "masked", "bfv+masked"]
PROTECTIONS: tuple[str, ...] = get_args(Protection)
KEY_HOLDERS: tuple[str, ...] = get_args(KeyHolder)

_LAYOUTS: dict[str, FieldLayout] = {"masked": FieldLayout.words()}


def layout_of(protection: str, *, whole: bool = False) -> FieldLayout:
    """Where fields lie in a slot; with `whole`, one field that fills it. Raises SecureSumError: no
    such protection.
    """
    if protection not in PROTECTIONS:
        raise SecureSumError("unknown", "security.protection", protection, f"one of {PROTECTIONS}")
    layout = _LAYOUTS.get(protection, FieldLayout())
    return FieldLayout.whole(layout.modulus) if whole else layout


def parameters_of(protection: str, key_holder: str = "clients") -> ParameterSet | None:
    """The default parameter set of a protection, None where nothing is encrypted.

    Public-key encryption publishes a key modulo all primes: one prime of 58 bits keeps 192 bits
    against quantum attacks and encrypts a third faster than 54 + 55 bits, which stay below 128.
    Seeded uploads publish the first prime only, where 54 bits are shorter.
    """
    if protection != "bfv+masked":
        return None
    return BFV_4096_58 if key_holder == "authority" else BFV_4096
