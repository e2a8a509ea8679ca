"""Where examples come from: one file a family of formats, one table of all sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional

from secure_fl.config import DataConfig, SourceConfig
from secure_fl.data.columns import Declared
from secure_fl.data.dataset import Dataset, Splits
from secure_fl.data.joining import join
from secure_fl.data.sources import cifar, idx, packaged
from secure_fl.data.sources.files import read_files
from secure_fl.errors import DataError
from secure_fl.seeds import generator_of

READERS: dict[str, Callable[[SourceConfig], Splits]] = {
    "digits": packaged.digits,
    "mnist5k": packaged.mnist5k,
    "mnist": idx.mnist,
    "fashion_mnist": idx.fashion_mnist,
    "cifar10": cifar.cifar10,
    "cifar100": cifar.cifar100,
}
"""The packaged sets; all other sources are files of the user's own."""


def load_source(source: SourceConfig, config: DataConfig, seed: int) -> Splits:
    """Read, check, scale, resize and thin one source.

    Raises:
        DataError: the files are missing, damaged or not what they should be.
    """
    if source.name in READERS:
        train, test = READERS[source.name](source)
    else:
        declared = Declared.of(config.classes, config.class_names, "data.class_names")
        train, test = read_files(source, declared, config.image_size), None
    train = _thin(prepared(train, config), source, seed, "train")
    return train, None if test is None else _thin(prepared(test, config), source, seed, "test")


def load_sources(config: DataConfig, seed: int) -> list[Splits]:
    """Every source of a configuration, checked to have one shape, and labels below `data.classes`
    where it is set.

    Raises:
        DataError: as `load_source`; shapes differ, or a label is outside.
    """
    loaded = []
    for source in config.sources:
        train, test = load_source(source, config, seed)
        declared = config.classes, config.class_names
        loaded.append(
            (train.with_classes(*declared), None if test is None else test.with_classes(*declared))
        )
    join([train.take(torch.tensor([0])) for train, _ in loaded], "sources")
    return loaded


def given_sources(data: Any, config: DataConfig) -> list[Splits]:
    """Data from Python in place of the configuration's sources, as `load_sources` returns them;
    neither scaled nor resized.

    Raises:
        DataError: no data, or a label that is not among the declared classes.
    """
    return [(Dataset.of(data).with_classes(config.classes, config.class_names), None)]


def prepared(data: Dataset, config: DataConfig) -> Dataset:
    """Examples scaled and resized as [data] asks; vectors are scaled later (`data.scaling`)."""
    x, notes = data.x, data.notes
    alone = config.scale == "per_example" or (config.scale == "auto" and data.kind == "series")
    if alone and data.kind != "vector":
        axes = tuple(range(2, x.ndim))
        if config.scale == "auto":
            note = (
                "each series is brought to mean 0 and deviation 1, channel by channel; "
                'data.scale = "none" keeps its level'
            )
            notes = (*notes, note)
        centred, spread = x - x.mean(axes, keepdim=True), x.std(axes, keepdim=True, correction=0)
        x = centred / spread.clamp_min(1e-6)
    if config.image_size is not None:
        if data.kind != "image":
            remedy = 'leave data.image_size out, or set kind = "image" on the source'
            problem, field = "only images can be resized", "data.image_size"
            raise DataError(problem, field=field, value=data.kind, remedy=remedy)
        size = (config.image_size, config.image_size)
        x = functional.interpolate(
            x, size=size, mode="bilinear", align_corners=False, antialias=True
        )
    return replace(data, x=x, notes=notes)


def _thin(data: Dataset, source: SourceConfig, seed: int, split: str) -> Dataset:
    if source.limit is None or source.limit >= len(data):
        return data
    generator = generator_of(seed, "limit", source.name, split)
    return data.take(torch.randperm(len(data), generator=generator)[: source.limit].sort().values)
