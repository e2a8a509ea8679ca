"""Examples as people hold them become finite float32 tensors with the channels first."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secure_fl.data.layout import Layout, Meaning, oriented
from secure_fl.errors import DataError

_AT_A_TIME = 1 << 24
"""Numbers looked at or converted at a time: memory beside the examples does not follow them."""


def example_tensor(x: Any, kind: Meaning, layout: Layout, name: str) -> tuple[Tensor, str]:
    """`x` as finite float32 of two to four dimensions, channels first, and what was turned.

    Raises:
        DataError: it is no dense array of numbers of such a shape, or holds NaN or infinity.
    """
    field = f"{name}.x"
    array = _dense(x, field)
    if array.dtype.kind not in "fiub":
        remedy = "convert it to float32 or uint8"
        raise DataError("not numbers", field=field, value=str(array.dtype), remedy=remedy)
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        remedy = "use [N, C, H, W] images, [N, C, L] series or [N, F] vectors, N at least 1"
        raise DataError(
            "not a batch of examples", field=field, value=f"{array.ndim} axes", remedy=remedy
        )
    turned, note = oriented(array, kind, layout, field)
    return _as_floats(turned, field), note


def _dense(x: Any, field: str) -> np.ndarray:
    """What a caller holds as a numpy array, its values as they are."""
    if np.ma.is_masked(x):
        remedy = "drop or impute such examples before loading"
        raise DataError.unshown("values are masked", field, remedy)
    if isinstance(x, Tensor):
        try:
            return (x.float() if x.is_floating_point() else x).detach().cpu().numpy()
        except (TypeError, RuntimeError):  # sparse, quantised, without content
            raise DataError(
                "not a dense tensor", field=field, value=str(x.layout), remedy="pass x.to_dense()"
            ) from None
    try:
        return np.asarray(x)
    except Exception:  # what a lazy array raises may quote an example
        raise DataError.of_kind(
            "examples differ in shape", field, x, "pad or crop them to one shape"
        ) from None


def _as_floats(array: np.ndarray, field: str) -> Tensor:
    """Finite float32 numbers in a row; mapped ones stay where they are, bytes are over 255."""
    as_wanted = array.dtype == np.float32 and array.flags.c_contiguous and array.flags.writeable
    mapped = as_wanted and _is_mapped(array)
    examples = torch.from_numpy(array if mapped else np.empty(array.shape, np.float32))
    rows = max(1, _AT_A_TIME // max(1, array[0].size))
    for first in range(0, len(array), rows):
        block = examples[first : first + rows]
        if not mapped:
            with np.errstate(over="ignore"):
                block.numpy()[:] = array[first : first + rows]
            if array.dtype == np.uint8:
                block /= 255
        if not bool(torch.isfinite(block).all()):
            raise DataError.unshown(
                "NaN or infinity", field, "drop or impute such examples before loading"
            )
    return examples


def _is_mapped(array: object) -> bool:
    """Whether an array lies in a file."""
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap | mmap.mmap)
