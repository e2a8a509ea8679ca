"""The public features of view moments, and the linear map that is put on them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from secure_fl.config import ModelConfig
from secure_fl.data.synthetic import synthetic_examples
from secure_fl.models.build import build_encoder
from secure_fl.models.state import count_parameters, load_vector, to_vector, vector_size
from secure_fl.models.view_features import ViewFeatures, WhitenedEncoder

SHAPES = [(1, 28, 28), (3, 16, 16), (2, 60), (9,), (1,)]


@pytest.mark.parametrize("shape", SHAPES)
def test_features_are_unit_vectors_that_nobody_trains(shape: tuple[int, ...]) -> None:
    features = ViewFeatures(shape, 64)
    h = features(synthetic_examples(shape, 70))
    assert h.shape == (70, features.width) == (70, 64)
    assert h.dtype == torch.float32
    assert float((h.norm(dim=1) - 1).abs().max()) < 1e-6
    assert not list(features.parameters())
    assert not features.state_dict()
    assert vector_size(features) == 0


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_example_in_which_nothing_is_has_length_1_too(
    shape: tuple[int, ...], value: float
) -> None:
    h = ViewFeatures(shape, 64)(torch.full((2, *shape), value))
    torch.testing.assert_close(h.norm(dim=1), torch.ones(2))


def test_they_are_centred_rectified_random_projections_of_the_front_end() -> None:
    features, x = ViewFeatures((1, 28, 28), 512).double(), synthetic_examples((1, 28, 28), 40)
    s = features.front(x.double())
    projected = s @ features.directions_FS.T + features.offsets_F
    deviations = projected.std(1, keepdim=True, correction=0)
    raised = ((projected - projected.mean(1, keepdim=True)) / deviations).clamp(min=0) - 0.4
    expected = raised / raised.norm(dim=1, keepdim=True)
    torch.testing.assert_close(features(x.double()), expected, atol=1e-6, rtol=0)
    assert abs(float(raised.mean())) < 0.01


def test_the_seed_decides_on_the_directions_and_nothing_else_does() -> None:
    state, x = torch.get_rng_state(), torch.rand(3, 1, 8, 8)
    first = ViewFeatures((1, 8, 8), 32, seed=1)
    torch.manual_seed(5)
    again, other = ViewFeatures((1, 8, 8), 32, seed=1), ViewFeatures((1, 8, 8), 32, seed=2)
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))
    torch.set_rng_state(state)
    ViewFeatures((1, 8, 8), 32)
    assert torch.equal(torch.get_rng_state(), state)


def test_lengths_of_vectors_are_told_apart() -> None:
    x = torch.tensor([[0.5, -1.0], [1.0, -2.0], [3.0, -6.0]])
    assert float(torch.pdist(ViewFeatures((2,), 64)(x)).min()) > 0.05


@settings(max_examples=20)
@given(
    shape=st.sampled_from([(1, 28, 28), (2, 40), (5,)]),
    rows=st.integers(1, 200),
    kept=st.integers(0, 199),
    beside=st.sampled_from([0.5, torch.nan, 1e30]),
)
def test_a_row_is_a_function_of_itself_to_the_last_bit(
    shape: tuple[int, ...], rows: int, kept: int, beside: float
) -> None:
    features, place = ViewFeatures(shape, 512), kept % rows
    example = torch.rand(1, *shape, generator=torch.Generator().manual_seed(kept))
    batch = torch.full((rows, *shape), beside)
    batch[place] = example
    assert torch.equal(features(batch)[place], features(example)[0])


def test_mixed_precision_does_not_reach_the_features() -> None:
    features, x = ViewFeatures((1, 12, 12), 48), synthetic_examples((1, 12, 12), 9)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = features(x)
    assert torch.equal(mixed, features(x))


def test_a_fresh_encoder_is_its_features_and_a_written_one_the_formula() -> None:
    x = synthetic_examples((1, 12, 12), 9)
    encoder = WhitenedEncoder((1, 12, 12), 48, out=7)
    h = encoder.features(x)
    torch.testing.assert_close(WhitenedEncoder((1, 12, 12), 48)(x), h)
    assert encoder(x).shape == (9, 7)
    generator = torch.Generator().manual_seed(0)
    written = torch.randn(48 + 48 * 7, generator=generator)
    load_vector(encoder, written)
    assert torch.equal(to_vector(encoder), written)
    centre, whitening = written[:48], written[48:].view(48, 7)
    torch.testing.assert_close(encoder(x), functional.normalize(h - centre) @ whitening)


def test_only_centre_and_whitening_travel_and_any_seed_restores_them() -> None:
    """The files of a finished run hold no seed."""
    first, second = (
        build_encoder(ModelConfig(features=32), (1, 8, 8), seed, whitened=True) for seed in (3, 0)
    )
    assert list(first.state_dict()) == ["centre", "whitening"]
    assert count_parameters(first) == vector_size(first) == 32 + 32 * 32
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(first(x), second(x))
    default = build_encoder(ModelConfig(), (1, 8, 8), 0, whitened=True)
    assert default(x).shape == (5, 512)
