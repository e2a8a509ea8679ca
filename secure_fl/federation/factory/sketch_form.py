"""What everybody in a federation knows of its sketches: what they are made of, how labels enter,
and whether they carry noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from secure_fl.config import FederationConfig, PoolsConfig
from secure_fl.federation.factory.sketch_vectors import FixedMap, Vectors, fixed_width
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
        made_of: what makes an example's vector: a fixed map, or the kept encoder.
        by_label: whether a sketch has a part for each label, with a weight.
        released: settings of the noised sketch; None where sketches are sent as they are, in an
            open experiment.
        compared: whether sketches say how far clients differ: where they carry no noise, or where
            numbers of examples are public, as the size of that noise follows from them; and where
            they have one part.
    """

    inputs: int
    classes: int
    made_of: Vectors | Literal["encoder"]
    by_label: bool
    released: PrivateSketch | None
    compared: bool = True

    @classmethod
    def of(
        cls, config: FederationConfig, shape: tuple[int, ...], classes: int, embedding: int
    ) -> SketchForm:
        """The form that a configuration asks for, for examples of `shape`, of so many classes,
        embedded in so many dimensions.
        """
        pools, privacy, released = config.pools, config.privacy, None
        labels, made_of = labels_in(config), vectors_in(pools)
        told_apart, by_label = (0 if labels == "features" else classes), labels == "conditional"
        inputs = embedding if made_of == "encoder" else fixed_width(made_of, shape)
        if config.noises_sketches:
            budget = (privacy.sketch_epsilon, privacy.delta, Adjacency(privacy.adjacency))
            made = (inputs, derive_seed(config.seed, "sketch"), told_apart)
            released = PrivateSketch.within(*budget, *made, privacy.sketch_width, by_label=by_label)
        compared = not by_label and (released is None or privacy.unit == "example")
        return cls(inputs, told_apart, made_of, by_label, released, compared)

    @property
    def of_encoder(self) -> bool:
        """Whether examples are embedded by the kept encoder."""
        return self.made_of == "encoder"

    @property
    def map(self) -> FixedMap:
        """What makes an example's vector, where no encoder does."""
        assert self.made_of != "encoder"
        return FixedMap(self.made_of)

    def values(self, x: Tensor) -> Tensor:
        """Each example's vector `[N, F]`, where no encoder makes it."""
        made: Tensor = self.map(x)
        return made

    @property
    def part(self) -> int:
        """Length of a sketch without labels."""
        return self.inputs if self.released is None else self.released.part

    @property
    def parts(self) -> int:
        """How many parts a sketch has that are compared by themselves, each with a weight."""
        return self.classes if self.by_label else 1

    @property
    def weights(self) -> int:
        """How many weights travel with a sketch: of one part there is none."""
        return self.parts if self.parts > 1 else 0

    @property
    def width(self) -> int:
        """Length of a sketch."""
        if self.released is None:
            return self.inputs * max(1, self.classes)
        return self.part * self.parts if self.by_label else self.released.width

    def plain(self, sketches: Tensor) -> Tensor:
        """What sketches `[..., width]` say without their labels, `[..., part]`: of one in parts,
        their mean.
        """
        if self.by_label:
            return without_labels(sketches, self.part) / self.parts
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


def labels_in(config: FederationConfig) -> Literal["features", "labelled", "conditional"]:
    """How labels enter sketches. `auto` tells labels apart where the task has some: nothing else
    finds clients whose labels mean different things, though where they mean the same, sketches
    without labels find more (docs/pool-starts.md). It does not compare by shared labels: noised at
    ε = 1 that leaves little, and what clients differ by in their labels is then no part of how far
    they differ (`compared`).
    """
    pools = config.pools
    if pools.sketch != "auto":
        return pools.sketch
    if pools.task != "supervised":
        return "features"
    return "labelled"


def vectors_in(pools: PoolsConfig) -> Vectors | Literal["encoder"]:
    """What sketches are made of. `auto` is pooled examples, which noised at ε = 1 found groups as
    often as any other kind, or more (`bench/sketch_kinds.py`).
    """
    return "examples" if pools.sketch_of == "auto" else pools.sketch_of


def shortened(sketch: Tensor, parts: int = 1) -> Tensor:
    """A sketch of which no part is longer than 1, as means of unit vectors are: noise can make them
    longer, and sums count on it.
    """
    rows = sketch.view(parts, -1)
    length: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return (rows / length.clamp_min(1.0)).flatten()
