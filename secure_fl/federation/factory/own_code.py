"""A caller's own encoder and augmentation, brought into one form and tried on noise.

Errors name the argument and the kind of what was found there. What a caller's code raises on noise
says nothing of examples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from secure_fl.config import FederationConfig
from secure_fl.data.augmentations import KeyedAugmentation
from secure_fl.data.views import Augmentation, batch_views, build_views
from secure_fl.errors import ConfigError, ModelError, SecureFLError
from secure_fl.models.build import build_encoder, copy_of, fresh_copy, seeded
from secure_fl.models.heads import feature_width

_ROWS = 4
"""Examples of noise that an encoder is tried on: normalisation by the batch needs two."""


def encoder_maker(
    encoder: object, config: FederationConfig, shape: tuple[int, ...]
) -> Callable[[int], nn.Module]:
    """seed -> a fresh encoder: of the configuration's, a copy of the caller's initialised anew, or
    what the caller's function makes. Raises ModelError: no module and no function that makes one,
    or it does not work on noise in the examples' shape.
    """
    moments = config.pretrain.method == "view_moments"
    if encoder is None:
        return lambda seed: build_encoder(config.model, shape, seed, whitened=moments)
    if moments:
        problem = "view moments bring their own encoder"
        remedy = 'leave it out, or set pretrain.method = "train"'
        raise ModelError(problem, "encoder", type(encoder).__name__, remedy)
    remedy = "pass an nn.Module that maps [N, *shape] to [N, features], or `seed -> module`"
    if isinstance(encoder, type):
        remedy = f"pass {encoder.__name__}(), or a function `seed -> module`"
        raise ModelError("is a class", "encoder", encoder.__name__, remedy)
    if not isinstance(encoder, nn.Module) and not callable(encoder):
        raise ModelError("is no module", "encoder", type(encoder).__name__, remedy)
    maker = partial(_made, encoder)
    if isinstance(encoder, nn.Module):
        maker = partial(fresh_copy, encoder)
    _try_encoder(maker, shape)
    return maker


def augmentation(augment: object, config: FederationConfig, shape: tuple[int, ...]) -> Augmentation:
    """The configuration's views, or the caller's augmentation, tried on noise where the run makes
    views. Raises ConfigError: no function, or one that does not return a view of each example, in
    double precision too where the prior of view moments is made of such.
    """
    if augment is None:
        return build_views(config.own_views, shape)
    remedy = "pass a function of a batch [N, *shape], or an object with `changed(x, draws)`"
    if isinstance(augment, type):
        remedy = f"pass {augment.__name__}(...), an instance"
        raise ConfigError("is a class", "augment", augment.__name__, remedy)
    if not isinstance(augment, KeyedAugmentation) and not callable(augment):
        raise ConfigError("is no function", "augment", type(augment).__name__, remedy)
    if config.augments:
        # Private training gives it one example at a time.
        noise = _noise(1 if config.privacy.unit == "example" else 2, shape)
        batch_views(augment, noise, config.seed)
        if config.pretrain.sums_moments and config.pretrain.prior == "synthetic":
            _try_in_double(augment, noise.double(), config.seed)
    return augment


def _try_in_double(augment: Augmentation, noise: Tensor, seed: int) -> None:
    """The prior of view moments is made so, and only once all clients have been charged."""
    try:
        batch_views(augment, noise, seed)
    except ConfigError as error:
        problem = f"on examples in double precision, of which the prior is made, {error.problem}"
        remedy = 'compute in the precision that is given, or set pretrain.prior = "none"'
        raise ConfigError(problem, "augment", error.value, remedy) from None


def _made(make: Callable[[int], object], seed: int) -> nn.Module:
    """What a caller's function makes, copied, so that two calls share nothing."""
    remedy = "return an nn.Module that maps [N, *shape] to [N, features]"
    try:
        module = make(seed)
    except SecureFLError:
        raise
    except Exception as error:
        problem = f"called with a seed, raises {type(error).__name__}: {error}"
        name = str(getattr(make, "__name__", type(make).__name__))
        raise ModelError(problem, "encoder", name, remedy) from error
    if not isinstance(module, nn.Module):
        problem = "called with a seed, returns no module"
        raise ModelError(problem, "encoder", type(module).__name__, remedy)
    return copy_of(module)


def _try_encoder(make: Callable[[int], nn.Module], shape: tuple[int, ...]) -> None:
    """One batch of noise forwards, in both modes."""
    module = make(0)
    width, kind = feature_width(module, shape), type(module).__name__
    remedy = f"return float32 [N, {width}] for [N, {', '.join(map(str, shape))}], whatever N is"
    for mode in ("eval", "train"):
        module.train(mode == "train")
        try:
            with seeded(0):
                h = module(_noise(_ROWS, shape))
        except Exception as error:
            problem = f"raises {type(error).__name__} in {mode} mode: {error}"
            raise ModelError(problem, "encoder", kind, remedy) from error
        if not isinstance(h, Tensor) or h.shape != (_ROWS, width) or not h.is_floating_point():
            problem = f"does not return a row of features for each example in {mode} mode"
            raise ModelError(problem, "encoder", _described(h), remedy)
    trained = any(parameter.requires_grad for parameter in module.parameters())
    if trained and not h.requires_grad:
        remedy = "compute its output without no_grad, detach, argmax and the like"
        raise ModelError("has weights to train, which no gradient reaches", "encoder", kind, remedy)


def _noise(rows: int, shape: tuple[int, ...]) -> Tensor:
    """`[rows, *shape]` within [0, 1)."""
    return torch.rand(rows, *shape, generator=torch.Generator().manual_seed(rows))


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of {value.ndim} axes"
    return type(value).__name__
