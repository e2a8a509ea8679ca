"""What everybody in a federation knows of its sketches: what they are made of, how labels enter,
and whether they carry noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secure_fl.config import FederationConfig
from secure_fl.data.pooled import pooled_width
from secure_fl.pools.sketch import sketch_of, without_labels
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.private_sketch import GRID, PrivateSketch
from secure_fl.seeds import derive_seed

FARTHEST = 4.0
"""Largest squared distance between means of unit vectors: votes carry it divided by this."""


@dataclass(frozen=True)
class SketchForm:
    """Public facts of a federation's sketches.

    Attributes:
        inputs: length F of an example's vector.
        classes: number of labels that sketches tell apart; 0 without labels.
        of_encoder: whether examples are embedded by the kept encoder; otherwise their values
            are pooled.
        released: settings of the noised sketch; None where sketches are sent as they are, in an
            open experiment.
    """

    inputs: int
    classes: int
    of_encoder: bool
    released: PrivateSketch | None

    @classmethod
    def of(
        cls, config: FederationConfig, shape: tuple[int, ...], classes: int, embedding: int
    ) -> SketchForm:
        """The form that a configuration asks for, for examples of `shape`, of so many classes,
        embedded in so many dimensions.
        """
        pools, privacy, released = config.pools, config.privacy, None
        by_task = pools.sketch == "auto" and pools.task == "supervised"
        told_apart = classes if pools.sketch == "labelled" or by_task else 0
        inputs = embedding if pools.sketch_of == "encoder" else pooled_width(shape)
        if config.noises_sketches:
            budget = (privacy.sketch_epsilon, privacy.delta, Adjacency(privacy.adjacency))
            made = (inputs, derive_seed(config.seed, "sketch"), told_apart)
            released = PrivateSketch.within(*budget, *made, privacy.sketch_width)
        return cls(inputs, told_apart, pools.sketch_of == "encoder", released)

    @property
    def part(self) -> int:
        """Length of a sketch without labels."""
        return self.inputs if self.released is None else self.released.part

    @property
    def width(self) -> int:
        """Length of a sketch."""
        return self.inputs * max(1, self.classes) if self.released is None else self.released.width

    def plain(self, sketches: Tensor) -> Tensor:
        """What sketches `[..., width]` say without their labels, `[..., part]`."""
        if self.released is not None:
            return self.released.plain(sketches)
        return without_labels(sketches, self.inputs)

    def plain_sketch(self, values: Tensor, centre: Tensor | None) -> Tensor:
        """A newcomer's own sketch of its vectors `[N, F]`, without labels and noise, `[part]`: it
        stays with the newcomer.

        `centre`: what released sketches of the run were centred by.
        """
        if self.released is None:
            return sketch_of(values)
        noise, seed = self.released.noise_multiplier, self.released.seed
        plain = PrivateSketch(noise, self.inputs, seed, dimensions=self.released.part)
        return (plain.contributions(values, None, centre).double().mean(0) / GRID).float()


def shortened(sketch: Tensor) -> Tensor:
    """A sketch no longer than 1, as means of unit vectors are: noise can make it longer, and sums
    count on it.
    """
    length: Tensor = torch.linalg.vector_norm(sketch)
    return sketch / length.clamp_min(1.0)
