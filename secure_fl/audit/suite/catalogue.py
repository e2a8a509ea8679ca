"""All checks and all planted faults there are, each imported when it is used.

A line is `module:NAME` within `secure_fl.audit`; an address names its package too.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from secure_fl.audit.check import Check, Fault

CHECKS: tuple[str, ...] = (
    "checks.record:RECORD",
    "checks.account:ACCOUNT",
    "checks.charges:CHARGES",
    "checks.cohort:COHORT",
    "checks.liar:LIAR",
    "checks.masks:MASKS",
    "checks.sources:SOURCES",
    "checks.choice_hidden:CHOICE_HIDDEN",
    "checks.pool_mate:POOL_MATE",
    "checks.poisoner:POISONER",
    "checks.disk:DISK",
    "checks.ledger_chain:LEDGER_CHAIN",
    "checks.hubs:HUBS",
    "checks.coupling:COUPLING",
    "checks.seeds:SEEDS",
    "checks.pool_noise:POOL_NOISE",
    "checks.choices:CHOICES",
    "checks.sketch_noise:SKETCH_NOISE",
    "checks.moment_noise:MOMENT_NOISE",
    "checks.client_noise:CLIENT_NOISE",
    "checks.example_noise:EXAMPLE_NOISE",
    "checks.inputs:INPUTS",
    "attacks.pool_guess:POOL_GUESS",
    "attacks.property_probe:PROPERTY_PROBE",
    "attacks.membership:MEMBERSHIP",
    "attacks.inversion:INVERSION",
    "attacks.first_layer:FIRST_LAYER",
)
"""In the order in which they run: what is exact and quick comes first."""
FAULTS: tuple[str, ...] = (
    "planted.record:FAULTS",
    "planted.account:FAULTS",
    "planted.protocol:FAULTS",
    "planted.disk:FAULTS",
    "planted.coupling:HUBS",
    "planted.coupling:FAULTS",
    "planted.seeds:FAULTS",
    "planted.sources:FAULTS",
    "planted.pool_noise:FAULTS",
    "planted.choices:FAULTS",
    "planted.sketch_noise:FAULTS",
    "planted.moment_noise:FAULTS",
    "planted.client_noise:FAULTS",
    "planted.example_noise:FAULTS",
    "planted.inputs:FAULTS",
    "planted.pool_guess:FAULTS",
    "planted.property_probe:FAULTS",
    "planted.membership:FAULTS",
    "planted.inversion:FAULTS",
    "planted.late:FAULTS",
)
"""Modules' tuples of faults, each planted by the self-test."""
_ROOM = "secure_fl.audit."


def check_addresses() -> tuple[str, ...]:
    """Where each check is, as `check_at` takes it."""
    return tuple(_ROOM + each for each in CHECKS)


def fault_addresses() -> tuple[str, ...]:
    """Where each tuple of faults is, as `faults_at` takes it."""
    return tuple(_ROOM + each for each in FAULTS)


def check_at(address: str) -> Check:
    """The check at `package.module:NAME`, imported now."""
    return cast("Check", _named(address))


def faults_at(address: str) -> tuple[Fault, ...]:
    """The faults at `package.module:NAME`, imported now."""
    return cast("tuple[Fault, ...]", _named(address))


def checks() -> tuple[Check, ...]:
    """All of them."""
    return tuple(map(check_at, check_addresses()))


def faults() -> tuple[Fault, ...]:
    """All of them."""
    return tuple(fault for each in fault_addresses() for fault in faults_at(each))


def _named(address: str) -> object:
    module, attribute = address.split(":")
    return getattr(import_module(module), attribute)
