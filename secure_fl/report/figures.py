"""What all plots share: colours, lines, legends, and how a figure is made and written. Figures are
narrow, so that they can be read on a phone.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secure_fl.errors import ConfigError, DependencyError
from secure_fl.report.names import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = "3d7fc4 d9772b 3f9a5a cf4a5c 8f6bc2 9a7355 c8609e 7c868f 2a9494 8a8a2b"
COLOURS = tuple(f"#{colour}" for colour in _COLOURS.split())
"""Colours of pools, runs and labels; each can be told from white and from near-black."""
_INK, _INK_IN_THE_DARK = "#1f2733", "#d5dbe3"
"""Colours of text and axes by day and by night."""
_DASHES: tuple[tuple[float, ...], ...] = ((), (4, 2), (1.5, 1.5), (6, 2, 1.5, 2))
_LONGEST_LABEL = 16
_INKED = "text.color axes.edgecolor axes.labelcolor axes.titlecolor xtick.color ytick.color"
_SIZED = "font.size xtick.labelsize ytick.labelsize axes.labelsize"
_SETTINGS: dict[Any, Any] = {
    **dict.fromkeys(_INKED.split(), _INK),
    **dict.fromkeys(_SIZED.split(), 8.5),
    "text.parse_math": False,
    "svg.hashsalt": "secure_fl",
    "svg.fonttype": "none",
    "savefig.dpi": 150,
}
_COUNTS = ("round", "rounds of training", "clients", "training examples")
"""Axes with these labels carry whole numbers."""


@dataclass(frozen=True)
class Key:
    """One entry of a legend; `dash` is that of a line (SVG's), None for an area or dots."""

    label: str
    colour: str
    dash: str | None = None


@dataclass(frozen=True)
class Chart:
    """A plot for the page.

    Attributes:
        title: above it.
        alt: what it shows, for whoever cannot see it.
        svg: the drawing, on whatever is behind it, with dark ink.
        keys: the legend, which the page writes below.
    """

    title: str
    alt: str
    svg: str
    keys: tuple[Key, ...] = ()

    @property
    def in_the_dark(self) -> str:
        """The drawing with light ink."""
        return self.svg.replace(_INK, _INK_IN_THE_DARK)


def pool_colour(pool: int) -> str:
    """A pool's colour, the same in every plot and table."""
    return COLOURS[pool % len(COLOURS)]


def called(names: Sequence[str], number: int, kind: str = "") -> str:
    """A label's or group's name, or its number."""
    name = printable(names[number]) if 0 <= number < len(names) else ""
    return name or f"{kind} {number}".strip()


def shortened(text: str) -> str:
    """A tick's text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_LABEL else line[: _LONGEST_LABEL - 1] + "…"


def line_style(place: int) -> tuple[str, tuple[float, ...]]:
    """Colour and dashes of a line: lines that share a colour differ in dashes, and neighbours
    in both.
    """
    return COLOURS[place % len(COLOURS)], _DASHES[place % len(_DASHES)]


def line_keys(names: Sequence[str]) -> tuple[Key, ...]:
    """The legend of lines, in the order in which they are drawn."""
    return tuple(
        Key(name, line_style(place)[0], " ".join(f"{each:g}" for each in line_style(place)[1]))
        for place, name in enumerate(names)
    )


@contextmanager
def drawing() -> Iterator[None]:
    """Settings while a figure is made and drawn. Text is drawn as it is written: a `$` in a name
    starts no formula.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        remedy = "pip install 'secure-fl[report]'"
        raise DependencyError("plots need matplotlib", "report", None, remedy) from None
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # a name in another script: the viewer's own fonts have it
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure without pyplot, so that no global state and no display is touched."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file whose suffix names the format. Raises ConfigError: it is no
    format's.
    """
    for axes in figure.axes:
        _plain(axes)
    try:
        figure.savefig(path, dpi=110, bbox_inches="tight")
    except ValueError as error:
        remedy = "end the name in .png, .svg or .pdf"
        raise ConfigError(f"{error}", "plot", str(path), remedy) from None


def as_svg(figure: Figure) -> str:
    """A figure as SVG, on whatever is behind it."""
    for axes in figure.axes:
        _plain(axes)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return text.getvalue()


def _plain(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.spines[["top", "right"]].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.label.get_text() in _COUNTS:
            axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
