"""Faults of the private choice that `choices` must find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

from torch import Tensor

from secure_fl.audit.check import Fault
from secure_fl.config import FederationConfig
from secure_fl.federation.asks import Ask
from secure_fl.federation.protections import example_level
from secure_fl.federation.protections.example_level import ExampleLevel
from secure_fl.privacy.choice import PrivateChoice
from secure_fl.privacy.ledger import Release
from secure_fl.privacy.noise import NoiseStream

_choose, _releases = PrivateChoice.choose, ExampleLevel.releases
Choose = Callable[..., int]


def config() -> FederationConfig:
    """Three pools, chosen by their losses."""
    tables: dict[str, Any] = {
        "partition": {"clients": 9, "kind": "iid"},
        "model": {"features": 16},
        "objective": {"name": "align_uniform"},
        "privacy": {"unit": "example", "noise": 3.0, "epsilon": 50.0},
        "pools": {"count": 3, "start": "pretrained"},
        "security": {"protection": "masked"},
    }
    return FederationConfig(**tables)


def _best(_: PrivateChoice, scores: Sequence[float], *__: object) -> int:
    return min(range(len(scores)), key=scores.__getitem__)


def _staying(
    self: PrivateChoice, scores: Sequence[float], stream: NoiseStream, previous: int | None = None
) -> int:
    """A client whose pool is the best stays for sure."""
    if previous is not None and scores[previous] == min(scores):
        return previous
    return _choose(self, scores, stream, previous)


def _surer(
    self: PrivateChoice, scores: Sequence[float], stream: NoiseStream, previous: int | None = None
) -> int:
    """Drawn at twice the ε that is charged."""
    return _choose(replace(self, epsilon=2 * self.epsilon), scores, stream, previous)


def _unbounded(losses: Tensor, bound: float, size: int) -> float:
    """The mean of losses as they are, brought within the bound afterwards."""
    mean = float(losses.double().nan_to_num(nan=bound).sum() / size)
    return min(max(mean, 0.0), bound)


def _first_alone(self: ExampleLevel, ask: Ask, position: int) -> tuple[Release, ...]:
    """Choices of later rounds are made, and not charged."""
    made = _releases(self, ask, position)
    return tuple(each for each in made if each.purpose != "choice" or each.round == 0)


def _planted(name: str, made: Choose) -> Fault:
    return Fault(name, "choices", config, partial(patch.object, PrivateChoice, "choose", made))


FAULTS = (
    _planted("the best pool instead of the exponential mechanism", _best),
    _planted("a choice at twice its ε", _surer),
    _planted("a pool that is the best already is kept for sure", _staying),
    Fault(
        "only the first choice charged",
        "choices",
        config,
        partial(patch.object, ExampleLevel, "releases", _first_alone),
    ),
    Fault(
        "losses without their bound",
        "choices",
        config,
        partial(patch.object, example_level, "bounded_score", _unbounded),
    ),
)
