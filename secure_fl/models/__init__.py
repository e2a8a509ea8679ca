"""Encoders, heads, and models as flat vectors.

Public names, each imported when it is used; their docstrings say the rest:

- made from a configuration and a seed: `build_encoder`, `build_projector`, `build_head`,
  `fresh_copy` (of a caller's module);
- encoders: `ConvNet`, `ResNet18`, `SeriesConvNet`, `MLP`, and on the fixed front-end `Scattering`
  `ScatteringEncoder`, and `WhitenedEncoder` with its `ViewFeatures`;
- with what sits on them: `EncoderProjector`, `Projector`, `Classifier`, `feature_width`;
- as vectors: `to_vector`, `load_vector`, `count_parameters`.
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
    from secure_fl.models.scattering import Scattering as Scattering
    from secure_fl.models.scattering import ScatteringEncoder as ScatteringEncoder
    from secure_fl.models.state import count_parameters as count_parameters
    from secure_fl.models.state import load_vector as load_vector
    from secure_fl.models.state import to_vector as to_vector
    from secure_fl.models.view_features import ViewFeatures as ViewFeatures
    from secure_fl.models.view_features import WhitenedEncoder as WhitenedEncoder

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "build": ["build_encoder", "build_head", "build_projector", "fresh_copy"],
        "convnet": ["ConvNet", "MLP", "SeriesConvNet"],
        "heads": ["Classifier", "EncoderProjector", "Projector", "feature_width"],
        "resnet": ["ResNet18"],
        "scattering": ["Scattering", "ScatteringEncoder"],
        "state": ["count_parameters", "load_vector", "to_vector"],
        "view_features": ["ViewFeatures", "WhitenedEncoder"],
    },
)
