"""What a run may say aloud: (ε, δ), unit, adjacency, sampling, adversary, and what it assumes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import isfinite
from typing import Literal, NoReturn

from secure_fl.errors import PrivacyError
from secure_fl.privacy.accounting import Charge, epsilon_of
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.events import GaussianEvent, IntegerEvent, PureEvent
from secure_fl.privacy.ledger import NOISED_BY_KEY_HOLDER, PrivacyLedger, Release
from secure_fl.records import Record

Protection = Literal["plain", "masked", "bfv+masked"]


class Adversary(StrEnum):
    """Who is looking."""

    MODEL = "other clients and the public model"
    SERVER = "server"
    KEY_HOLDER = "key holder"
    COLLUSION = "server with colluding clients"
    LIAR = "server that lies, with colluding clients"


@dataclass(frozen=True)
class Setting:
    """What decides who sees what.

    Args:
        protection: the secure sum's layers.
        colluders: clients that pool what they know with the server; the noise must have been sized
            for them.
        threshold: t, shares that reconstruct a client's mask; with as many colluders, masks protect
            nobody. Ignored without masks.
        against_a_liar: 2t − m: as many colluders are enough for a server that shows two survivor
            sets to two halves of the m who hold shares. None for t.
        key_holder: `clients`, who share one key, or an `authority`.

    Raises:
        PrivacyError: a negative number, or an unknown layer.
    """

    protection: Protection
    colluders: int = 1
    threshold: int | None = None
    against_a_liar: int | None = None
    key_holder: Literal["clients", "authority"] = "clients"

    def __post_init__(self) -> None:
        if self.protection not in ("plain", "masked", "bfv+masked"):
            remedy = "plain, masked or bfv+masked"
            raise PrivacyError("unknown layer", "protection", self.protection, remedy)
        if self.colluders < 0:
            raise PrivacyError("not a count", "colluders", self.colluders, "at least 0")

    def adversaries(self) -> tuple[Adversary, ...]:
        """Everybody there is: without encryption there is no key holder."""
        encrypted = self.protection == "bfv+masked"
        return tuple(who for who in Adversary if encrypted or who is not Adversary.KEY_HOLDER)

    def sees_single_uploads(self, adversary: Adversary) -> bool:
        """Whether one upload is laid open, and only the client's own noise protects it."""
        if self.protection == "plain":
            return adversary in (Adversary.SERVER, Adversary.COLLUSION, Adversary.LIAR)
        if adversary not in (Adversary.COLLUSION, Adversary.LIAR) or self.colluders == 0:
            return False
        has_key = self.protection == "masked" or self.key_holder == "clients"
        enough = self.threshold
        if adversary is Adversary.LIAR and self.against_a_liar is not None:
            enough = self.against_a_liar
        masks_hold = enough is None or self.colluders < enough
        return has_key and not masks_hold


@dataclass(frozen=True)
class PrivacyClaim(Record):
    """One row of the table of ε per adversary. Claims are not added: their units may differ.

    `epsilon` is None where no bound is known.
    """

    epsilon: float | None
    delta: float
    unit: PrivacyUnit
    adjacency: Adjacency
    sampling: str
    adversary: Adversary
    basis: Literal["declared", "derived"]
    assumes: tuple[str, ...]
    not_covered: tuple[str, ...]

    def __add__(self, other: object) -> NoReturn:
        remedy = "compose the events of one unit in one ledger"
        raise PrivacyError("claims are not added", "claim", "a sum", remedy)


def claims(
    ledger: PrivacyLedger,
    unit: PrivacyUnit,
    adjacency: Adjacency,
    delta: float,
    setting: Setting,
    *,
    subject: int | None = None,
) -> list[PrivacyClaim]:
    """A row for each adversary: of one client (or any one of its examples), or of the federation,
    which is the maximum over clients.

    Noise that a client added to its own training counts against everybody. Distributed noise counts
    as charged against whoever sees sums, the colluders' shares being left out of the charge
    already; who sees a single upload faces that client's own share only. Noise that the key holder
    added protects against everybody but the key holder, who gets no row.

    **Guarantee.** Each row's ε bounds what that adversary learns from everything the ledger holds.

    **Assumes.** The ledger is complete, and the adversary sees no more than `Setting` says.

    **Not covered.** Rows are not composed with each other: each adversary sees the same releases.

    Raises:
        PrivacyError: nothing recorded for the unit, add-remove for clients, or noise of a key
            holder who is the server or a client.
    """
    claimed = _Claimed(ledger, unit, adjacency, delta, setting, subject)
    if not claimed.charged:
        remedy = "claim the unit that the run's noise protects"
        raise PrivacyError("no release of this unit", "unit", str(unit), remedy)
    return [claimed.row(adversary) for adversary in claimed.adversaries()]


@dataclass(frozen=True)
class _Claimed:
    """What is claimed of a ledger, as the arguments of `claims`."""

    ledger: PrivacyLedger
    unit: PrivacyUnit
    adjacency: Adjacency
    delta: float
    setting: Setting
    subject: int | None

    def adversaries(self) -> list[Adversary]:
        """Those who get a row: a key holder who added noise gets none."""
        by_holder = _noised_by_holder(self._touching, self.setting)
        everybody = self.setting.adversaries()
        return [who for who in everybody if who is not Adversary.KEY_HOLDER or not by_holder]

    def row(self, adversary: Adversary) -> PrivacyClaim:
        """The claim against one adversary."""
        alone = self.setting.sees_single_uploads(adversary)
        seen = [_laid_open(charges) if alone else charges for charges in self.charged]
        declared = any(release.basis == "declared" for release in self._touching)
        epsilon = max(epsilon_of(charges, self.delta) for charges in seen)
        return PrivacyClaim(
            epsilon=epsilon if isfinite(epsilon) else None,
            delta=self.delta,
            unit=self.unit,
            adjacency=self.adjacency,
            sampling=_sampling(self.charged),
            adversary=adversary,
            basis="declared" if declared else "derived",
            assumes=_assumptions(self._touching, self.setting, alone=alone, declared=declared),
            not_covered=_gaps(self.ledger, self.unit, self.setting, self.subject),
        )

    @cached_property
    def charged(self) -> set[tuple[Charge, ...]]:
        """All that any one subject has been charged, each history once."""
        pay = (self.ledger.histories(self.unit, each, self.adjacency) for each in self._subjects)
        return {charges for histories in pay for charges in histories} - {()}

    @cached_property
    def _touching(self) -> list[Release]:
        """The releases that are about this unit and these subjects."""
        about = (each for each in self.ledger.releases if each.touches(self.unit))
        return [each for each in about if set(self._subjects) & set(each.subjects)]

    @cached_property
    def _subjects(self) -> tuple[int, ...]:
        return tuple(self.ledger.subjects(self.unit)) if self.subject is None else (self.subject,)


def _laid_open(charges: tuple[Charge, ...]) -> tuple[Charge, ...]:
    """What the charges are to somebody who sees a single upload, with one client's noise only."""
    return tuple(
        Charge(event.own_share() if isinstance(event, IntegerEvent) else event, adjacency)
        for event, adjacency in charges
    )


def _sampling(charged: Iterable[tuple[Charge, ...]]) -> str:
    events = [charge.event for charges in charged for charge in charges]
    sampled = any(isinstance(event, GaussianEvent) and event.sampling_rate < 1 for event in events)
    return "Poisson within each client" if sampled else "none: every round is paid in full"


def _noised_by_holder(releases: Iterable[Release], setting: Setting) -> bool:
    """Whether some noise is the key holder's: then the holder must be neither the server nor a
    client, who would see the sums without it.
    """
    if not any(release.purpose == NOISED_BY_KEY_HOLDER for release in releases):
        return False
    if setting.protection != "bfv+masked" or setting.key_holder == "clients":
        problem = "the server or a client would see sums before the key holder's noise is added"
        remedy = 'encryption with key_holder = "authority"; or let all clients add the noise'
        raise PrivacyError(
            problem, "key_holder", f"{setting.protection}, {setting.key_holder}", remedy
        )
    return True


def _assumptions(
    releases: Iterable[Release], setting: Setting, *, alone: bool, declared: bool
) -> tuple[str, ...]:
    shared, by_holder = list[int](), False
    for release in releases:
        if isinstance(release.event, IntegerEvent):
            if release.purpose == NOISED_BY_KEY_HOLDER:
                by_holder = True
            else:
                shared.append(release.event.parties)
    found = ["noise and sampling coins stay secret"]
    if any(release.unit is PrivacyUnit.EXAMPLE for release in releases):
        found.append(
            "who the clients are, and which classes, columns, splits and groups there are, is known"
        )
    if declared:
        found.append("clients sample and train as they declare")
    if by_holder:
        found.append("the key holder adds the noise, and colludes with nobody")
    if shared and alone:
        found.append("sees each upload: only the client's own share of the noise counts")
    elif shared:
        honest = f"{min(shared)} honest clients added their noise shares"
        found.append(f"{honest}, besides {setting.colluders} colluding")
    return tuple(found)


def _gaps(
    ledger: PrivacyLedger, unit: PrivacyUnit, setting: Setting, subject: int | None
) -> tuple[str, ...]:
    concerned = [each for each in ledger.releases if subject is None or subject in each.subjects]
    other = sorted({each.purpose for each in concerned if not each.touches(unit)})
    gaps = ["settings chosen by looking at private results", "who takes part, sizes and timing"]
    if unit is PrivacyUnit.EXAMPLE:
        gaps.append("what several examples of one person have in common")
    if other:
        gaps.append(f"charged to the other unit only: {', '.join(other)}")
    if any(isinstance(release.event, IntegerEvent) for release in concerned):
        more = f"more than {setting.colluders} colluding clients"
        gaps.append(f"{more}, or clients that leave out their noise")
    if any(release.purpose == NOISED_BY_KEY_HOLDER for release in concerned):
        gaps.append("the key holder, who sees the sums without noise")
    pure = (each.event for each in concerned if isinstance(each.event, PureEvent))
    if any(not event.bounded_range for event in pure):
        gaps.append("who answered a randomised question")
    return tuple(gaps)
