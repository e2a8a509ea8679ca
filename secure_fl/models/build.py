"""Models from a configuration and the shape of an example."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from secure_fl.config import ModelConfig
from secure_fl.errors import ModelError
from secure_fl.models.convnet import MLP, ConvNet, SeriesConvNet
from secure_fl.models.heads import Projector, feature_width
from secure_fl.models.norms import Norm
from secure_fl.models.resnet import FEATURES, ResNet18
from secure_fl.models.scattering import ScatteringEncoder
from secure_fl.models.view_features import WhitenedEncoder

_WIDTH, _WHITENED = 128, 512
"""Numbers of features by default."""
_AXES = {"convnet": (3,), "resnet18": (3,), "series_convnet": (2,), "scattering": (2, 3)}
"""What encoders take: axes of one example. What is not here takes any."""


def build_encoder(
    config: ModelConfig, shape: tuple[int, ...], seed: int, whitened: bool = False
) -> nn.Module:
    """An encoder `[N, *shape]` -> `[N, features]`, initialised from `seed`.

    Args:
        whitened: fixed features and a linear map of them (`WhitenedEncoder`), whatever the
            encoder that is named. Its features are the same for every seed, since they are in none
            of the files that an encoder is restored from.

    Raises:
        ModelError: the encoder named does not take this shape, or the width it is asked for.
    """
    if whitened:
        return WhitenedEncoder(shape, config.features or _WHITENED)
    kind = _kind(config, shape)
    if len(shape) not in _AXES.get(kind, (len(shape),)):
        problem = f"does not take examples of shape {shape}"
        remedy = 'set model.encoder = "auto"'
        raise ModelError(problem, field="model.encoder", value=config.encoder, remedy=remedy)
    if kind == "resnet18" and config.features not in (None, FEATURES):
        problem, field = f"resnet18 is {FEATURES} wide", "model.features"
        raise ModelError(problem, field=field, value=config.features, remedy="leave it out")
    width, norm = config.features or _WIDTH, _norm(config, kind)
    with seeded(seed):
        if kind == "resnet18":
            return ResNet18(shape[0], norm)
        if kind == "mlp":
            return MLP(shape, width, norm)
        if kind == "scattering":
            return ScatteringEncoder(shape, width, norm)
        return (ConvNet if kind == "convnet" else SeriesConvNet)(shape[0], width, norm)


def copy_of(module: nn.Module) -> nn.Module:
    """A copy of a caller's module that shares nothing with it.

    Raises:
        ModelError: it holds something that cannot be copied, such as a tensor that was computed,
            or lazy layers that have no shape yet.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(tensor):
            remedy = "call the encoder once on a batch of examples before it is passed"
            problem = "has no shape before the first call"
            raise ModelError.of_kind(problem, f"encoder.{name}", tensor, remedy)
    try:
        return copy.deepcopy(module)
    except (RuntimeError, TypeError) as error:
        remedy = (
            "use torch.nn.utils.parametrizations in place of the older weight_norm and "
            "spectral_norm, and keep no results on the module"
        )
        raise ModelError.of_kind("cannot be copied", "encoder", module, remedy) from error


def fresh_copy(module: nn.Module, seed: int) -> nn.Module:
    """A copy of a caller's module with its trainable layers initialised anew from `seed`; frozen
    layers keep their weights.

    Raises:
        ModelError: a trainable layer has no `reset_parameters`, or as `copy_of`.
    """
    copied = copy_of(module)
    with seeded(seed):
        for name, layer in copied.named_modules():
            if not any(parameter.requires_grad for parameter in layer.parameters(recurse=False)):
                continue
            reset = getattr(layer, "reset_parameters", None)
            if reset is None:
                problem = "has no way to be initialised anew"
                remedy = "give it a reset_parameters(), or pass a function `seed -> module`"
                raise ModelError.of_kind(problem, f"encoder.{name}", layer, remedy)
            reset()
    return copied


def build_projector(
    config: ModelConfig, encoder: nn.Module, shape: tuple[int, ...], seed: int
) -> nn.Module:
    """The projector on top of `encoder`, as wide as `h` unless `model.embedding` says otherwise."""
    features, norm = feature_width(encoder, shape), _norm(config, _kind(config, shape))
    embedding = config.embedding or features
    with seeded(seed):
        return Projector(features, config.projector_hidden or 4 * embedding, embedding, norm)


def build_head(features: int, classes: int, seed: int) -> nn.Linear:
    """A linear classifier on `h`."""
    with seeded(seed):
        return nn.Linear(features, classes)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """torch's global generator starts at `seed` and is put back afterwards; a GPU's likewise where
    it is the device.
    """
    gpus = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        # torch.manual_seed asks every kind of device that there could be, for half a millisecond
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


def _kind(config: ModelConfig, shape: tuple[int, ...]) -> str:
    if config.encoder != "auto":
        return config.encoder
    if len(shape) == 3:
        return "resnet18" if shape[0] == 3 and config.features in (None, FEATURES) else "convnet"
    return "series_convnet" if len(shape) == 2 else "mlp"


def _norm(config: ModelConfig, kind: str) -> Norm:
    if config.norm == "auto":
        return "batch" if kind == "resnet18" else "group"
    return config.norm
