"""What a ledger holds: releases with the events that cost, and the budget for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from secure_fl.errors import PrivacyError
from secure_fl.privacy.accounting import Charge
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.events import Event, GaussianEvent, IntegerEvent


@dataclass(frozen=True)
class Budget:
    """The (ε, δ) that no subject's releases may pass.

    Args:
        epsilon: ≥ 0, finite.
        delta: within (0, 1).
        unit: whose presence is hidden.
        adjacency: how neighbours differ. Add-remove of a client is refused: its noise share would
            be missing, and the roster is public.

    Raises:
        PrivacyError: a value outside its range, or add-remove for clients.
    """

    epsilon: float
    delta: float
    unit: PrivacyUnit
    adjacency: Adjacency

    def __post_init__(self) -> None:
        check_claimable(self.unit, self.adjacency)
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            remedy = "a number of at least 0"
            raise PrivacyError("not a finite ε", "budget.epsilon", self.epsilon, remedy)
        if not 0 < self.delta < 1:
            remedy = "a number within (0, 1)"
            raise PrivacyError("not a probability", "budget.delta", self.delta, remedy)


@dataclass(frozen=True)
class Release:
    """One thing that leaves somebody, with the event that says what it costs.

    Args:
        key: names the release for ever; recording it again after a resume changes nothing.
        phase: of the federation, for example `pretrain`.
        round: its number, from 0.
        purpose: what it is for: training step, statistic, count, metric, choice.
        unit: whose contribution the event's noise hides.
        subjects: clients that this concerns: themselves (client level), or one example of each
            (example level).
        event: the mechanism.
        basis: `declared` where the inputs are a client's own word (its sampling rate, its steps),
            `derived` where the protocol fixes them.
        also_protects: EXAMPLE when client-level noise is all that protects the examples behind it:
            they are charged too, at replace-one, since another example can turn the client's whole
            update round.
        history: of what an earlier run released, the number of the history that this is a part of.
            Any one of them may be a subject's own, so it is charged the costliest, together with
            this run's releases, whose `history` is None.

    Raises:
        PrivacyError: a field out of range, client sampling at client level, or noise on examples
            said to protect clients.
    """

    key: str
    phase: str
    round: int
    purpose: str
    unit: PrivacyUnit
    subjects: tuple[int, ...]
    event: Event
    basis: Literal["declared", "derived"]
    also_protects: PrivacyUnit | None = None
    history: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "subjects", tuple(sorted(set(map(int, self.subjects)))))
        for holds, field, problem, remedy in self._rules():
            if not holds:
                raise PrivacyError(problem, f"release.{field}", getattr(self, field), remedy)

    def _rules(self) -> list[tuple[bool, str, str, str]]:
        client = self.unit is PrivacyUnit.CLIENT
        sampled = isinstance(self.event, GaussianEvent) and self.event.sampling_rate < 1
        # fmt: off
        return [
            (bool(self.key), "key", "a release needs a name of its own",
             "for example pretrain/3/client 2/step"),
            (isinstance(self.unit, PrivacyUnit), "unit", "not a unit",
             "PrivacyUnit.EXAMPLE or PrivacyUnit.CLIENT"),
            (isinstance(self.event, Event), "event", "not an event", "one of privacy.events"),
            (bool(self.subjects) and min(self.subjects) >= 0, "subjects", "concerns nobody",
             "number the clients from 0"),
            (self.round >= 0, "round", "not a round", "count from 0"),
            (self.basis in ("declared", "derived"), "basis", "unknown basis",
             "declared or derived"),
            (not (client and sampled), "event",
             "sampling clients amplifies nothing: the cohort is known",
             "charge every round in full"),
            (self.also_protects is None or (client and self.also_protects is PrivacyUnit.EXAMPLE),
             "also_protects",
             "noise for one example hides no client",
             "only client-level noise protects a second unit, the examples"),
            (self.history is None or (isinstance(self.history, int) and self.history >= 0),
             "history", "not a number", "count histories from 0"),
        ]
        # fmt: on

    def touches(self, unit: PrivacyUnit) -> bool:
        """Whether it costs this unit something."""
        return unit in (self.unit, self.also_protects)

    def charge(self, unit: PrivacyUnit, adjacency: Adjacency) -> Charge | None:
        """What this costs `unit` under `adjacency`; None when it does not touch that unit.

        Examples take no noise share along when they are absent, so for them add-remove moves an
        integer sum as zero-out does.
        """
        if unit is self.unit:
            integer_example = unit is PrivacyUnit.EXAMPLE and isinstance(self.event, IntegerEvent)
            if integer_example and adjacency is Adjacency.ADD_REMOVE:
                adjacency = Adjacency.ZERO_OUT
            return Charge(self.event, adjacency)
        return Charge(self.event, Adjacency.REPLACE_ONE) if unit is self.also_protects else None

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {**asdict(self), "subjects": list(self.subjects), "event": self.event.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Release:
        """The release that `to_dict` wrote."""
        also = values["also_protects"]
        read = {
            "unit": PrivacyUnit(values["unit"]),
            "subjects": tuple(values["subjects"]),
            "event": Event.from_dict(values["event"]),
            "also_protects": None if also is None else PrivacyUnit(also),
        }
        return cls(**{**values, **read})


def check_claimable(unit: PrivacyUnit, adjacency: Adjacency) -> None:
    """Refuse to state an ε for a unit under an adjacency that has none. Raises PrivacyError:
    add-remove for clients, or something else than a unit and an adjacency.
    """
    if not isinstance(unit, PrivacyUnit) or not isinstance(adjacency, Adjacency):
        raise PrivacyError(
            "an ε needs both", "unit", (unit, adjacency), "a PrivacyUnit and an Adjacency"
        )
    if unit is PrivacyUnit.CLIENT and adjacency is Adjacency.ADD_REMOVE:
        problem = "an absent client's noise share is absent too"
        remedy = "claim zero-out on the public roster, or replace-one"
        raise PrivacyError(problem, "adjacency", str(adjacency), remedy)
