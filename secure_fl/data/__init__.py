"""What clients hold: sources, partitions (how clients differ) and views (augmentation).

Public names, each imported when it is used; their docstrings say the rest:

- examples: `Dataset`, `join`, `pooled_values`, `synthetic_examples` (nobody's);
- where they come from: `load_source`, `load_sources`;
- who holds which: `partition`, `ClientData`, `count_classes`, and in figures `summarise`,
  `PartitionSummary`, `ClientSummary`;
- views: `build_views`, `two_views` (each row by itself), `batch_views` (rows may meet),
  `check_range`, `KeyedAugmentation`, `PhotoViews`, `GlyphViews`, `SeriesViews`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.data.augmentations import GlyphViews as GlyphViews
    from secure_fl.data.augmentations import KeyedAugmentation as KeyedAugmentation
    from secure_fl.data.augmentations import PhotoViews as PhotoViews
    from secure_fl.data.augmentations import SeriesViews as SeriesViews
    from secure_fl.data.dataset import Dataset as Dataset
    from secure_fl.data.joining import join as join
    from secure_fl.data.partitions import ClientData as ClientData
    from secure_fl.data.partitions import count_classes as count_classes
    from secure_fl.data.partitions import partition as partition
    from secure_fl.data.pooled import pooled_values as pooled_values
    from secure_fl.data.sources import load_source as load_source
    from secure_fl.data.sources import load_sources as load_sources
    from secure_fl.data.summary import ClientSummary as ClientSummary
    from secure_fl.data.summary import PartitionSummary as PartitionSummary
    from secure_fl.data.summary import summarise as summarise
    from secure_fl.data.synthetic import synthetic_examples as synthetic_examples
    from secure_fl.data.views import batch_views as batch_views
    from secure_fl.data.views import build_views as build_views
    from secure_fl.data.views import check_range as check_range
    from secure_fl.data.views import two_views as two_views

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "augmentations": ["GlyphViews", "KeyedAugmentation", "PhotoViews", "SeriesViews"],
        "dataset": ["Dataset"],
        "joining": ["join"],
        "partitions": ["ClientData", "count_classes", "partition"],
        "pooled": ["pooled_values"],
        "sources": ["load_source", "load_sources"],
        "summary": ["ClientSummary", "PartitionSummary", "summarise"],
        "synthetic": ["synthetic_examples"],
        "views": ["batch_views", "build_views", "check_range", "two_views"],
    },
)
