"""Whether a model treats every row by itself: without that, clipping a unit's gradient does not
bound what the unit changes.

Opacus' rules are used for the layers that the tests compare with gradients formed one unit at a
time, and for no others. Its validator names layers that mix rows; batch normalisation is refused
here even where it is frozen but in training mode, because its statistics still run over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from secure_fl.errors import DependencyError, PrivacyError

Rule = Callable[[nn.Module, list[Tensor], Tensor], dict[nn.Parameter, Tensor]]
"""(layer, inputs, output's gradient) -> rows' gradients, each `[N, *parameter.shape]`."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_LAYERS: tuple[type[nn.Module], ...] = (nn.Linear, *_CONVOLUTIONS, *_NORMS, nn.Embedding)

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def check_separable(model: nn.Module) -> None:
    """Refuse what is known to mix rows, and trainable layers without a rule.

    Raises:
        PrivacyError: names the layer and what to put in its place.
        DependencyError: Opacus is not installed.
    """
    for name, layer in model.named_modules():
        over_batch = isinstance(layer, _BatchNorm) or getattr(layer, "track_running_stats", False)
        if isinstance(layer, _NormBase) and layer.training and over_batch:
            problem = "takes statistics over the batch, so that examples change each other"
            remedy = 'set model.norm = "group"; a frozen encoder must be in eval mode'
            raise PrivacyError(problem, name, _kind(layer), remedy)
        if not any(p.requires_grad for p in layer.parameters(recurse=False)):
            continue
        for problem, remedy in _problems(layer):
            raise PrivacyError(problem, name or "model", _kind(layer), remedy)


def is_separable(model: nn.Module) -> bool:
    """Whether `check_separable` lets the model pass."""
    try:
        check_separable(model)
    except PrivacyError:
        return False
    return True


def layer_rule(layer: nn.Module) -> Rule:
    """Opacus' rule for a layer that `check_separable` let pass."""
    return _registry()[0][type(layer)]


def check_rows_stay_apart(rows: int, *tensors: Tensor) -> None:
    """Refuse tensors whose first axis does not have one place a row. How many rows there are is
    secret, and not in the message.

    Raises:
        PrivacyError: naming the shape found, without its first axis.
    """
    for tensor in tensors:
        if tensor.ndim < 2 or len(tensor) != rows:
            problem = "rows cannot be told apart inside it"
            remedy = "keep the batch as first axis of [N, ...] in all that trainable layers take"
            raise PrivacyError(problem, "model", ("N", *tensor.shape[1:]), remedy)


def _problems(layer: nn.Module) -> Iterator[tuple[str, str]]:
    """(problem, remedy) of a trainable layer."""
    rules, validators = _registry()
    if type(layer) not in _LAYERS or type(layer) not in rules:
        known = ", ".join(kind.__name__ for kind in _LAYERS)
        yield "has weights and no rule for a row's gradient", f"build it of {known}, or freeze it"
    if extra := ", ".join(sorted(set(layer._parameters) - {"weight", "bias"})):
        yield (
            f"makes its weight of others ({extra}), whose gradients the rule does not form",
            "remove the reparametrisation, or freeze it",
        )
    if "forward" in vars(layer) or any(vars(layer)[hooks] for hooks in HOOKS):
        yield "has hooks or a forward of its own", "remove them while it is trained privately"
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        yield "is padded as Opacus' rule is not", 'use padding_mode = "zeros", or pad before it'
    if isinstance(layer, nn.LayerNorm) and getattr(layer, "bias", None) is None:
        yield "has no bias, which Opacus' rule needs", "use bias = True"
    if isinstance(layer, nn.Embedding) and (
        layer.max_norm is not None or layer.scale_grad_by_freq or layer.padding_idx is not None
    ):
        yield (
            "changes its weights or gradients by which rows are there",
            "leave out max_norm, scale_grad_by_freq and padding_idx",
        )
    for error in validators[type(layer)](layer) if type(layer) in validators else ():
        yield (
            f"is refused by Opacus: {error}",
            'set model.norm = "group", or use the layer of opacus.layers that stands in for it',
        )


@cache
def _registry() -> tuple[
    dict[type[nn.Module], Rule], dict[type[nn.Module], Callable[[nn.Module], list[Any]]]
]:
    """Opacus' rules and validators; imported when first needed, since that takes three seconds."""
    try:
        from opacus.grad_sample import GradSampleModule
        from opacus.validators import ModuleValidator
    except ImportError:
        problem = "example-level privacy needs it"
        raise DependencyError(problem, "opacus", "not installed", "pip install opacus") from None
    return GradSampleModule.GRAD_SAMPLERS, ModuleValidator.VALIDATORS


def _kind(layer: nn.Module) -> str:
    return type(layer).__name__
