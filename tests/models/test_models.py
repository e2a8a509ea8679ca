"""Encoders, heads and models as vectors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secure_fl.config import ModelConfig
from secure_fl.errors import ModelError
from secure_fl.models.build import build_encoder, build_projector, copy_of, fresh_copy
from secure_fl.models.heads import feature_width
from secure_fl.models.norms import norm_layer
from secure_fl.models.state import averaged_tensors, count_parameters, load_vector, to_vector


def test_the_papers_sizes() -> None:
    encoder = build_encoder(ModelConfig(), (3, 32, 32), 0)
    projector = build_projector(ModelConfig(), encoder, (3, 32, 32), 0)
    assert count_parameters(encoder) == 11_168_832
    assert count_parameters(projector) == 2_103_808
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in encoder.modules())


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("resnet18", (3, 16, 16)),
        ("convnet", (1, 28, 28)),
        ("convnet", (1, 8, 8)),
        ("series_convnet", (4, 37)),
        ("mlp", (1, 8, 8)),
        ("mlp", (30,)),
        ("scattering", (3, 16, 16)),
        ("scattering", (4, 37)),
        ("auto", (1,)),
    ],
)
def test_every_encoder_has_both_norms_and_returns_features(
    kind: str, shape: tuple[int, ...], norm: str
) -> None:
    config = ModelConfig(encoder=kind, norm=norm)
    encoder = build_encoder(config, shape, 0)
    width = feature_width(encoder, shape)
    assert encoder(torch.rand(3, *shape)).shape == (3, width)
    batch_layers = [
        layer for layer in encoder.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    ]
    assert bool(batch_layers) == (norm == "batch")
    h = encoder(torch.rand(4, *shape))
    assert build_projector(config, encoder, shape, 0)(h).shape == (4, width)


@pytest.mark.parametrize(
    ("shape", "layer"),
    [((3, 8, 8), nn.Conv2d), ((1, 8, 8), nn.Conv2d), ((2, 40), nn.Conv1d), ((9,), nn.Linear)],
)
def test_auto_fits_the_shape(shape: tuple[int, ...], layer: type[nn.Module]) -> None:
    assert any(
        isinstance(module, layer) for module in build_encoder(ModelConfig(), shape, 0).modules()
    )


@pytest.mark.parametrize("features", [16, 64, 128])
@pytest.mark.parametrize("columns", [1, 2, 3, 500])
def test_an_encoder_of_vectors_of_any_length_tells_them_apart_by_more_than_direction(
    columns: int, features: int
) -> None:
    """Normalised features of x and 3x were equal without a bias, and of one column only the sign
    was left.
    """
    encoder = build_encoder(ModelConfig(features=features), (columns,), 0).eval()
    x = torch.tensor([[0.1], [0.5], [1.0], [3.0]]).expand(4, columns)
    h = encoder(x).detach()
    assert h.shape == (4, features)
    assert float(torch.pdist(h).min()) > 0.02 * float(h.norm(dim=1).max())
    assert float((h.std(0) > 0).float().mean()) > 0.5


def test_seeds_decide_and_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (
        to_vector(build_encoder(ModelConfig(), (1, 8, 8), seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (ModelConfig(encoder="convnet"), (4, 50), "does not take examples"),
        (ModelConfig(encoder="series_convnet"), (1, 8, 8), "does not take examples"),
        (ModelConfig(encoder="resnet18", features=64), (3, 8, 8), "512 wide"),
    ],
)
def test_refusals(config: ModelConfig, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_encoder(config, shape, 0)


def test_foreign_encoders_are_checked() -> None:
    with pytest.raises(ModelError, match="cannot take an example"):
        feature_width(nn.Conv2d(3, 4, 3), (1, 8, 8))

    class Asserts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("not mine")

    with pytest.raises(ModelError, match="cannot take an example"):
        feature_width(Asserts(), (1, 8, 8))
    with pytest.raises(ModelError, match=r"\[N, features\]"):
        feature_width(nn.Conv2d(1, 4, 3), (1, 8, 8))


def test_vectors_round_trip() -> None:
    config = ModelConfig(norm="batch")
    first, second = build_encoder(config, (1, 8, 8), 0), build_encoder(config, (1, 8, 8), 1)
    first(torch.rand(5, 1, 8, 8))
    load_vector(second, to_vector(first))
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(first.eval()(x), second.eval()(x))
    with pytest.raises(ModelError, match="does not fit"):
        load_vector(second, torch.zeros(3))


@pytest.mark.parametrize(
    ("channels", "dimensions"), [(4, 2), (8, 2), (16, 1), (8, 0), (16, 0), (32, 0), (24, 2), (7, 2)]
)
def test_group_norm_keeps_enough_channels_a_group(channels: int, dimensions: int) -> None:
    layer = norm_layer("group", channels, dimensions)
    assert isinstance(layer, nn.GroupNorm)
    per_group = channels // layer.num_groups
    assert per_group >= min(channels, 8 if dimensions == 0 else 4)


def test_narrow_encoders_still_tell_examples_apart() -> None:
    for kind, shape in (("mlp", (30,)), ("convnet", (1, 8, 8)), ("series_convnet", (2, 40))):
        h = build_encoder(ModelConfig(encoder=kind, features=16), shape, 0)(torch.rand(20, *shape))
        assert h.std(0).max() > 0.05, kind


def test_what_is_averaged() -> None:
    """Trained parameters and running statistics are; frozen parameters and batch counters
    are not.
    """
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model[2].requires_grad_(False)
    names = [name for name, _ in averaged_tensors(model)]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
    frozen = model[2].weight.clone()
    load_vector(model, torch.zeros(len(to_vector(model))))
    assert torch.equal(model[2].weight, frozen)
    assert model[0].weight.abs().max() == 0


def test_copies_of_foreign_modules_are_initialised_anew_but_for_frozen_layers() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    module[2].requires_grad_(False)
    first, again, other = (fresh_copy(module, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert torch.equal(first[2].weight, module[2].weight)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    with pytest.raises(ModelError, match=r"initialised anew.*reset_parameters"):
        fresh_copy(nn.Sequential(Own()), 0)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_what_cannot_be_copied_is_refused_by_name() -> None:
    """The older weight_norm keeps a computed weight on the layer."""
    with pytest.raises(ModelError, match="cannot be copied"):
        copy_of(nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 2))))
