"""The wavelet front-end: against Kymatio, and what makes it worth having."""

from __future__ import annotations

from math import pi
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from secure_fl.config import ModelConfig
from secure_fl.data.synthetic import synthetic_examples
from secure_fl.errors import ModelError
from secure_fl.models.build import build_encoder
from secure_fl.models.scattering import Scattering, ScatteringEncoder
from secure_fl.models.state import count_parameters, vector_size

Array = NDArray[np.float64]

WIDTHS = {
    (1, 28, 28): (1 + 2 * 8) * 16,
    (3, 32, 32): 3 * (1 + 3 * 8) * 16,
    (1, 8, 8): (1 + 8) * 16,
    (1, 64, 20): (1 + 2 * 8) * 16,
    (2, 1, 3): 2 * (1 + 8) * 3,
    (1, 128): (1 + 4 * 2) * 8,
    (3, 5): 3 * (1 + 2) * 5,
    (7,): 7,
}


@pytest.mark.parametrize(("shape", "width"), WIDTHS.items())
def test_every_shape_of_example_has_its_width(shape: tuple[int, ...], width: int) -> None:
    front = Scattering(shape)
    assert front.width == width
    numbers = front(torch.rand(3, *shape))
    assert numbers.shape == (3, width)
    assert front(torch.rand(0, *shape)).shape == (0, width)
    if len(shape) > 1:
        assert float(numbers.mean(1).abs().max()) < 1e-5
        assert float((numbers.std(1, correction=0) - 1).abs().max()) < 1e-3


def test_vectors_pass_as_they_are() -> None:
    x = torch.rand(5, 7)
    assert torch.equal(Scattering((7,))(x), x)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ModelError, match="no image, series or vector"):
        Scattering((1, 2, 3, 4))
    with pytest.raises(ModelError, match="does not take examples"):
        build_encoder(ModelConfig(encoder="scattering"), (9,), 0)


def averaging(apart: Array, step: int, deviation: float) -> Array:
    """Weights of samples at multiples of a step, by their distances from where a Gaussian lies; its
    spectrum is cut at the highest frequency that such samples have.
    """
    frequencies = np.linspace(-pi / step, pi / step, 401)
    spectrum = np.exp(-((frequencies * deviation) ** 2) / 2)
    weights: Array = (np.cos(apart[..., None] * frequencies) * spectrum).sum(-1)
    return weights / weights.sum(1, keepdims=True)


def golden() -> dict[str, Array]:
    """First-order coefficients by Kymatio 0.3.0 (`Scattering2D(J=2, shape=(64, 64), L=8)` and
    `Scattering1D(J=4, shape=1024, Q=2)`), away from the sides: there it mirrors otherwise.
    """
    with np.load(Path(__file__).with_name("kymatio_golden.npz")) as stored:
        return {name: stored[name].astype(np.float64) for name in stored.files}


def test_images_as_kymatio_has_them() -> None:
    """With wavelets that are not cut short. What is left is Kymatio's single precision."""
    i, j = np.mgrid[:64, :64]
    x = ((31 * i * i + 17 * i * j + 13 * j * j + 7 * i) % 101) / 101
    front = Scattering((1, 64, 64), reach=5).double()
    places = 4.0 * np.arange(5, 11)
    for octave, moduli in enumerate(front.moduli(torch.tensor(x)[None, None])[:2]):
        apart = places[:, None] - np.arange(0, 64, 2**octave)
        weights = averaging(apart, 2**octave, 1.6)
        found = np.einsum("ah,khw,bw->kab", weights, moduli[0, 0].numpy(), weights)
        theirs = golden()["image"][1 + 8 * octave :][:8]
        np.testing.assert_allclose(np.roll(found, -1, axis=0), theirs, atol=1e-4)


def test_series_as_kymatio_has_them() -> None:
    """The first octave to its single precision. Coarser ones are sampled half as often here, which
    shows in the fourth digit; and its averages of samples at every 2nd or 4th place are a half or a
    quarter of what they are called, which is undone.
    """
    n = np.arange(1024)
    t = ((n**3 + 29 * n**2 + 3 * n) % 97) / 97 + np.sin(n**2 / 700)
    front = Scattering((1, 1024), reach=5).double()
    places, deviation = 16.0 * np.arange(16, 48), 16 / (0.2 * pi)
    for octave, moduli in enumerate(front.moduli(torch.tensor(t)[None, None])[:4]):
        apart = places[:, None] - np.arange(0, 1024, 2**octave)
        weights = np.exp(-((apart / deviation) ** 2) / 2)
        found = moduli[0, 0].numpy() @ (weights / weights.sum(1, keepdims=True)).T
        theirs = golden()["series"][1 + 2 * octave :][:2] * max(1, 2 ** (octave - 1))
        np.testing.assert_allclose(found, theirs, atol=1e-6 if octave == 0 else 1e-3)


@pytest.mark.parametrize("shape", [(1, 33, 33), (2, 101)])
def test_moduli_never_tell_two_examples_further_apart_than_a_little(shape: tuple[int, ...]) -> None:
    """‖U x − U y‖² ≤ A ‖x − y‖² over mirrored examples, with A the largest sum over wavelets of
    squared spectra; of each octave it is near 1.
    """
    generator = torch.Generator().manual_seed(0)
    front = Scattering(shape).double()
    sides = tuple(range(-(len(shape) - 1), 0))
    for scale in (1.0, 1e-3):
        x = synthetic_examples(shape, 20).double()
        y = x + scale * torch.randn(x.shape, generator=generator).double()
        for octave, (one, other) in enumerate(zip(front.moduli(x), front.moduli(y), strict=True)):
            real, imaginary = front.get_buffer(f"octave_{octave}").chunk(2)
            spectra = torch.fft.fftn(torch.complex(real, imaginary), s=(256,) * len(sides))
            most = float(spectra.abs().square().sum(0).max())
            beyond = [side // 2 for side in reversed(real.shape[2:]) for _ in range(2)]
            between = torch.nn.functional.pad(x - y, beyond, mode="reflect")
            assert 0.8 < most < 1.6
            apart = (one - other).square().sum((*sides, -3 if len(shape) == 3 else -2))
            assert bool((apart <= most * between.square().sum(sides) * (1 + 1e-9)).all())


def test_a_quarter_turn_moves_windows_and_directions_and_nothing_else() -> None:
    front = Scattering((1, 29, 29)).double()
    x = torch.rand(4, 1, 29, 29, dtype=torch.float64)
    maps, turned = (front(each).unflatten(1, (17, 4, 4)) for each in (x, torch.rot90(x, 1, (2, 3))))
    directions = torch.cat([maps[:, :1], *(part.roll(4, 1) for part in maps[:, 1:].split(8, 1))], 1)
    torch.testing.assert_close(turned, torch.rot90(directions, 1, (2, 3)), atol=1e-9, rtol=0)


def relative(before: Tensor, after: Tensor) -> float:
    changes = (before - after).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
    return float(changes.median())


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 128)])
def test_small_shifts_change_little(shape: tuple[int, ...]) -> None:
    """A place along the last axis: 0.6 times, at most, what it changes of the values."""
    front, x = Scattering(shape), synthetic_examples(shape, 100, seed=1)
    shifted = x.roll(1, -1)
    assert relative(front(x), front(shifted)) < 0.6 * relative(x, shifted)


def test_small_turns_change_little() -> None:
    """By 5 degrees: 0.7 times."""
    front, x = Scattering((1, 28, 28)), synthetic_examples((1, 28, 28), 100, seed=2)
    angle = torch.tensor(5 * pi / 180)
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]])
    grid = torch.nn.functional.affine_grid(turn.expand(100, 2, 3), [*x.shape], False)
    turned = torch.nn.functional.grid_sample(x, grid, align_corners=False)
    assert relative(front(x), front(turned)) < 0.7 * relative(x, turned)


def test_a_tone_shows_in_its_octave() -> None:
    front, time = Scattering((1, 128)), torch.arange(128)
    for octave in range(front.octaves):
        tone = torch.sin(2 * pi * 0.35 / 2**octave * time)[None, None]
        maps = front(tone).unflatten(1, (9, 8))[0].mean(1)
        assert int(maps[1:].argmax()) == 2 * octave


@settings(max_examples=30)
@given(
    shape=st.sampled_from([(1, 28, 28), (2, 40)]),
    rows=st.integers(1, 200),
    kept=st.integers(0, 199),
    beside=st.sampled_from([0.5, torch.nan, 1e30]),
    double=st.booleans(),
)
def test_a_row_is_a_function_of_itself_to_the_last_bit(
    shape: tuple[int, ...], rows: int, kept: int, beside: float, double: bool
) -> None:
    kind = torch.float64 if double else torch.float32
    front, place = Scattering(shape).to(kind), kept % rows
    example = torch.rand(1, *shape, generator=torch.Generator().manual_seed(kept)).to(kind)
    batch = torch.full((rows, *shape), beside, dtype=kind)
    batch[place] = example
    assert torch.equal(front(batch)[place], front(example)[0])


def test_the_front_end_is_no_part_of_the_model_that_travels() -> None:
    encoder = ScatteringEncoder((1, 28, 28))
    assert not Scattering((1, 28, 28)).state_dict()
    assert count_parameters(encoder) == vector_size(encoder) == 25_984
    one, other = (build_encoder(ModelConfig(encoder="scattering"), (1, 28, 28), s) for s in (0, 1))
    assert torch.equal(one[0].octave_1, other[0].octave_1)  # type: ignore[index]
