"""Which axis of an example holds its channels: found where the sizes tell it, otherwise asked for,
never guessed.

Images are `[N, C, H, W]` and series `[N, C, L]` inside the project. What comes as `[N, H, W, C]` or
`[N, L, C]` is turned, with a note.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
from torch import Tensor

from secure_fl.errors import DataError

Layout = Literal["auto", "channels_first", "channels_last"]
Meaning = Literal["auto", "image", "series", "vector"]
LAYOUTS: tuple[Layout, ...] = ("auto", "channels_first", "channels_last")
MEANINGS: tuple[Meaning, ...] = ("auto", "image", "series", "vector")
_FEW = 4
"""Channels that images commonly have: grey, with opacity, colour, colour with opacity."""

Held = TypeVar("Held", np.ndarray, Tensor)


def oriented(x: Held, kind: Meaning, layout: Layout, field: str) -> tuple[Held, str]:
    """`[N, ...]` of two to four axes with channels first, and what was done in words ("" for
    nothing).

    Raises:
        DataError: the number of axes does not fit `kind`, or sizes leave open which axis is which.
    """
    if layout not in LAYOUTS or kind not in MEANINGS:
        wrong, known = ("layout", LAYOUTS) if layout not in LAYOUTS else ("kind", MEANINGS)
        remedy = f"one of {', '.join(known)}"
        raise DataError(
            "unknown", field=wrong, value=layout if wrong == "layout" else kind, remedy=remedy
        )
    shape = tuple(x.shape[1:])
    _check_axes(shape, kind, field)
    if len(shape) == 1:
        return (x[:, None] if kind == "series" else x), ""
    if len(shape) == 2 and kind == "image":
        return x[:, None], ""
    found = _layout(shape, field) if layout == "auto" else layout
    if found == "channels_first":
        return x, ""
    turned = (0, 3, 1, 2) if len(shape) == 3 else (0, 2, 1)
    moved = x.permute(turned) if isinstance(x, Tensor) else x.transpose(turned)
    return moved, f"channels came last, in examples of shape {shape}, and were moved to the front"


def _check_axes(shape: tuple[int, ...], kind: Meaning, field: str) -> None:
    needed = {"image": (2, 3), "series": (1, 2), "vector": (1,), "auto": (1, 2, 3)}[kind]
    if len(shape) in needed:
        return
    words = {1: "two", 2: "three", 3: "four"}
    remedy = {
        "image": "give images as [N, H, W] or [N, C, H, W]",
        "series": 'give series as [N, C, L], or set kind = "image"',
        "vector": "give vectors as [N, F], or leave kind out",
    }.get(kind, "give images, series or vectors")
    plural = {"image": "images", "series": "series", "vector": "vectors"}.get(kind, "examples")
    problem = f"{words.get(len(shape), str(len(shape) + 1))} dimensions are no {plural}"
    raise DataError(problem, field=field, value=("N", *shape), remedy=remedy)


def _layout(shape: tuple[int, ...], field: str) -> Layout:
    found = _of_image(*shape) if len(shape) == 3 else _of_series(*shape)
    if found is None:
        what = "an image" if len(shape) == 3 else "a series"
        remedy = 'say it with layout = "channels_first" or "channels_last" (data.sources.layout)'
        if len(shape) == 2:
            remedy += '; grey images [N, H, W] with kind = "image"'
        problem = f"the shape of {what} leaves open which axis is the channels'"
        raise DataError(problem, field=field, value=("N", *shape), remedy=remedy)
    return found


def _of_image(first: int, middle: int, last: int) -> Layout | None:
    """Square images show their channels; so does an axis much shorter than the two others."""
    if first == middle == last:
        return "channels_first" if first == 1 else None
    if middle == last:
        return "channels_first" if last > _FEW or first < last else None
    if first == middle:
        return "channels_last" if first > _FEW or last < first else None
    if _much_shorter(first, middle, last):
        return "channels_first"
    return "channels_last" if _much_shorter(last, middle, first) else None


def _much_shorter(side: int, middle: int, other: int) -> bool:
    shorter = min(middle, other)
    return side < shorter and other > _FEW and (side <= _FEW or 2 * side <= shorter)


def _of_series(first: int, last: int) -> Layout | None:
    """A series has many more steps than channels."""
    if first == 1 or 2 * first <= last:
        return "channels_first"
    return "channels_last" if last == 1 or 2 * last <= first else None
