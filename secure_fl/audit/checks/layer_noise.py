"""Noise on the run's own model, layer by layer. Canaries have a model of one layer, and do not see
one that is left out, or that has another's noise.

Steps are taken in which nobody is drawn: what a mechanism then writes is noise alone. Noise is in
deviations as stated; every p is exact, and is that of the smallest of so many.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betainc, gammainc

from secure_fl.audit.noise_tests import Matrix, within
from secure_fl.audit.own_training import OwnTraining, stated_noise

_STEPS = (4, 16)
_NUMBERS = 1 << 27
"""Of all steps together, about: two seconds of drawing."""
_HEAD = 2048
"""Numbers at the beginning of a layer that are held against those of others."""
_LAYERS = 64
"""That are held against each other."""


@dataclass(frozen=True)
class Layers:
    """Noise of some steps.

    Attributes:
        squares: sums of squares, of each step and layer, `[T, L]`.
        sizes: numbers in a layer, `[L]`.
        numbers: sums of squares over the steps, `[P]`.
        heads: the beginnings of layers, each `[T, at most 2048]`.
    """

    squares: Matrix = field(repr=False)
    sizes: NDArray[np.int64]
    numbers: Matrix = field(repr=False)
    heads: tuple[Matrix, ...] = field(repr=False)

    def tests(self) -> dict[str, float]:
        """P(so much), by what is false where it is small."""
        steps = len(self.squares)
        layers = gammainc(steps * self.sizes / 2, self.squares.sum(0) / 2)
        number = float(gammainc(steps / 2, self.numbers.min() / 2))
        return {
            "a layer has less noise than stated": min(1.0, len(layers) * float(layers.min())),
            "a weight is not noised": min(1.0, len(self.numbers) * number),
            "noise repeats between layers": self._shared(),
            "noise repeats between weights": within(np.concatenate(self.heads, axis=1)),
        }

    def _shared(self) -> float:
        """Of the correlation of two layers' beginnings, over all steps."""
        chosen = self.heads[:_LAYERS]
        found = [_alike(one, other) for one, other in combinations(chosen, 2)]
        return min(1.0, len(found) * min(found, default=1.0))


def _alike(one: Matrix, other: Matrix) -> float:
    """P(as large a correlation), of either sign: its square is Beta(½, (n − 1)/2)."""
    width = min(one.shape[1], other.shape[1])
    a, b = one[:, :width].ravel(), other[:, :width].ravel()
    square = float((a @ b) ** 2) / max(float((a @ a) * (b @ b)), 1e-300)
    return float(betainc((len(a) - 1) / 2, 0.5, max(0.0, 1 - square)))


def layers_of(own: OwnTraining) -> Layers:
    """The noise of some steps on a fresh model of the run's, from this training's stream."""
    mechanism, model, stream = own.mechanism, own.path.model(), own.stream()
    trained = [each for each in model.parameters() if each.requires_grad]
    sizes = np.array([each.numel() for each in trained])
    numbers, squares = np.zeros(sizes.sum()), list[list[float]]()
    heads: list[list[Matrix]] = [[] for _ in trained]
    for _ in range(int(np.clip(_NUMBERS // sizes.sum(), *_STEPS))):
        deviation = stated_noise(mechanism)[0] * mechanism.bound
        mechanism.gradients(model, torch.empty(0, 1), stream)
        made = [_noise(each.grad, mechanism.expected_units / deviation) for each in trained]
        squares.append([float(part @ part) for part in made])
        numbers += np.concatenate(made) ** 2
        for head, part in zip(heads, made, strict=True):
            head.append(part[:_HEAD])
    return Layers(np.array(squares), sizes, numbers, tuple(map(np.stack, heads)))


def _noise(gradient: torch.Tensor | None, scale: float) -> Matrix:
    assert gradient is not None
    return np.asarray(gradient.detach().cpu().double().numpy().ravel() * scale)
