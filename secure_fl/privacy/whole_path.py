"""Checks, on noise and before anything is released, of the whole way from examples to what
is noised.

augment -> model -> losses -> clipped sum and statistic; and for sketches and choices, encoder ->
embedding. Every step of it must treat examples one by one. What one example changes of a released
sum is bounded only then, and no list of allowed parts can tell: a caller brings the augmentation,
the encoder and, from Python, the objective.

The test of the whole is that released sums add up: of all units together they must be the sums of
the parts', however these are cut, also beside units that are huge or NaN. A mean of the batch, a
detached key, a loss over the number of units, a hook that changes gradients: each breaks it. Where
things go wrong without the sums showing it (what a model or an augmentation remembers) `remembered`
is read before and after. Views by themselves are tried in `views_apart`.

**Guarantee**: a refusal names what was seen.

**Assumes**: what is tried here is what is trained, and runs on noise as it does on examples.

**Not covered**: a dependence that shows on no noise tried here (training checks every step
besides); examples that a caller has put into an augmentation, an encoder or an objective
beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from secure_fl.coins import Coins, Draws
from secure_fl.errors import PrivacyError
from secure_fl.privacy.keyed_dropout import keyed_dropout, row_draws
from secure_fl.privacy.mechanisms.mechanism import Labelled
from secure_fl.privacy.remembered import changes, remembered, remembers
from secure_fl.privacy.row_isolation import check_separable
from secure_fl.privacy.rows_alone import EXTREME, check_rows_alone, forgiven
from secure_fl.privacy.views_apart import Examples, ViewsOf, check_views_apart, rows_of

_ADDED_UP = 1e-3
"""Of the parts' lengths: float32 sums over batches of other sizes differ by 1e-6 a layer."""
_LOOSE = 1e6
"""A bound that clips nothing."""


class AddsUp(Protocol):
    """All that these checks ask of a mechanism."""

    def released_sums(self, model: nn.Module, views: Any) -> list[Tensor]:
        """As in `ExampleMechanism`."""


def check_embedding(encoder: nn.Module, examples: Examples) -> None:
    """Refuse an encoder, in any mode, whose embedding of an example is not its own: of sketches,
    and of choices by loss.

    Args:
        encoder: a copy, whose weights are changed.

    Raises:
        PrivacyError: as `check_rows_alone`.
    """
    _stir(encoder.eval())
    check_rows_alone(encoder, examples.noise(5), sizes=examples.sizes)


def check_training(
    model: nn.Module,
    mechanism: AddsUp,
    views_of: Callable[[Tensor], ViewsOf[Any]],
    members: int,
    examples: Examples,
) -> None:
    """Refuse a private training of which an example could move more than its own part.

    Args:
        model: in the mode it is trained in; a copy, whose weights are changed.
        views_of: from examples `[N, ...]` to views of some of them.
        members: examples in a unit.

    Raises:
        PrivacyError: something treats examples together, or remembers them.
    """
    coins, held = Coins.public(0), dict[str, bytes]()
    check_separable(model)
    _stir(model)
    for number, (units, scale) in enumerate(((5, 1.0), (3, 30.0), (2 + 32 // members, 1.0))):
        x = examples.noise(units * members, scale)
        index = torch.arange(len(x)).view(units, members)
        draws = coins.at(number, index.flatten())
        with forgiven(scale > 1):
            views = check_views_apart(views_of(x), index, draws)
            if number == 0:
                rows = rows_of(views).flatten(0, 1)
                check_rows_alone(
                    model, rows[:5], sizes=[size * len(rows) // len(x) for size in examples.sizes]
                )
            check_adds_up(model, mechanism, views, draws, closely=number == 0)
        # From here on nothing more is made that is kept.
        held = held or remembered(model=model, mechanism=mechanism)
    if changed := changes(held, remembered(model=model, mechanism=mechanism)):
        raise remembers(changed[0])


def check_step(model: nn.Module, mechanism: AddsUp | None, like: object, members: int) -> None:
    """The short form of `check_training`, on noise in the shape of a step's views, for a model that
    has been trained meanwhile.

    Args:
        mechanism: None where it has been tried, and only the weights are new.
        like: views of the step; their values are not looked at.
        members: examples in a unit.

    Raises:
        PrivacyError: as `check_training`.
    """
    rows = rows_of(like)
    if not rows.is_floating_point():
        return
    units, coins = 4 if mechanism is None else max(4, len(rows)), torch.Generator().manual_seed(0)
    shape = (units, *rows.shape[1:])
    noise = torch.rand(shape, generator=coins, dtype=torch.float64).to(rows)
    check_rows_alone(model, noise.flatten(0, 1)[:4], quick=True)
    if mechanism is None:
        return
    for count in (4, units):
        draws = Coins.public(0).at(0, torch.arange(count * members))
        views: object = noise[:count]
        if isinstance(like, Labelled):
            targets = torch.zeros_like(like.targets[:1]).expand(count, *like.targets.shape[1:])
            views = Labelled(noise[:count], targets)
        check_adds_up(model, mechanism, views, draws, closely=count == 4)


def check_adds_up(
    model: nn.Module, mechanism: AddsUp, views: object, draws: Draws, *, closely: bool = True
) -> None:
    """Refuse a mechanism whose released sums over units are not the sums of its parts.

    Args:
        draws: one row of coins for each example, unit by unit.
        closely: cut in more ways, and with broken units beside the others.

    Raises:
        PrivacyError: they are not.
    """
    if not getattr(mechanism, "adds_up", True):
        return
    units = len(rows_of(views))
    members = torch.arange(len(draws)).view(units, -1)

    def sums(of: AddsUp, chosen: Tensor, world: object) -> list[Tensor]:
        rows = rows_of(world)[chosen]
        given = Labelled(rows, world.targets[chosen]) if isinstance(world, Labelled) else rows
        own = draws[members[chosen.cpu()].flatten()]
        with keyed_dropout(model, row_draws(own, len(rows), rows.shape[1])):
            return of.released_sums(model, given)

    everyone = torch.arange(units, device=rows_of(views).device)
    for way, world, alone, may_fail in _ways(mechanism, views, everyone)[: None if closely else 1]:
        parts = (everyone, alone, everyone[~torch.isin(everyone, alone)])
        with forgiven(may_fail):
            _require_sums(mechanism, *(sums(way, part, world) for part in parts))


def _require_sums(
    mechanism: AddsUp, totals: Sequence[Tensor], ones: Sequence[Tensor], others: Sequence[Tensor]
) -> None:
    for number, (total, one, other) in enumerate(zip(totals, ones, others, strict=True)):
        length = float(one.double().norm() + other.double().norm())
        if not float((total.double() - one.double() - other.double()).norm()) <= _ADDED_UP * length:
            remedy = "remove what combines examples, such as means, or use client-level privacy"
            problem = f"released sum {number} is not the sum of its units' parts"
            raise PrivacyError(problem, "mechanism", _kind(mechanism), remedy)


def _ways(
    mechanism: AddsUp, views: object, everyone: Tensor
) -> list[tuple[AddsUp, object, Tensor, bool]]:
    """(the mechanism, also one that clips nothing; views, also with a twin or a broken unit; units
    to sum apart; whether it may fail).
    """
    half, rows = everyone[::2], rows_of(views)
    ways: list[tuple[AddsUp, object, Tensor, bool]] = [
        (_loosened(mechanism), views, everyone[:1], False),
        (mechanism, views, half, False),
    ]

    def ending(last: Tensor) -> object:
        changed = torch.cat([rows[:-1], last])
        return Labelled(changed, views.targets) if isinstance(views, Labelled) else changed

    ways.append((_loosened(mechanism), ending(rows[:1]), everyone[:1], False))
    for name in ("large", "nan") if rows.is_floating_point() else ():
        ways.append((mechanism, ending(EXTREME[name](rows[-1:], rows[-1:])), half, True))
    return ways


def _loosened(mechanism: AddsUp) -> AddsUp:
    """The mechanism with a bound that clips nothing, where it has one to set."""
    names = [field.name for field in fields(mechanism)] if is_dataclass(mechanism) else list[str]()
    for name in ("clip", "bound"):
        if name in names:
            made: AddsUp = replace(mechanism, **{name: _LOOSE})  # type: ignore[type-var]
            return made
    return mechanism


def _kind(value: object) -> str:
    return type(value).__name__


@torch.no_grad()
def _stir(model: nn.Module) -> None:
    """Move all weights a little: one that is zero, such as a gate, hides what it multiplies."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.numel():
            size = 0.1 * float(parameter.square().mean().sqrt().clamp_min(0.1))
            parameter.add_((size * torch.randn(parameter.shape, generator=generator)).to(parameter))
