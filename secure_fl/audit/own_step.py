"""One training step of a run's own path, noise off and coins fixed: examples -> views -> model ->
clipped sums; and examples that are likely to move them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor, nn

from secure_fl.audit.neighbours import FINITE, NEWCOMERS
from secure_fl.audit.own_training import OwnTraining
from secure_fl.coins import Coins
from secure_fl.errors import PrivacyError
from secure_fl.models.build import seeded
from secure_fl.privacy.keyed_dropout import keyed_dropout, row_draws
from secure_fl.privacy.views_apart import rows_of

_CLIMB = 25
"""Steps of gradient ascent towards a hub."""


@dataclass(frozen=True)
class World:
    """Examples of the public index set, and who is there.

    Attributes:
        x, y: examples `[N, ...]` and labels, N whole units.
        units: numbers of those that are summed.
    """

    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)
    units: tuple[int, ...]

    def with_first(self, newcomer: Tensor, label: Tensor | None = None) -> World:
        """Another example in the first place."""
        y = self.y.clone()
        if label is not None:
            y[0] = label
        return replace(self, x=torch.cat([newcomer[None], self.x[1:]]), y=y)

    def only(self, *units: int) -> World:
        """Some units alone; all others keep their examples and coins."""
        return replace(self, units=units)


@dataclass(frozen=True)
class OwnStep:
    """A step of a run's own training, of any world.

    Attributes:
        model: as the path makes it, in the mode that it is trained in.
        seed: of the coins of views and dropout.
    """

    own: OwnTraining
    model: nn.Module = field(repr=False)
    seed: int

    @classmethod
    def of(cls, own: OwnTraining, seed: int) -> OwnStep:
        """With a fresh model of the run's."""
        return cls(own, own.path.model(), seed)

    @property
    def members(self) -> int:
        """Examples in a unit."""
        return self.own.path.members

    def world(self, x: Tensor, y: Tensor) -> World:
        """All whole units of these examples."""
        units = len(x) // self.members
        kept = units * self.members
        return World(x[:kept], y[:kept], tuple(range(units)))

    def sums(self, world: World) -> list[Tensor]:
        """The released sums, in the mechanism's order; zeros for nobody.

        Raises:
            PrivacyError: the run's own guards refuse what they see.
        """
        everyone = torch.arange(len(world.x)).view(-1, self.members)
        index = everyone[list(world.units)]
        draws = Coins.public(self.seed).at(0, index.flatten())
        views = self.own.path.views_of(world.x, world.y)(index, draws)
        rows = row_draws(draws, len(index), rows_of(views).shape[1])
        with keyed_dropout(self.model, rows), seeded(self.seed):
            found = self.own.training.mechanism.released_sums(self.model, views)
        return [part.detach() for part in found]

    def without_first(self, world: World) -> World:
        """Its first example is missing; so is the unit that it was in."""
        if self.members == 1:
            return replace(world, units=tuple(unit for unit in world.units if unit != 0))
        return world.with_first(torch.full_like(world.x[0], torch.nan))

    def embedded(self, x: Tensor) -> Tensor:
        """z of examples as they are, `[N, D]`."""
        outputs = self.model(x)
        z: Tensor = outputs if isinstance(outputs, Tensor) else outputs[1]
        return z.flatten(1)


def newcomers(step: OwnStep, world: World, generator: Generator) -> Mapping[str, Tensor]:
    """Examples to stand in the first place, by name: kinds of `neighbours`, and hubs: the example
    that is most like all others, and what gradient ascent on an input makes of it.
    """
    others = world.x[1:]
    found = {name: make(others[:, None], generator)[0] for name, make in NEWCOMERS.items()}
    found["mean"] = others.mean(0)
    hub = _likest(step, others)
    found["likest"] = hub
    found["climbed hub"] = _climbed(step, hub, others)
    return {"itself": world.x[0], **found}


ORDINARY = (
    "likest",
    "climbed hub",
    "centre",
    "mean",
    "itself",
    *(name for name in FINITE if name != "centre"),
)
"""Newcomers with finite values of ordinary size, the most telling first."""


@torch.no_grad()
def _likest(step: OwnStep, others: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize(step.embedded(others), dim=1)
    return others[int((unit @ unit.mean(0)).argmax())].clone()


def _climbed(step: OwnStep, start: Tensor, others: Tensor) -> Tensor:
    """An input moved so that its embedding is like all others', the start if there is no way."""
    with torch.no_grad():
        unit = torch.nn.functional.normalize(step.embedded(others), dim=1)
        towards, size = unit.mean(0), 0.2 * float(others.std()) + 1e-6
    x = start.clone()
    for _ in range(_CLIMB):
        tried = x.detach().requires_grad_()
        with torch.enable_grad():
            z = torch.nn.functional.normalize(step.embedded(tried[None]), dim=1)[0]
            if not z.requires_grad:
                return start
            (gradient,) = torch.autograd.grad((z * towards).sum(), tried)
        length = float(gradient.norm())
        if not 0 < length < float("inf"):
            break
        x = tried.detach() + size * gradient / length * gradient.numel() ** 0.5 / 5
    return x


def forgiving(measure: Callable[[World], list[Tensor]], world: World) -> list[Tensor] | None:
    """What a world gives; None where the caller's code refuses values such as NaN by itself."""
    try:
        return measure(world)
    except PrivacyError:
        raise
    except Exception:
        return None
