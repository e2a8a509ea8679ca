"""What clients hold: sources, partitions (how clients differ) and views (augmentation).

Public names, each imported when it is used:

- `batch_views`: `count` views of the batch `x`, where rows may meet: a caller's callable gets the
  whole batch.
- `build_views`: The augmentation for examples of `shape` (`[C, H, W]`, `[C, L]` or `[F]`).
- `check_range`: Refuse images outside [0, 1]: the image views jitter brightness there and would
  clip them silently.
- `ClientData`: One client's examples.
- `ClientSummary`: One client's row of a partition's figures.
- `count_classes`: Number of classes that models and sketches are made for; 0 without labels, or
  where nothing is made for it.
- `Dataset`: Examples with optional labels.
- `GlyphViews`: For images `[N, C, H, W]` within [0, 1] whose meaning a flip would change: gentle
  crop, brightness and contrast.
- `join`: Concatenate datasets of one shape; label numbers are kept, so equal numbers mean the same
  class number.
- `KeyedAugmentation`: An augmentation whose coins are given to it, so that whole batches can be
  changed at once without tying rows together.
- `load_source`: Read, check, scale, resize and thin one source.
- `load_sources`: Every source of a configuration, checked to have one shape, and labels below
  `data.classes` where it is set.
- `partition`: Deal the examples of all sources out to clients.
- `PartitionSummary`: All clients, the shape of an example and how uneven labels are.
- `PhotoViews`: SSD's: crop, flip, colour jitter, occasional grey; no blur, no normalisation.
- `pooled_values`: Each example `[N, *shape]` as a short row, float64 `[N, F]`, from its own
  values only.
- `SeriesViews`: Scale, warp in time, add noise, hide a stretch; each example changed in its
  own way.
- `summarise`: Figures of a partition; reads counts only.
- `two_views`: Two views of each row of `x`, every row by itself, so that no example can be in
  another's view.
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
        "views": ["batch_views", "build_views", "check_range", "two_views"],
    },
)
