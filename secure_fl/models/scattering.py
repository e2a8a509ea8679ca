"""A fixed wavelet front-end: how strongly an example oscillates, where, in which direction and how
fast. Nothing in it is trained, so it costs no privacy and none of its numbers travel.

First-order scattering: a signal is filtered by Morlet wavelets, the moduli of what comes out are
averaged over windows, and the logarithms of these averages, with those of the signal itself, are
brought to mean 0 and deviation 1 in each example. A shift within a window, or a small bend, changes
them little. Sources: Mallat 2012; Bruna & Mallat 2013; the wavelets' constants are those of
Kymatio (Andreux et al. 2020).

Suffixes: N examples, C channels, K wavelets of an octave, H and W sides, L length.
"""

from __future__ import annotations

from math import ceil, log, log2, pi, prod, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.errors import ModelError
from secure_fl.models.blocks import in_blocks
from secure_fl.models.norms import Norm, norm_layer

_WINDOWS = {1: 8, 2: 4}
"""Windows along an axis, by the number of axes: 8 segments of a series, 4 × 4 of an image."""
_REACH = 2.5
"""Deviations of its envelope after which a wavelet is cut off: 4 % of its height."""
_HIDDEN = 64
"""Width of the head's first layer."""
_TINY = 1e-8
"""Under the root, so that the modulus has a gradient at 0."""
_FLAT = 1e-6
"""Added to the variance of an example's numbers, so that next to nothing is not blown up."""
_SIGNAL, _MODULI = 3.0, 20.0
"""What means are multiplied by before their logarithm: moduli are smaller than values."""


class Scattering(nn.Module):
    """`[N, *shape]` -> `[N, width]`: images `[N, C, H, W]`, series `[N, C, L]`; vectors `[N, F]`
    pass as they are.

    Octaves are as many as windows have room for. An image of 28 × 28 becomes 17 × 16 = 272 numbers:
    itself and 2 octaves of 8 directions, in 4 × 4 windows; a series of 128 becomes 9 × 8 = 72. Each
    channel is taken by itself. A row of the result is a function of that row alone, the same to the
    last bit in whatever batch.

    Args:
        shape: of one example.
        reach: deviations of its envelope after which a wavelet is cut off; it is cut off earlier
            where the example is smaller.

    Raises:
        ModelError: an example is no image, series or vector.
    """

    def __init__(self, shape: tuple[int, ...], reach: float = _REACH) -> None:
        super().__init__()
        if len(shape) not in (1, 2, 3):
            problem = "is the shape of no image, series or vector"
            raise ModelError(problem, "shape", shape, "use [C, H, W], [C, L] or [F]")
        sides = shape[1:]
        self.windows = tuple(min(_WINDOWS[len(sides)], side) for side in sides)
        self.octaves = _octaves(sides, self.windows)
        maps = 1
        for octave in range(self.octaves):
            make = _image_wavelets if len(sides) == 2 else _series_wavelets
            wavelets = make(octave, reach, sides)
            maps += len(wavelets) // 2
            self.register_buffer(f"octave_{octave}", wavelets, persistent=False)
        self.width = shape[0] * maps * prod(self.windows)

    def forward(self, x: Tensor) -> Tensor:
        return in_blocks(self._features, x) if self.windows else x

    def moduli(self, x: Tensor) -> list[Tensor]:
        """What the windows average, `[N, C, K, H / 2^j, W / 2^j]` for octave j: moduli at every
        2^j-th place, with the example mirrored beyond its sides.
        """
        found = []
        for octave in range(self.octaves):
            wavelets: Tensor = self.get_buffer(f"octave_{octave}")
            beyond = [side // 2 for side in reversed(wavelets.shape[2:]) for _ in range(2)]
            mirrored = functional.pad(x, beyond, mode="reflect").flatten(0, 1)[:, None]
            convolve = functional.conv2d if x.ndim == 4 else functional.conv1d
            real, imaginary = convolve(mirrored, wavelets, stride=2**octave).chunk(2, dim=1)
            modulus = (real.square() + imaginary.square() + _TINY).sqrt()
            found.append(modulus.unflatten(0, x.shape[:2]))
        return found

    def _features(self, x: Tensor) -> Tensor:
        means = self._means(x)
        logarithms = [means.sign() * torch.log1p(_SIGNAL * means.abs())]
        for moduli in self.moduli(x):
            logarithms.append(torch.log1p(_MODULI * self._means(moduli.flatten(1, 2))))
        numbers = torch.cat([each.flatten(1) for each in logarithms], dim=1)
        return functional.layer_norm(numbers, (self.width,), eps=_FLAT)

    def _means(self, maps: Tensor) -> Tensor:
        if maps.ndim == 4:
            down, across = self.windows
            return functional.adaptive_avg_pool2d(maps, (down, across))
        return functional.adaptive_avg_pool1d(maps, self.windows[0])


class ScatteringEncoder(nn.Sequential):
    """`[N, *shape]` -> `[N, features]`: the fixed front-end and two small layers that are trained.

    Of an image of 28 × 28 with the default width, 25,984 parameters, where the ConvNet has 92,896:
    the noise that privacy adds grows with their number.
    """

    def __init__(self, shape: tuple[int, ...], features: int = 128, norm: Norm = "group") -> None:
        front = Scattering(shape)
        super().__init__(
            front,
            nn.Linear(front.width, _HIDDEN, bias=False),
            norm_layer(norm, _HIDDEN, 0),
            nn.ReLU(),
            nn.Linear(_HIDDEN, features, bias=False),
            norm_layer(norm, features, 0),
            nn.ReLU(),
        )


def _octaves(sides: tuple[int, ...], windows: tuple[int, ...]) -> int:
    """The largest J for which a window holds 2^J values along every axis, one at least."""
    if not sides:
        return 0
    return max(1, int(log2(min(side / count for side, count in zip(sides, windows, strict=True)))))


def _image_wavelets(octave: int, reach: float, sides: tuple[int, ...]) -> Tensor:
    """Real parts of 8 directions, then imaginary parts, `[16, 1, h, w]`; the envelope is twice as
    long across the direction of oscillation as along it.
    """
    along = 0.8 * 2**octave
    places = [_places(reach * 2 * along, side) for side in sides]
    y, x = torch.meshgrid(*places, indexing="ij")
    made = []
    for direction in range(8):
        angle = torch.tensor(direction * pi / 8, dtype=torch.float64)
        u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
        made.append(_morlet(u, u.square() + v.square() / 4, along, 3 * pi / 4 / 2**octave))
    return torch.cat([torch.stack(part) for part in zip(*made, strict=True)])[:, None]


def _series_wavelets(octave: int, reach: float, sides: tuple[int, ...]) -> Tensor:
    """Real parts of the octave's 2 wavelets, then imaginary parts, `[4, 1, l]`.

    The highest of all is centred at 0.35 of a cycle a value; neighbours meet at √½ of their height.
    """
    narrow = (sqrt(2) - 1) / (sqrt(2) + 1) / sqrt(log(2))
    frequencies = [2 * pi * 0.35 / 2 ** (octave + half / 2) for half in range(2)]
    deviations = [1 / (narrow * frequency) for frequency in frequencies]
    u = _places(reach * deviations[1], sides[0])
    made = [
        _morlet(u, u.square(), deviation, frequency)
        for deviation, frequency in zip(deviations, frequencies, strict=True)
    ]
    return torch.cat([torch.stack(part) for part in zip(*made, strict=True)])[:, None]


def _places(radius: float, side: int) -> Tensor:
    """Whole numbers from -r to r: the radius rounded up, or what an example can be mirrored by."""
    most = min(ceil(radius), side - 1)
    return torch.arange(-most, most + 1, dtype=torch.float64)


def _morlet(
    u: Tensor, squares: Tensor, deviation: float, frequency: float
) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of exp(-squares / (2 deviation²)) (exp(i frequency u) - c): c such
    that constants are not seen, and the height of the spectrum about 1.
    """
    envelope = torch.exp(-squares / (2 * deviation**2))
    envelope /= envelope.sum()
    real, imaginary = envelope * torch.cos(frequency * u), envelope * torch.sin(frequency * u)
    real -= envelope * real.sum()
    return real.float(), imaginary.float()
