"""What a caller passes to `Federation`, checked and brought into one form before a run begins.

Errors name the argument and the kind of what was found there. A caller's own code is tried on
noise; of what it raises only the class and the line are told, since messages of torch's say how
many examples a batch holds.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from secure_fl.callbacks.base import Callback
from secure_fl.config import FederationConfig
from secure_fl.config_file import load_config
from secure_fl.data.augmentations import KeyedAugmentation
from secure_fl.data.views import Augmentation, batch_views, build_views
from secure_fl.errors import ConfigError, ModelError, SecureFLError
from secure_fl.models.build import build_encoder, copy_of, fresh_copy, seeded
from secure_fl.models.heads import feature_width
from secure_fl.paths import path_of

_ROWS = 4
"""Examples of noise that an encoder is tried on: normalisation by the batch needs two."""


def as_config(config: object) -> FederationConfig:
    """The configuration: as it is, from a mapping of tables, or from the path of a TOML file; the
    default where None is given.

    Raises:
        ConfigError: something else, or a setting that is refused.
    """
    if config is None:
        return FederationConfig()
    if isinstance(config, FederationConfig):
        return config
    if isinstance(config, Mapping) and all(isinstance(name, str) for name in config):
        return FederationConfig(**config)
    if isinstance(config, str | os.PathLike):
        return load_config(path_of(config, "config"))
    remedy = "pass a FederationConfig, a dict of its tables, or the path of a TOML file"
    raise ConfigError(
        "is no configuration", field="config", value=type(config).__name__, remedy=remedy
    )


def as_callbacks(callbacks: object) -> list[Callback]:
    """The callbacks as a list; a single one may come by itself.

    Raises:
        ConfigError: one is no `Callback`, or a class in place of its instance.
    """
    given = (
        [callbacks] if isinstance(callbacks, Callback) else () if callbacks is None else callbacks
    )
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        raise ConfigError(
            "are no callbacks",
            field="callbacks",
            value=type(given).__name__,
            remedy="pass a list of secure_fl.Callback instances",
        )
    found = []
    for number, callback in enumerate(given):
        if not isinstance(callback, Callback):
            kind = (
                f"the class {callback.__name__}"
                if isinstance(callback, type)
                else type(callback).__name__
            )
            remedy = "pass an instance of a subclass of secure_fl.Callback"
            raise ConfigError(
                "is no callback", field=f"callbacks[{number}]", value=kind, remedy=remedy
            )
        found.append(callback)
    return found


def as_folder(out: object, *, resume: object) -> Path | None:
    """The folder of a run; None where nothing is written.

    Raises:
        ConfigError: no path, or a run without a folder that is to be resumed.
    """
    if not isinstance(resume, bool):
        raise ConfigError(
            "is neither True nor False",
            field="resume",
            value=type(resume).__name__,
            remedy="pass run(folder, resume=True)",
        )
    if out is None and resume:
        raise ConfigError(
            "there is no folder to resume",
            field="out",
            value=None,
            remedy="pass the folder of the run that was interrupted",
        )
    return None if out is None else path_of(out, "out")


def encoder_maker(
    encoder: object, config: FederationConfig, shape: tuple[int, ...]
) -> Callable[[int], nn.Module]:
    """seed -> a fresh encoder: of the configuration's, a copy of the caller's initialised anew, or
    what the caller's function makes.

    Raises:
        ModelError: no module and no function that makes one, or it does not work on noise in the
            examples' shape.
    """
    if encoder is None:
        return lambda seed: build_encoder(config.model, shape, seed)
    remedy = (
        "pass an nn.Module that maps [N, *shape] to [N, features], or a function `seed -> module`"
    )
    if isinstance(encoder, type):
        raise ModelError(
            "is a class",
            field="encoder",
            value=encoder.__name__,
            remedy=f"pass {encoder.__name__}(), or a function `seed -> module`",
        )
    if not isinstance(encoder, nn.Module) and not callable(encoder):
        raise ModelError(
            "is no module", field="encoder", value=type(encoder).__name__, remedy=remedy
        )
    maker = (
        partial(fresh_copy, encoder) if isinstance(encoder, nn.Module) else partial(_made, encoder)
    )
    _try_encoder(maker, shape)
    return maker


def augmentation(augment: object, config: FederationConfig, shape: tuple[int, ...]) -> Augmentation:
    """The configuration's views, or the caller's augmentation, tried on noise where the run
    makes views.

    Raises:
        ConfigError: no function, or one that does not return a view of each example.
    """
    if augment is None:
        return build_views(config.views, shape)
    remedy = (
        "pass a function that takes a batch [N, *shape] and returns it changed, or an object with "
        "`changed(x, draws)`"
    )
    if isinstance(augment, type):
        raise ConfigError(
            "is a class",
            field="augment",
            value=augment.__name__,
            remedy=f"pass {augment.__name__}(...), an instance",
        )
    if not isinstance(augment, KeyedAugmentation) and not callable(augment):
        raise ConfigError(
            "is no function", field="augment", value=type(augment).__name__, remedy=remedy
        )
    if config.augments:
        # Private training gives it one example at a time.
        batch_views(
            augment, _noise(1 if config.privacy.unit == "example" else 2, shape), config.seed
        )
    return augment


@contextmanager
def encoder_named(own: bool) -> Iterator[None]:
    """Within it, what the caller's `own` encoder raises on some batch comes as an error that names
    the encoder, and says nothing of the batch.

    Raises:
        ModelError: in place of an exception that passed through a module, and through no callback.
    """
    try:
        yield
    except SecureFLError:
        raise
    except Exception as error:
        callers = [
            frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)
        ]
        modules = [caller for caller in callers if isinstance(caller, nn.Module)]
        if not own or not modules or any(isinstance(caller, Callback) for caller in callers):
            raise
        remedy = (
            "mend it: it must take batches of any number of examples in both "
            "modes; the run can be resumed"
        )
        kind = type(modules[-1]).__name__
        raise ModelError(
            f"raises {type(error).__name__} on a batch of examples",
            field="encoder",
            value=kind,
            remedy=remedy,
        ) from None


def _made(make: Callable[[int], object], seed: int) -> nn.Module:
    """What a caller's function makes, copied, so that two calls share nothing."""
    remedy = "return an nn.Module that maps [N, *shape] to [N, features]"
    try:
        module = make(seed)
    except SecureFLError:
        raise
    except Exception as error:
        raise ModelError(
            f"called with a seed, raises {type(error).__name__}: {error}",
            field="encoder",
            value=_name(make),
            remedy=remedy,
        ) from error
    if not isinstance(module, nn.Module):
        raise ModelError(
            "called with a seed, returns no module",
            field="encoder",
            value=type(module).__name__,
            remedy=remedy,
        )
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
            raise ModelError(
                f"raises {type(error).__name__} in {mode} mode: {error}",
                field="encoder",
                value=kind,
                remedy=remedy,
            ) from error
        if not isinstance(h, Tensor) or h.shape != (_ROWS, width) or not h.is_floating_point():
            raise ModelError(
                f"does not return a row of features for each example in {mode} mode",
                field="encoder",
                value=_described(h),
                remedy=remedy,
            )
    trained = any(parameter.requires_grad for parameter in module.parameters())
    if trained and not h.requires_grad:
        remedy = "compute its output without no_grad, detach, argmax and the like"
        raise ModelError(
            "has weights to train, which no gradient reaches",
            field="encoder",
            value=kind,
            remedy=remedy,
        )


def _noise(rows: int, shape: tuple[int, ...]) -> Tensor:
    """`[rows, *shape]` within [0, 1)."""
    return torch.rand(rows, *shape, generator=torch.Generator().manual_seed(rows))


def _name(function: object) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _described(value: object) -> str:
    return (
        f"{value.dtype} of {value.ndim} axes" if isinstance(value, Tensor) else type(value).__name__
    )
