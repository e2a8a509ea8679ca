"""J Jᵀ of one row's Jacobian J `[D, P]`, its unit embedding e by all trained parameters, for a
whole batch at once.

‖Jᵀv‖² = vᵀ(J Jᵀ)v then costs nothing for any v, where the gradients of all pairs of N rows would be
N² of them.

J Jᵀ is a sum over layers. At a layer with outputs W aₜ + b at positions t, write βₜ,d for the
derivative of e's element d by the output at t. The layer's rows of J are Σₜ βₜ,d aₜᵀ and Σₜ βₜ,d,
so it adds Σₜᵤ (aₜ·aᵤ + 1)(βₜ,d·βᵤ,d'), and no Jacobian is formed: D backward passes over the whole
batch, which stop at layers' outputs, serve all rows. Other layers' Jacobians are formed by their
rule. With 250 pairs, D = 8 and 28,216 parameters that takes a quarter of the time of `torch.func`'s
Jacobian of each row, which remains for models that are not made of such layers.

All products are float64: e'·J Jᵀ·e' cancels where two embeddings nearly agree.

Suffixes: N rows, D elements of an embedding, T positions, I and O inputs and outputs of a layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional

from secure_fl.errors import PrivacyError
from secure_fl.privacy.layer_calls import LayerCall, recorded, weight_beside_layers
from secure_fl.privacy.row_isolation import is_separable, layer_rule
from secure_fl.privacy.unit_gradients import as_images, has_ghost, trains_bias
from secure_fl_kernels.reference import normalize

_JACOBIAN_ELEMENTS = 1 << 25
"""Held at once: 128 MiB of float32."""


def embeddings_and_grams(model: nn.Module, views: Tensor) -> tuple[Tensor, Tensor]:
    """Unit embeddings `[N, 2, D]` and J Jᵀ of their Jacobians by all trained parameters, float64
    `[N, 2, D, D]`.

    Args:
        model: to (h, z); every row is treated by itself.
        views: `[N, 2, ...]`, N at least 1.

    Raises:
        PrivacyError: the model embeds a row differently each time, or changes a layer's input
            in place.
    """
    rows = views.flatten(0, 1)
    with torch.no_grad():
        width = model(rows[:1])[1].shape[1]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    chunk = max(1, _JACOBIAN_ELEMENTS // max(1, width * trained))
    _check_repeats(model, rows)
    method = _by_layers if is_separable(model) else jacobian_grams
    parts = [method(model, part) for part in rows.split(chunk)]
    embedded, grams = (torch.cat(each) for each in zip(*parts, strict=True))
    return embedded.unflatten(0, (-1, 2)), grams.unflatten(0, (-1, 2))


def jacobian_grams(model: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """e `[N, D]` and J Jᵀ `[N, D, D]` of any model, by `torch.func`; slow."""
    # One entry a place where a weight is kept: torch would lose the weights of a module that has
    # two names.
    places = {
        f"{at}.{name}".lstrip("."): p
        for at, module in model.named_modules()
        for name, p in module.named_parameters(recurse=False)
    }
    names = {id(p): name for name, p in places.items()}
    trained = {names[id(p)]: p.detach() for p in places.values() if p.requires_grad}
    fixed = {name: p.detach() for name, p in places.items() if not p.requires_grad}

    def unit(parameters: dict[str, Tensor], row: Tensor) -> tuple[Tensor, Tensor]:
        given = {name: parameters[names[id(p)]] for name, p in places.items() if p.requires_grad}
        z: Tensor = functional_call(model, {**fixed, **given}, (row[None],), tie_weights=False)[1]
        e = normalize(z)[0]
        return e, e

    jacobian, e = vmap(jacrev(unit, has_aux=True), in_dims=(None, 0))(trained, rows)
    parts = [j.reshape(*e.shape, -1).double() for j in jacobian.values()]
    return e.detach(), torch.stack([j @ j.mT for j in parts]).sum(0)


def _check_repeats(model: nn.Module, rows: Tensor) -> None:
    """Refuse a model that embeds a row differently each time. Raises PrivacyError: it does."""
    with torch.no_grad():
        z, again = model(rows)[1], model(rows)[1]
    near = 1e-5 * float(again.nan_to_num(0, 0, 0).abs().max())
    if not torch.allclose(z, again, rtol=1e-3, atol=near, equal_nan=True):
        problem = "embeds a row differently each time"
        remedy = "leave out dropout and other layers that draw"
        raise PrivacyError(problem, "model", type(model).__name__, remedy)


def _only_through_layers(model: nn.Module, z: Tensor, calls: Sequence[LayerCall]) -> bool:
    """Whether trained weights act by one call each of their layer, so that J Jᵀ is whole."""
    weights = (p for layer in model.modules() for p in layer.parameters(recurse=False))
    held = Counter(id(p) for p in weights if p.requires_grad)
    called = Counter(id(call.layer) for call in calls)
    once = max([*held.values(), *called.values()], default=1) == 1
    return once and weight_beside_layers(model, [z], calls) is None


def _by_layers(model: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """e `[N, D]` and J Jᵀ `[N, D, D]`, a layer at a time where that leaves nothing out."""
    with torch.enable_grad():
        with recorded(model, len(rows)) as calls:
            z = model(rows)[1]
        if not _only_through_layers(model, z, calls):
            return jacobian_grams(model, rows)
        e = normalize(z)
        edges = [call.edge for call in calls]
        found = [
            torch.autograd.grad(part.sum(), edges, retain_graph=True, allow_unused=True)
            for part in (e.unbind(1) if calls else ())
        ]
    grams = torch.zeros(*e.shape, e.shape[1], dtype=torch.float64, device=e.device)
    for call, backprops in zip(calls, zip(*found, strict=True), strict=True):
        call.check_inputs()
        like = next((b for b in backprops if b is not None), None)
        if like is not None:
            filled = [torch.zeros_like(like) if b is None else b for b in backprops]
            grams += _layer_grams(call, filled)
    return e.detach(), grams


def _layer_grams(call: LayerCall, backprops: Sequence[Tensor]) -> Tensor:
    """One layer's part of J Jᵀ `[N, D, D]`, from the derivatives of e's elements by its output."""
    layer = call.layer
    if isinstance(layer, nn.Linear) and has_ghost(layer):
        inputs, *outs = (
            each.flatten(1, -2) if each.ndim > 2 else each[:, None]
            for each in (call.inputs, *backprops)
        )
        return _products(inputs, torch.stack(outs, 1), bias=trains_bias(layer))
    if isinstance(layer, nn.Conv1d | nn.Conv2d) and has_ghost(layer) and layer.groups == 1:
        images, _, geometry = as_images(layer, call.inputs, backprops[0])
        kernel, stride, padding, dilation, _ = geometry
        patches = functional.unfold(images, kernel, dilation, padding, stride).mT
        outputs = torch.stack([b.flatten(2).mT for b in backprops], 1)
        return _products(patches, outputs, bias=trains_bias(layer))
    formed = [layer_rule(layer)(layer, [call.inputs], b) for b in backprops]
    rows, width, device = len(call.inputs), len(backprops), call.inputs.device
    grams = torch.zeros(rows, width, width, dtype=torch.float64, device=device)
    for parameter in (p for p in formed[0] if p.requires_grad):
        jacobian = torch.stack([by_row[parameter].flatten(1) for by_row in formed], 1).double()
        grams += jacobian @ jacobian.mT
    return grams


def _products(inputs_NTI: Tensor, outputs_NDTO: Tensor, *, bias: bool) -> Tensor:
    """Σₜᵤ (aₜ·aᵤ + 1)(βₜ,d·βᵤ,d') `[N, D, D]`; without the 1 where no bias is trained."""
    a, b = inputs_NTI.double(), outputs_NDTO.double()
    alike = a @ a.mT + (1.0 if bias else 0.0)
    return b.flatten(2) @ (alike[:, None] @ b).flatten(2).mT
