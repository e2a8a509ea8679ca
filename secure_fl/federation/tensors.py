"""Tensors as bytes: safetensors, read with a typed error whatever the bytes are."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors.torch import load, save
from torch import Tensor

from secure_fl.errors import RunFolderError


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Named tensors as one safetensors file."""
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def unpack(data: bytes, *, field: str, value: str, remedy: str) -> dict[str, Tensor]:
    """The named tensors that `pack` wrote. Raises RunFolderError: the bytes are something else."""
    try:
        return load(data)
    except Exception as error:
        # safetensors and torch say nowhere what they raise for bytes that are something else
        raise RunFolderError(f"is damaged: {type(error).__name__}", field, value, remedy) from None
