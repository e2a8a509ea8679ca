"""Gradients of units' losses by a model's outputs, and on the way whether each loss is its own
unit's alone.

Clipping bounds what a unit adds only if all else stays when that unit changes. Three things could
carry one unit to another's gradient: a gradient between them; a value, such as a mean of the batch
that was detached; and a backward pass that is not the forward one's own. So at every call the
units are cut in two at random, and losses are looked at twice: as they are, and with one half's
rows replaced.

Suffixes: N rows, U units.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from secure_fl.errors import PrivacyError
from secure_fl.privacy.layer_calls import check_only_through_layers

UnitLosses = Callable[[Tensor, Tensor], Tensor]
"""(`h` `[U, R, F]`, `z` `[U, R, D]`) -> `[U]`; a single output, such as logits, is both."""

_ALIKE = 1e-5
"""Of a unit's loss or gradient: the same numbers in batches of one shape."""
_FACTORS = (-3.0, -0.1, -30.0, 1.7)
"""By which the rows that stand in for others are scaled."""


def output_gradients(
    model: nn.Module, h: Tensor, z: Tensor, rows_per_unit: int, unit_losses: UnitLosses
) -> list[Tensor]:
    """Gradients of the losses' sum by both outputs.

    Looked at twice: all losses of the outputs as they are, and the losses of a random half of the
    units with other rows in the rest's place. The half's losses and its rows' gradients must agree,
    so nothing of the rest is in its losses, and none of the rest's losses has a gradient by its
    rows; and the second look has no gradient by the rest, but for those whose own losses have none
    that is finite, as with targets that are not. `unit_losses` is called twice.

    Raises:
        PrivacyError: not one loss a unit; they do not agree; or the losses use the model's weights.
            A unit whose own gradient is not finite adds nothing to the clipped sum.
    """
    units = len(h) // rows_per_unit
    coins = torch.frombuffer(bytearray(os.urandom(units + 1)), dtype=torch.uint8)
    half = (coins[:units] % 2 == 1).to(h.device)
    in_half = half.repeat_interleave(rows_per_unit)
    leaves, losses = _losses([h, z], rows_per_unit, unit_losses)
    check_only_through_layers(model, [losses], [])
    factor = _FACTORS[int(coins[-1]) % len(_FACTORS)]
    others, again = _losses(_replaced(leaves, in_half, factor), rows_per_unit, unit_losses)
    found = _gradients(losses, leaves, torch.ones_like(half))
    beside = _gradients(again, others, half)
    same = _alike(losses[half][:, None], again[half][:, None])
    if not same or not _agree(found, beside, in_half):
        problem = "a unit's loss depends on other units' rows"
        remedy = "a loss of each unit's own rows, such as NT-Xent within groups"
        raise PrivacyError(problem, "unit_losses", "losses of the whole batch", remedy)
    return found


def _agree(found: Sequence[Tensor], beside: Sequence[Tensor], in_half: Tensor) -> bool:
    """Whether a half's rows have the same gradients in both looks, and in the second one, at the
    half's losses alone, no other row has any.
    """
    same = [
        _alike(one[in_half].flatten(1), other[in_half].flatten(1))
        for one, other in zip(found, beside, strict=True)
    ]
    reaches = [bool(other[~in_half].nan_to_num(0, 0, 0).any()) for other in beside]
    return all(same) and not any(reaches)


def _losses(
    outputs: Sequence[Tensor], rows_per_unit: int, unit_losses: UnitLosses
) -> tuple[list[Tensor], Tensor]:
    """The outputs as leaves of a graph, and one loss a unit."""
    leaves = [output.detach().requires_grad_() for output in outputs]
    units = len(leaves[0]) // rows_per_unit
    with torch.enable_grad():
        losses = unit_losses(
            *(leaf.reshape(units, rows_per_unit, *leaf.shape[1:]) for leaf in leaves)
        )
    if losses.shape != (units,):
        remedy = "return one loss for each unit"
        raise PrivacyError("not one loss a unit", "unit_losses", f"{losses.ndim} axes", remedy)
    return leaves, losses


def _gradients(losses: Tensor, leaves: Sequence[Tensor], units: Tensor) -> list[Tensor]:
    """The gradients, by each leaf, of the sum of some units' losses."""
    if not losses.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    weights, unused = units.to(losses.dtype), {"allow_unused": True, "materialize_grads": True}
    return list(torch.autograd.grad(losses, leaves, weights, **unused))


@torch.no_grad()
def _replaced(leaves: Sequence[Tensor], kept: Tensor, factor: float) -> list[Tensor]:
    """The rows that are kept, and other finite ones in place of the rest."""
    return [
        torch.where(_over_rows(kept, leaf), leaf, factor * (leaf.flip(0).nan_to_num(1, 1, 1) + 0.1))
        for leaf in leaves
    ]


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether rows are equal but for rounding; what is not finite must be so in both."""
    difference = (one - other).detach().abs()
    size, beside = (part.detach().abs().amax(1, keepdim=True) for part in (one, other))
    close = (difference <= _ALIKE * size) | ~(size.isfinite() | beside.isfinite())
    return bool(close.all())


def _over_rows(values_N: Tensor, like: Tensor) -> Tensor:
    """One value a row, shaped to be spread over all else."""
    return values_N.view(-1, *[1] * (like.ndim - 1))
