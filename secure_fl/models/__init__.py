"""Encoders, heads, and models as flat vectors.

Public names, each imported when it is used:

- `build_encoder`: An encoder `[N, *shape]` -> `[N, features]`, initialised from `seed`.
- `build_head`: A linear classifier on `h`.
- `build_projector`: The projector on top of `encoder`; its output is as wide as `h` unless
  `model.embedding` says otherwise.
- `Classifier`: What a supervised pool is: encoder and linear head, `x` -> logits `[N, classes]`.
- `ConvNet`: Three strided 3×3 convolutions and global average pooling: `[N, C, H, W]` ->
  `[N, features]`.
- `count_parameters`: Parameters, buffers not counted.
- `EncoderProjector`: What the self-supervised phase trains: `x` -> `(h, z)`.
- `feature_width`: Width of `h`, found by passing one zero example through.
- `fresh_copy`: A copy of a caller's module with its trainable layers initialised anew from `seed`;
  frozen layers keep their weights.
- `load_vector`: Write a vector made by `to_vector` into a module of the same layout.
- `MLP`: Two hidden layers over the flattened example: `[N, ...]` -> `[N, features]`.
- `Projector`: SSD's two-layer projector, `[N, features]` -> `[N, embedding]`: Linear, norm,
  ReLU, Linear.
- `ResNet18`: `[N, C, H, W]` -> `[N, 512]`: 3×3 stem of stride 1, no max-pool, two blocks a stage.
- `SeriesConvNet`: Three strided 1-D convolutions and global average pooling: `[N, C, L]` ->
  `[N, features]`; any length.
- `to_vector`: All averaged values as one float32 vector `[P]` on the processor, copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.models.build import build_encoder as build_encoder
    from secure_fl.models.build import build_head as build_head
    from secure_fl.models.build import build_projector as build_projector
    from secure_fl.models.build import fresh_copy as fresh_copy
    from secure_fl.models.convnet import MLP as MLP
    from secure_fl.models.convnet import ConvNet as ConvNet
    from secure_fl.models.convnet import SeriesConvNet as SeriesConvNet
    from secure_fl.models.heads import Classifier as Classifier
    from secure_fl.models.heads import EncoderProjector as EncoderProjector
    from secure_fl.models.heads import Projector as Projector
    from secure_fl.models.heads import feature_width as feature_width
    from secure_fl.models.resnet import ResNet18 as ResNet18
    from secure_fl.models.state import count_parameters as count_parameters
    from secure_fl.models.state import load_vector as load_vector
    from secure_fl.models.state import to_vector as to_vector

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "build": ["build_encoder", "build_head", "build_projector", "fresh_copy"],
        "convnet": ["ConvNet", "MLP", "SeriesConvNet"],
        "heads": ["Classifier", "EncoderProjector", "Projector", "feature_width"],
        "resnet": ["ResNet18"],
        "state": ["count_parameters", "load_vector", "to_vector"],
    },
)
