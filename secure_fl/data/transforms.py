"""What sets a group of clients apart: rotated images or permuted labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from secure_fl.config import PartitionConfig
from secure_fl.data.dataset import UNLABELLED, Dataset
from secure_fl.errors import PartitionError
from secure_fl.seeds import generator_of

Transform = Callable[[Dataset], Dataset]


def transforms_for(
    spec: PartitionConfig, example: Dataset, seed: int
) -> list[tuple[str, Transform]]:
    """One (note, transform) a group; empty for partitions without groups of their own.

    Raises:
        PartitionError: rotation of what is no image, permutation without enough labels.
    """
    if spec.kind == "rotation":
        return _rotations(spec, example)
    if spec.kind == "label_permutation":
        return _permutations(spec, example, seed)
    return []


def _rotations(spec: PartitionConfig, example: Dataset) -> list[tuple[str, Transform]]:
    if example.kind != "image":
        problem = "only images can be rotated"
        remedy = "use another partition.kind"
        raise PartitionError(
            problem, field="partition.kind", value=f"rotation of {example.kind} data", remedy=remedy
        )
    turns = [360 * group / spec.groups for group in range(spec.groups)]
    return [(f"rotated {degrees:g}°", _rotation(degrees)) for degrees in turns]


def _rotation(degrees: float) -> Transform:
    """Counter-clockwise; exact for square images and multiples of 90°, bilinear otherwise."""

    def apply(data: Dataset) -> Dataset:
        if degrees % 90 == 0 and data.shape[-1] == data.shape[-2]:
            return replace(data, x=torch.rot90(data.x, int(degrees // 90), (-2, -1)).contiguous())
        from kornia.geometry.transform import rotate

        angles = torch.full((len(data),), degrees)
        return replace(data, x=rotate(data.x, angles)) if len(data) else data

    return apply


def _permutations(
    spec: PartitionConfig, example: Dataset, seed: int
) -> list[tuple[str, Transform]]:
    """Group 0 keeps its labels, every other group has a permutation of its own."""
    if example.classes < 2:
        problem = "there are no labels to permute"
        remedy = "use labelled data of at least two classes"
        raise PartitionError(
            problem, field="partition.kind", value=f"{example.classes} classes", remedy=remedy
        )
    generator = generator_of(seed, "label_permutation")
    chosen = [torch.arange(example.classes)]
    for _ in range(1000 * spec.groups):
        if len(chosen) == spec.groups:
            break
        candidate = torch.randperm(example.classes, generator=generator)
        if not any(torch.equal(candidate, other) for other in chosen):
            chosen.append(candidate)
    if len(chosen) < spec.groups:
        problem = "there are fewer permutations than groups"
        remedy = f"use at most {len(chosen)} groups"
        raise PartitionError(problem, field="partition.groups", value=spec.groups, remedy=remedy)
    return [(f"labels {' '.join(map(str, p.tolist()))}", _permutation(p)) for p in chosen]


def _permutation(permutation: torch.Tensor) -> Transform:
    def apply(data: Dataset) -> Dataset:
        known = data.y != UNLABELLED
        return replace(data, y=torch.where(known, permutation[data.y.clamp_min(0)], data.y))

    return apply
