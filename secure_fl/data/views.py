"""Views of an example: crops and colours for images, warps for series, other columns for
tables, or an augmentation of the caller's.

A caller's augmentation is a callable `x -> x'` on a batch that draws from torch's global generator,
or a `KeyedAugmentation`, which is given its coins. Views are a function of the examples and of the
coins given, and torch's own state is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor

from secure_fl.coins import Coins, Draws, Use, global_generators
from secure_fl.config import ViewsConfig
from secure_fl.data.augmentations import (
    GlyphViews,
    KeyedAugmentation,
    PhotoViews,
    SeriesViews,
    TableViews,
)
from secure_fl.data.dataset import Dataset
from secure_fl.errors import ConfigError, DataError, PrivacyError, SecureFLError

Augmentation = Callable[[Tensor], Tensor] | KeyedAugmentation

_ROUNDING = 1e-3


def build_views(config: ViewsConfig, shape: tuple[int, ...]) -> KeyedAugmentation:
    """The augmentation for examples of `shape` (`[C, H, W]`, `[C, L]` or `[F]`).

    Raises:
        ConfigError: `views.kind` does not fit the shape.
    """
    kind = config.kind
    if kind == "auto":
        kind = "photo" if shape[0] == 3 else "glyph"
        if len(shape) < 3:
            kind = "series" if len(shape) == 2 else "table"
    axes = {"series": (1, 2), "table": (1,)}.get(kind, (3,))
    if len(shape) not in axes or (kind == "photo" and shape[0] != 3):
        problem = f"does not fit examples of shape {shape}"
        remedy = 'set views.kind = "auto", or pass an augmentation of your own'
        raise ConfigError(problem, field="views.kind", value=config.kind, remedy=remedy)
    if kind == "series":
        return SeriesViews(config.noise, config.mask)
    if kind == "table":
        return TableViews(config.corrupt, config.noise)
    made = PhotoViews() if kind == "photo" else GlyphViews()
    asked: dict[str, Any] = {
        "crop_scale": config.crop_scale,
        "flip": config.flip,
        "jitter": config.colour_jitter,
        "turn": config.turn,
    }
    return replace(made, **{name: value for name, value in asked.items() if value is not None})


def check_range(data: Dataset) -> None:
    """Refuse images outside [0, 1]: the image views jitter brightness there and would clip
    them silently.

    Raises:
        DataError: a value is outside.
    """
    if data.kind == "image" and not (
        float(data.x.min()) >= -_ROUNDING and float(data.x.max()) <= 1 + _ROUNDING
    ):
        remedy = (
            "scale images to [0, 1] or give them as unsigned bytes, leave data.scale at auto, or "
            "pass an augmentation of your own"
        )
        raise DataError.unshown(
            "images outside [0, 1] cannot be augmented", f"{data.name}.x", remedy
        )


def two_views(augment: Augmentation, x: Tensor, draws: Draws | int) -> tuple[Tensor, Tensor]:
    """Two views of each row of `x`, as `own_views` makes them."""
    first, second = own_views(augment, x, draws, 2)
    return first, second


def own_views(
    augment: Augmentation, x: Tensor, draws: Draws | int, count: int
) -> tuple[Tensor, ...]:
    """`count` views of each row of `x`, every row by itself, so that no example can be in
    another's view. The first ones are the same whatever the count.

    Ours and other `KeyedAugmentation`s take all rows at once. A callable of a caller's gets one row
    `[1, ...]` at a time and torch's generator in a state that belongs to that row: it costs a call
    a row and view.

    Args:
        draws: one row of coins for each row; or a public seed, rows then being examples 0, 1, ...

    Raises:
        PrivacyError: a callable draws from Python's or numpy's generators, whose coins would depend
            on the order of rows.
    """
    draws = _draws(draws, len(x))
    if isinstance(augment, KeyedAugmentation):
        with _outside_autocast(x):
            return tuple(_keyed(augment, x, draws.of_view(view)) for view in range(count))
    before = global_generators()
    with _outside_autocast(x):
        views = tuple(_one_at_a_time(augment, x, draws.of_view(view)) for view in range(count))
    if before != global_generators():
        problem = "draws from Python's or numpy's generator"
        remedy = "draw from torch's global generator, which is seeded for every example"
        raise PrivacyError.of_kind(problem, "augment", augment, remedy)
    return views


def batch_views(
    augment: Augmentation, x: Tensor, draws: Draws | int, count: int = 2
) -> tuple[Tensor, ...]:
    """`count` views of the batch `x`, where rows may meet: a caller's callable gets the whole
    batch. For training without privacy.

    The same for one seed, or one row of coins each; the caller's random state is left alone.
    """
    draws = _draws(draws, len(x))
    if isinstance(augment, KeyedAugmentation):
        with _outside_autocast(x):
            return tuple(_keyed(augment, x, draws.of_view(view)) for view in range(count))
    with _outside_autocast(x), draws.shared().torch_generators(x.device, Use.GENERATOR) as begin:
        begin(0)
        return tuple(_own(augment, x) for _ in range(count))


def _outside_autocast(x: Tensor) -> AbstractContextManager[object]:
    """In the examples' own precision: positions need it, and training sees what is measured on."""
    return torch.autocast(x.device.type, enabled=False)


def _draws(draws: Draws | int, rows: int) -> Draws:
    return Coins.public(draws).at(0, torch.arange(rows)) if isinstance(draws, int) else draws


def _own(augment: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A view in memory of its own, also where a callable writes into what it took or returned."""
    return _checked(augment, x, lambda: augment(x.clone())).clone()


def _keyed(augment: KeyedAugmentation, x: Tensor, draws: Draws) -> Tensor:
    return _checked(augment, x, lambda: augment.changed(x, draws))


def _checked(augment: Augmentation, x: Tensor, make: Callable[[], object]) -> Tensor:
    """What `make` returns, if it is like `x`. A caller's own message is not passed on: torch's say
    how many examples a batch has.

    Raises:
        ConfigError: it raises, or returns something else than a tensor of the examples' shape
            and type.
    """
    shape = tuple(x.shape[1:])
    try:
        made = make()
    except SecureFLError:
        raise
    except Exception as error:
        problem = f"raises {type(error).__name__}{_line_of(error)}"
        remedy = f"mend it: it must take batches of examples of shape {shape} and return as many"
        called = getattr(augment, "__name__", type(augment).__name__)
        raise ConfigError(problem, field="augment", value=called, remedy=remedy) from None
    problem = found = remedy = ""
    if not isinstance(made, Tensor):
        problem, found = "returns no tensor", type(made).__name__
        remedy = "return a tensor of the examples' shape"
    elif made.shape != x.shape:
        rows = made.shape[1:] == x.shape[1:]
        problem = "changes the shape of examples"
        found = "another number of rows" if rows else f"rows of shape {tuple(made.shape[1:])}"
        remedy = f"return one view of shape {shape} for each example given"
    elif made.dtype != x.dtype or made.device != x.device:
        problem, found = "changes the type or device of examples", f"{made.dtype} on {made.device}"
        remedy = f"return {x.dtype} on the examples' device"
    if problem or not isinstance(made, Tensor):
        raise ConfigError(problem, field="augment", value=found, remedy=remedy)
    return made


def _line_of(error: Exception) -> str:
    """Where an exception was raised, as ` (name.py, line 3)`."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f" ({PurePath(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"


def _one_at_a_time(augment: Callable[[Tensor], Tensor], x: Tensor, draws: Draws) -> Tensor:
    with draws.torch_generators(x.device, Use.GENERATOR) as begin:
        views = list[Tensor]()
        for row in range(len(x)):
            begin(row)
            views.append(_own(augment, x[row : row + 1]))
    return torch.cat(views) if views else x
