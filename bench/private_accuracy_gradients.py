"""What a mechanism does to gradients, measured on the examples themselves: for the bench only,
since all of it is private.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from secure_fl.coins import Coins, Draws
from secure_fl.experimental.logit import LogitDP
from secure_fl.privacy.mechanisms.group import GroupNTXent
from secure_fl.privacy.mechanisms.mechanism import Labelled, flat
from secure_fl.privacy.mechanisms.per_example import PerExample
from secure_fl.privacy.mechanisms.released_statistics import statistic_sum
from secure_fl.privacy.unit_gradients import clipped_sum

LOOKED_AT = 500
"""Examples whose gradients are looked at."""
SILENT = 1e-20
"""A noise multiplier that stands for none, which no mechanism takes."""


def gradients(
    mechanism: Any,
    model: nn.Module,
    views_of: Callable[[Tensor, Draws], Tensor | Labelled],
    examples: int,
) -> dict[str, object]:
    """Median norm of units' gradients, the share that C clips, and ‖mean clipped gradient‖ over the
    length of one step's noise.

    The mean of 500 examples stands for the expected one; its own sampling error is about 1/√units
    of C.
    """
    members = mechanism.units.members if isinstance(mechanism, GroupNTXent) else 1
    most = mechanism.largest_batch if isinstance(mechanism, LogitDP) else LOOKED_AT
    order = torch.randperm(examples, generator=torch.Generator().manual_seed(0))
    index = order[: min(LOOKED_AT, most)].view(-1, members)
    views = views_of(index, Coins.public(0).at(0, index.flatten()))
    total, norms, expected = _clipped(mechanism, model, views)
    multiplier = getattr(mechanism, "gradient_noise", mechanism.noise_multiplier)
    noise = multiplier * mechanism.bound * sqrt(total.numel()) / expected
    found: dict[str, object] = dict.fromkeys(("norm", "clipped", "signal"), "")
    if norms is not None:
        found["norm"] = round(float(norms.median()), 4)
        found["clipped"] = round(float((norms > mechanism.bound).double().mean()), 4)
    if mechanism.noise_multiplier > SILENT:
        found["signal"] = round(float(total.norm()) / len(index) / noise, 4)
    return found


def _clipped(
    mechanism: Any, model: nn.Module, views: Tensor | Labelled
) -> tuple[Tensor, Tensor | None, float]:
    """The clipped sum, each unit's norm where the mechanism has one, and the units expected."""
    if isinstance(mechanism, LogitDP):
        assert isinstance(views, Tensor)
        expected = mechanism.sampling_rate * mechanism.examples
        return mechanism.released_sums(model, views)[0], None, expected
    rows = views.rows if isinstance(views, Labelled) else views
    summed = clipped_sum(
        model, rows.flatten(0, 1), rows.shape[1], _losses(mechanism, views), mechanism.bound
    )
    return flat(summed.gradients), summed.square_norms.sqrt(), mechanism.expected_units


def _losses(mechanism: Any, views: Tensor | Labelled) -> Callable[[Tensor, Tensor], Tensor]:
    """Units' losses with the statistic of these very examples, without noise."""
    if isinstance(mechanism, GroupNTXent):
        return lambda h, z: mechanism.units.unit_losses(h, z)
    objective = mechanism.objective
    if isinstance(mechanism, PerExample):
        assert isinstance(views, Labelled)
        return lambda _, z: objective.target_losses(z, views.targets)

    once: list[Tensor] = []

    def released(h: Tensor, z: Tensor) -> Tensor:
        statistic = objective.statistic
        if not once:  # losses are looked at again with some outputs replaced
            once.append(statistic.mean(statistic_sum(statistic, z), len(z), 0.0))
        losses: Tensor = objective.unit_losses(h, z, once[0])
        return losses

    return released
