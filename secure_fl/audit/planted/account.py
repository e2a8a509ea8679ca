"""Accountants and ledgers that count less than was released."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from secure_fl.audit.check import Fault
from secure_fl.audit.planted.record import small, twice_the_noise
from secure_fl.config import FederationConfig
from secure_fl.federation.asks import Ask
from secure_fl.federation.protections.client_level import ClientLevel
from secure_fl.privacy import calibration
from secure_fl.privacy.accounting import Charge, epsilon_of
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.ledger import PrivacyLedger, Release


def _examples(**privacy: Any) -> FederationConfig:
    return small(privacy={"unit": "example", "min_clients": None, **privacy})


def _replacing() -> FederationConfig:
    return _examples(adjacency="replace-one")


def _calibrated() -> FederationConfig:
    return small(privacy={"noise": None, "epsilon": 8.0})


@contextmanager
def _understated() -> Iterator[None]:
    def less(charges: Iterable[Charge], delta: float, **options: Any) -> float:
        return 0.9 * epsilon_of(charges, delta, **options)

    with patch("secure_fl.privacy.claims.epsilon_of", less):
        yield


@contextmanager
def _replaced_counts_once() -> Iterator[None]:
    charge = Release.charge

    def halved(self: Release, unit: PrivacyUnit, _: Adjacency) -> Charge | None:
        return charge(self, unit, Adjacency.ZERO_OUT)

    with patch.object(Release, "charge", halved):
        yield


@contextmanager
def _all_noise_for_one_upload() -> Iterator[None]:
    def unchanged(charges: tuple[Charge, ...]) -> tuple[Charge, ...]:
        return charges

    with patch("secure_fl.privacy.claims._laid_open", unchanged):
        yield


@contextmanager
def _too_little_noise() -> Iterator[None]:
    """Calibration stops at seven tenths of the noise that the budget asks for."""
    whole = calibration.noise_of_run

    def less(*arguments: Any, **options: Any) -> float:
        return 0.7 * whole(*arguments, **options)

    with patch("secure_fl.federation.factory.client_plan.noise_of_run", less):
        yield


@contextmanager
def _forgetful() -> Iterator[None]:
    """The ledger forgets every round but the first, and its marks know of nothing else."""
    record = PrivacyLedger.record

    def forgets(self: PrivacyLedger, release: Release) -> None:
        if release.round == 0:
            record(self, release)

    with patch.object(PrivacyLedger, "record", forgets):
        yield


@contextmanager
def _cheaper() -> Iterator[None]:
    """A client's releases are charged with twice the deviation of the noise that is added."""
    releases = ClientLevel.releases

    def cheap(self: ClientLevel, ask: Ask, position: int) -> tuple[Release, ...]:
        return tuple(map(twice_the_noise, releases(self, ask, position)))

    with patch.object(ClientLevel, "releases", cheap):
        yield


@contextmanager
def _budget_of_others() -> Iterator[None]:
    """The gate holds a run against a budget for missing examples, whatever the settings say."""

    def absent(*_: object) -> Adjacency:
        return Adjacency.ZERO_OUT

    with patch("secure_fl.federation.releases.budget.Adjacency", absent):
        yield


FAULTS = (
    Fault("claims of nine tenths of ε", "account", _examples, _understated),
    Fault("a replaced example counts once", "account", _replacing, _replaced_counts_once),
    Fault("all clients' noise for one upload", "account", small, _all_noise_for_one_upload),
    Fault("noise short of the budget", "account", _calibrated, _too_little_noise),
    Fault("rounds that are not charged", "charges", small, _forgetful, finished=True),
    Fault("a budget for other neighbours", "charges", _replacing, _budget_of_others, finished=True),
    Fault("charged with twice the noise", "charges", small, _cheaper, finished=True),
)
