"""Models as flat float32 vectors: what is averaged, in which order, and what stays at home.

Averaged: parameters with `requires_grad`, and floating-point buffers (a BatchNorm's running mean
and variance). Not averaged: frozen parameters, which keep the value every party started from, and
integer buffers (a BatchNorm's batch counter), which start as they were made each time a client is
called, as momentum does.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from secure_fl.errors import ModelError


def averaged_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of all that is averaged, in `state_dict` order, in the module's memory."""
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    parameters = {name for name, _ in module.named_parameters()}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if name in trained or (name not in parameters and tensor.is_floating_point()):
            yield name, tensor.detach()


def buffer_places(module: nn.Module) -> tuple[int, ...]:
    """Where floating-point buffers, in the data's units, lie in `to_vector(module)`."""
    parameters, places, start = {name for name, _ in module.named_parameters()}, list[int](), 0
    for name, tensor in averaged_tensors(module):
        if name not in parameters:
            places += range(start, start + tensor.numel())
        start += tensor.numel()
    return tuple(places)


def moving_buffers(module: nn.Module, x: Tensor) -> list[str]:
    """Names of floating-point buffers that training on `x` moves, found by a pass of a copy."""
    tried = copy.deepcopy(module).train()
    buffers = {name: each for name, each in tried.named_buffers() if each.is_floating_point()}
    before = {name: each.clone() for name, each in buffers.items()}
    with torch.no_grad():
        tried(x)
    after = dict(tried.named_buffers())
    return [name for name, each in before.items() if not torch.equal(each, after[name])]


def vector_size(module: nn.Module) -> int:
    """Number of values in `to_vector(module)`."""
    return sum(tensor.numel() for _, tensor in averaged_tensors(module))


def to_vector(module: nn.Module) -> Tensor:
    """All averaged values as one float32 vector `[P]` on the processor, copied."""
    parts = [tensor.reshape(-1).to("cpu", torch.float32) for _, tensor in averaged_tensors(module)]
    return torch.cat(parts) if parts else torch.empty(0)


def load_vector(module: nn.Module, vector: Tensor) -> None:
    """Write a vector made by `to_vector` into a module of the same layout.

    Raises:
        ModelError: the lengths differ.
    """
    size = vector_size(module)
    if vector.shape != (size,):
        problem = f"does not fit a model of {size} averaged values"
        remedy = "use the same model on all sides"
        raise ModelError(problem, field="vector", value=tuple(vector.shape), remedy=remedy)
    start = 0
    for _, tensor in averaged_tensors(module):
        tensor.copy_(vector[start : start + tensor.numel()].reshape(tensor.shape))
        start += tensor.numel()


def integer_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the buffers that are not averaged."""
    buffers = module.named_buffers()
    return {name: each.clone() for name, each in buffers if not each.is_floating_point()}


def set_buffers(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Write copies made by `integer_buffers` back."""
    for name, buffer in module.named_buffers():
        if name in values:
            buffer.copy_(values[name])


def count_parameters(module: nn.Module) -> int:
    """Parameters, buffers not counted."""
    return sum(parameter.numel() for parameter in module.parameters())
