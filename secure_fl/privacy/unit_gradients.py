"""Clipped sums of units' gradients, from one forward and one backward pass over all units together.

A unit is R neighbouring rows of the batch: an example's views, or a group's. If a unit's loss
depends on its own rows only, the backward pass gives, at every layer, the gradient by that layer's
output of each row on its own; with the layer's inputs this is all that norms and clipped sums
need, so weights' gradients are formed once, clipped and summed already, and no second backward
pass is run.

`hooks` forms every unit's gradient by Opacus' rule for its layer. `ghost` does so for small layers
only (norms, embeddings); for linear layers and 1-d and 2-d convolutions the norms come from
products of the rows (`secure_fl_kernels.per_sample`), and the sum from the rows scaled by the
unit's clip factor.

Suffixes: N rows, U units, P parameters of a layer.
Sources: Goodfellow 2015, arXiv 1510.01799; Li et al. 2022, arXiv 2110.05679 (ghost norms); Bu et
al. 2023, arXiv 2210.00038 (one backward pass is enough).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from secure_fl.errors import PrivacyError
from secure_fl.privacy.layer_calls import LayerCall, check_only_through_layers, recorded
from secure_fl.privacy.row_isolation import check_rows_stay_apart, check_separable, layer_rule
from secure_fl.privacy.rows_alone import check_some_alone
from secure_fl.privacy.unit_losses import UnitLosses, output_gradients
from secure_fl_kernels import per_sample
from secure_fl_kernels.reference.gradients import CEILING, accumulator

Method = Literal["hooks", "ghost"]


@dataclass(frozen=True, repr=False)
class ClippedSum:
    """A clipped sum of gradients, which a mechanism adds noise to.

    Attributes:
        gradients: one a trainable parameter, in the model's order.
        square_norms: `[U]`, before clipping. Private: they go nowhere without noise.
    """

    gradients: list[Tensor] = field(repr=False)
    square_norms: Tensor = field(repr=False)


def clipped_sum(
    model: nn.Module,
    rows: Tensor,
    rows_per_unit: int,
    unit_losses: UnitLosses,
    bound: float,
    *,
    method: Method = "ghost",
) -> ClippedSum:
    """Σ_u min(1, C/‖g_u‖) g_u with g_u the gradient of unit u's loss by all trainable parameters, C
    the `bound`.

    **Guarantee**: each unit's term has norm at most C; a unit whose gradient's norm is NaN or
    infinite adds exactly zero, and one that comes near overflow is faded out before, so that a
    rounding error η of all units moves the sum by O(η·C) a unit and never by a step. No units give
    zeros, and the model is not run.

    **Assumes**: unit u's loss depends on the rows of unit u and on constants only, and the model
    treats every row by itself. Of the latter, what layers show is checked here, and that two rows
    come out the same by themselves; the rest is checked on noise (`whole_path`). Of the former,
    every call checks on a random half of the units that neither values nor gradients of their
    losses follow the other half's rows; and that trained weights act through their layers alone.

    **Not covered**: steps of the model's own, such as rounding inside; overflow within frozen
    layers; rounding of the float32 sum, relative 2^-24 an addition; noise, sampling and accounting,
    which are the mechanism's.

    Args:
        rows: `[U · R, ...]`, unit by unit.
        unit_losses: called twice, first with the outputs as they are and then with some units'
            replaced; not at all without units.
        method: `ghost` is faster and smaller; `hooks` is the plain form that it is compared with.

    Raises:
        PrivacyError: the model mixes rows, has a layer without a rule, or uses a trained weight
            beside its layer; or the losses are not one a unit, or one depends on two units.
    """
    check_separable(model)
    _check_whole(rows, rows_per_unit)
    return _clipped(model, rows, rows_per_unit, unit_losses, bound, method)


def _check_whole(rows: Tensor, rows_per_unit: int) -> None:
    """Refuse rows that do not fill units."""
    if rows_per_unit < 1 or len(rows) % rows_per_unit:
        remedy = "pass the rows of whole units, one unit after the other"
        raise PrivacyError("rows do not fill units", "rows_per_unit", rows_per_unit, remedy)


def _clipped(
    model: nn.Module,
    rows: Tensor,
    rows_per_unit: int,
    unit_losses: UnitLosses,
    bound: float,
    method: Method,
) -> ClippedSum:
    """The sum of `clipped_sum`, of arguments that it has checked."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if len(rows) == 0:
        return ClippedSum(_zeros(parameters), torch.zeros(0, device=rows.device))
    calls = _backpropagate(model, rows, rows_per_unit, unit_losses)
    ghosts = _ghosts(calls) if method == "ghost" else []
    formed = _formed([call for call in calls if call not in ghosts], rows_per_unit)
    norms = [_ghost_norms(call, rows_per_unit) for call in ghosts] + [
        per_sample.square_norms(gradient.flatten(1)) for gradient in formed.values()
    ]
    if not norms:
        return ClippedSum(_zeros(parameters), rows.new_zeros(len(rows) // rows_per_unit))
    square_norms = _square_norms(norms, _fading(calls, rows_per_unit))
    sums: dict[Tensor, Tensor] = {}
    for parameter, gradient in formed.items():
        clipped = per_sample.clip_and_sum(gradient.flatten(1), square_norms, bound)
        sums[parameter] = clipped.view_as(parameter)
    factors = per_sample.clip_factors(square_norms, bound).repeat_interleave(rows_per_unit)
    while ghosts:
        sums |= _ghost_sums(ghosts.pop(), factors)
    gradients = [sums[p].to(p.dtype) if p in sums else torch.zeros_like(p) for p in parameters]
    return ClippedSum(gradients, square_norms)


def _zeros(parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of nothing."""
    return [torch.zeros_like(parameter) for parameter in parameters]


def _square_norms(norms: Sequence[Tensor], fading: Tensor) -> Tensor:
    """Each unit's squared norm `[U]` over all layers, larger for a unit that is faded out.

    Summed in float64 and rounded once: with many layers float32 could fall below what
    `clip_factors` allows for.
    """
    double = all(norm.dtype == torch.float64 for norm in norms)
    summed = torch.stack([norm.double() for norm in norms]).sum(0) / fading.square()
    return summed.to(torch.float64 if double else torch.float32)


def _backpropagate(
    model: nn.Module, rows: Tensor, rows_per_unit: int, unit_losses: UnitLosses
) -> list[LayerCall]:
    """Calls of trainable layers, each with the losses' gradient by its output, if any."""
    with torch.enable_grad(), recorded(model, len(rows)) as calls:
        outputs = model(rows)
    h, z = (outputs, outputs) if isinstance(outputs, Tensor) else outputs
    check_rows_stay_apart(len(rows), h, z)
    check_some_alone(model, rows, [outputs] if isinstance(outputs, Tensor) else [h, z])
    check_only_through_layers(model, [h, z], calls)
    gradients = output_gradients(model, h, z, rows_per_unit, unit_losses)
    trained = [output.requires_grad for output in (h, z)]
    ends, starts = [list(compress(values, trained)) for values in ((h, z), gradients)]
    edges = [call.edge for call in calls]
    found = torch.autograd.grad(ends, edges, starts, allow_unused=True) if calls else ()
    for call, backprops in zip(calls, found, strict=True):
        call.check_inputs()
        call.backprops = None if backprops is None else _as_weights(call, backprops)
        call.inputs = _as_weights(call, call.inputs)
    return [call for call in calls if call.backprops is not None]


def _as_weights(call: LayerCall, values: Tensor) -> Tensor:
    """Floats in the weights' precision, float32 at least: autocast gives others."""
    precision = torch.promote_types(next(call.layer.parameters(recurse=False)).dtype, torch.float32)
    return values.to(precision) if values.is_floating_point() else values


def _fading(calls: Sequence[LayerCall], rows_per_unit: int) -> Tensor:
    """1 for units whose numbers are of ordinary size, falling to 0 before anything that norms are
    made of can overflow: float64 `[U]`.

    With ‖a‖² and ‖b‖² the squared lengths of a unit's inputs and derivatives at a layer, no product
    or sum on the way to its norm is larger than these or ‖a‖²‖b‖². Overflow alone would be a step:
    factor C/‖g‖ on one side, 0 on the other, for all units that are close to it.
    """
    reach: list[Tensor] = []
    for call in calls:
        assert call.backprops is not None
        wide = accumulator(call.backprops.dtype)
        a, b = (
            torch.linalg.vector_norm(part.flatten(1).to(wide), dim=1).double().square()
            for part in (call.inputs, call.backprops)
        )
        a, b = (square.view(-1, rows_per_unit).sum(1) for square in (a, b))
        reach.append(torch.stack([a, b, a * b]).amax(0) / CEILING[wide])
    return (1 - torch.stack(reach).amax(0)).clamp_min(0)


def _formed(calls: Sequence[LayerCall], rows_per_unit: int) -> dict[Tensor, Tensor]:
    """Units' gradients by each parameter, `[U, *parameter.shape]`, summed over calls."""
    formed: dict[Tensor, Tensor] = {}
    for call in calls:
        assert call.backprops is not None
        by_rows = layer_rule(call.layer)(call.layer, [call.inputs], call.backprops)
        for parameter, by_row in by_rows.items():
            if parameter.requires_grad:
                by_unit = by_row
                if rows_per_unit > 1:
                    by_unit = by_row.reshape(-1, rows_per_unit, *parameter.shape).sum(1)
                formed[parameter] = formed[parameter] + by_unit if parameter in formed else by_unit
    return formed


# Layers whose units' gradients are never formed


def _ghosts(calls: Sequence[LayerCall]) -> list[LayerCall]:
    """Calls with a ghost norm and weights used once: norms of parts do not add up."""
    held = {call: [id(p) for p in call.layer.parameters(recurse=False)] for call in calls}
    uses = Counter(weight for weights in held.values() for weight in weights)
    alone = (call for call, weights in held.items() if all(uses[each] == 1 for each in weights))
    return [call for call in alone if has_ghost(call.layer)]


def has_ghost(layer: nn.Module) -> bool:
    """Whether gradients' norms come from the layer's inputs and output derivatives alone."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        return layer.weight.requires_grad and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear) and layer.weight.requires_grad


def _ghost_norms(call: LayerCall, rows_per_unit: int) -> Tensor:
    layer, backprops = call.layer, call.backprops
    assert backprops is not None
    if isinstance(layer, nn.Linear):
        return per_sample.ghost_square_norms_linear(
            call.inputs, backprops, trains_bias(layer), rows_per_unit
        )
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    inputs, backprops, geometry = as_images(layer, call.inputs, backprops)
    return per_sample.ghost_square_norms_conv2d(
        inputs, backprops, *geometry, bias=trains_bias(layer), group_size=rows_per_unit
    )


def _ghost_sums(call: LayerCall, factors_N: Tensor) -> dict[Tensor, Tensor]:
    """Σ factor · gradient over rows; factor 0 zeroes both sides, since 0 · NaN is NaN."""
    layer, inputs, backprops = call.layer, call.inputs, call.backprops
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    assert backprops is not None
    backprops = backprops * _over_rows(factors_N.to(backprops.dtype), backprops)
    if not bool(factors_N.all()):
        backprops = backprops.masked_fill(_over_rows(factors_N == 0, backprops), 0)
        inputs = inputs.masked_fill(_over_rows(factors_N == 0, inputs), 0)
    sums: dict[Tensor, Tensor] = {}
    if isinstance(layer, nn.Linear):
        sums[layer.weight] = backprops.flatten(0, -2).T @ inputs.flatten(0, -2)
        positions = tuple(range(backprops.ndim - 1))
    else:
        images, outputs, (kernel, *rest) = as_images(layer, inputs, backprops)
        weight = conv2d_weight(images, (*layer.weight.shape[:2], *kernel), outputs, *rest)
        sums[layer.weight] = weight.view_as(layer.weight)
        positions = (0, *range(2, backprops.ndim))
    if layer.bias is not None and trains_bias(layer):
        sums[layer.bias] = backprops.sum(positions)
    return sums


def trains_bias(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> bool:
    """Whether there is a bias, and it is trained."""
    return layer.bias is not None and layer.bias.requires_grad


def _over_rows(values_N: Tensor, like: Tensor) -> Tensor:
    """One value a row, shaped to be spread over all else."""
    return values_N.view(-1, *[1] * (like.ndim - 1))


_Pair = tuple[int, int]
_Geometry = tuple[_Pair, _Pair, _Pair, _Pair, int]
"""Kernel, stride, padding, dilation, groups."""


def as_images(
    layer: nn.Conv1d | nn.Conv2d, inputs: Tensor, backprops: Tensor
) -> tuple[Tensor, Tensor, _Geometry]:
    """A convolution's rows and geometry; a series is an image of height 1."""
    assert not isinstance(layer.padding, str)
    sizes = [
        tuple(size) for size in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    ]
    if isinstance(layer, nn.Conv1d):
        sizes = [(neutral, *size) for neutral, size in zip((1, 1, 0, 1), sizes, strict=True)]
        inputs, backprops = inputs.unsqueeze(2), backprops.unsqueeze(2)
    kernel, stride, padding, dilation = ((size[0], size[1]) for size in sizes)
    return inputs, backprops, (kernel, stride, padding, dilation, layer.groups)
