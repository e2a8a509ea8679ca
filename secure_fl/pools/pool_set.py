"""K models as vectors, and what of a model is shared, pooled and frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from secure_fl.models.heads import Classifier, EncoderProjector
from secure_fl.models.state import buffer_places, load_vector, to_vector, vector_size

EncoderMode = Literal["finetune", "frozen", "shared"]
PoolModel = Classifier | EncoderProjector


@dataclass(frozen=True)
class PoolSet:
    """K pool models.

    Attributes:
        shared: `[S]`, the part averaged over all clients (the encoder, under `encoder = "shared"`;
            else empty).
        pooled: `[K, P]`, one row a pool (encoder and head under `finetune`, else the head).
    """

    shared: Tensor = field(repr=False)
    pooled: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.pooled)


@dataclass(frozen=True)
class PoolLayout:
    """How a `PoolSet`'s vectors are written into a model; a frozen encoder is in neither."""

    mode: EncoderMode

    def parts(self, model: PoolModel) -> tuple[Tensor, Tensor]:
        """(shared `[S]`, pooled `[P]`) of a model."""
        if self.mode == "finetune":
            return torch.empty(0), to_vector(model)
        return (to_vector(model.encoder) if self.mode == "shared" else torch.empty(0)), to_vector(
            model.top
        )

    def buffers(self, model: PoolModel) -> tuple[int, ...]:
        """Where floating-point buffers lie in the shared, then the pooled part, ascending."""
        if self.mode == "finetune":
            return buffer_places(model)
        shared = vector_size(model.encoder) if self.mode == "shared" else 0
        of_encoder = buffer_places(model.encoder) if self.mode == "shared" else ()
        return (*of_encoder, *(shared + place for place in buffer_places(model.top)))

    def load(self, model: PoolModel, pools: PoolSet, index: int) -> None:
        """Make `model` pool number `index`."""
        part: nn.Module = model if self.mode == "finetune" else model.top
        load_vector(part, pools.pooled[index])
        if self.mode == "shared":
            load_vector(model.encoder, pools.shared)
