"""Plots of runs. One function a plot; matplotlib draws, nothing is shown. Figures are narrow, so
that they can be read on a phone.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from colorsys import hls_to_rgb
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secure_fl.data.summary import ClientSummary, PartitionSummary
from secure_fl.errors import ConfigError, DependencyError
from secure_fl.report.names import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
    "#3d7fc4",
    "#d9772b",
    "#3f9a5a",
    "#cf4a5c",
    "#8f6bc2",
    "#9a7355",
    "#c8609e",
    "#7c868f",
    "#2a9494",
    "#8a8a2b",
)
"""Of pools, runs and labels; each can be told from white and from near-black."""
_INK, _INK_IN_THE_DARK, _NEITHER = "#1f2733", "#d5dbe3", "#a9b1ba"
"""Of text and axes by day and by night, and of dots without a label."""
_DASHES: tuple[tuple[float, ...], ...] = ((), (4, 2), (1.5, 1.5), (6, 2, 1.5, 2))
_MOST_ROWS, _MOST_TICKS, _MOST_KEYS = 60, 25, 20
_LONGEST_LABEL = 16
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


def accuracy_plot(runs: Sequence[tuple[str, Sequence[float | None]]]) -> Chart:
    """Mean test accuracy over clients after each round, one line a run."""
    with _style():
        figure = _figure(4.2, 2.8)
        _draw_accuracy(figure.add_subplot(), runs)
        svg = _svg(figure)
    ends = [(name, [value for value in course if value is not None]) for name, course in runs]
    told = "; ".join(
        f"{name}: from {known[0]:.2f} to {known[-1]:.2f}" for name, known in ends if known
    )
    alt = f"Lines: test accuracy, mean over clients, by rounds of training. {told}."
    return Chart("Accuracy per round", alt, svg, _line_keys([name for name, _ in runs]))


def _draw_accuracy(axes: Axes, runs: Sequence[tuple[str, Sequence[float | None]]]) -> None:
    for place, (name, accuracies) in enumerate(runs):
        known = [(number, value) for number, value in enumerate(accuracies) if value is not None]
        colour, dash = _line(place)
        axes.plot(
            [n for n, _ in known],
            [v for _, v in known],
            marker="o",
            markersize=3,
            color=colour,
            linestyle=(0, dash) if dash else "-",
            label=name,
            clip_on=False,
        )
    axes.set_xlabel("rounds of training")
    axes.set_ylabel("accuracy, mean over clients")
    axes.set_ylim(0, 1)


def occupancy_plot(counts: Sequence[Sequence[int]], title: str) -> Chart:
    """Clients in each pool, round by round, stacked."""
    with _style():
        figure = _figure(4.2, 2.6)
        _draw_occupancy(figure.add_subplot(), counts)
        svg = _svg(figure)
    end = ", ".join(f"pool {pool}: {members}" for pool, members in enumerate(counts[-1]))
    alt = f"Stacked bars: clients in each pool of {title}, by rounds of training. At the end {end}."
    keys = tuple(Key(f"pool {pool}", pool_colour(pool)) for pool in range(len(counts[0])))
    return Chart(f"Clients in each pool: {title}", alt, svg, keys)


def pool_colour(pool: int) -> str:
    """A pool's colour, the same in every plot and table."""
    return COLOURS[pool % len(COLOURS)]


def _draw_occupancy(axes: Axes, counts: Sequence[Sequence[int]]) -> None:
    floor = [0] * len(counts)
    for pool in range(len(counts[0])):
        heights = [row[pool] for row in counts]
        axes.bar(range(len(counts)), heights, bottom=floor, width=0.85, color=pool_colour(pool))
        floor = [a + b for a, b in zip(floor, heights, strict=True)]
    axes.set_xlabel("rounds of training")
    axes.set_ylabel("clients")


def save_comparison(runs: Sequence[tuple[str, dict[str, Any]]], path: Path) -> None:
    """Accuracy and occupancy of several runs, `(name, summary)`, as one picture; the suffix names
    the format.

    Raises:
        DependencyError: matplotlib is missing.
        ConfigError: the name's end is no format's.
    """
    with _style():
        figure = _figure(2.6 * max(2, len(runs)), 5.2)
        grid = figure.add_gridspec(2, len(runs))
        above = figure.add_subplot(grid[0, :])
        _draw_accuracy(
            above, [(name, summary["pools"]["accuracy_per_round"]) for name, summary in runs]
        )
        above.legend(frameon=False, fontsize=8)
        for column, (name, summary) in enumerate(runs):
            below = figure.add_subplot(grid[1, column])
            _draw_occupancy(below, summary["pools"]["occupancy_per_round"])
            below.set_title(name, fontsize=9)
        _save(figure, path)


def loss_plot(losses: Sequence[float], terms: Sequence[dict[str, float]]) -> Chart:
    """The pre-training loss and its terms, unweighted, after each round."""
    lines = {"loss": losses, **{name: [term[name] for term in terms] for name in terms[0]}}
    with _style():
        figure = _figure(4.2, 2.6)
        axes = figure.add_subplot()
        for place, values in enumerate(lines.values()):
            colour, dash = _line(place)
            axes.plot(
                range(1, len(losses) + 1),
                values,
                color=colour,
                linestyle=(0, dash) if dash else "-",
                marker="o",
                markersize=2.5,
            )
        axes.set_xlabel("round")
        axes.set_ylabel("loss, mean over clients")
        svg = _svg(figure)
    alt = (
        f"Lines: the pre-training loss and its terms, by round. The loss goes from {losses[0]:.3g} "
        f"to {losses[-1]:.3g}."
    )
    return Chart("Pre-training loss", alt, svg, _line_keys(list(lines)))


def spent_plot(epsilons: Sequence[float], budget: float) -> Chart:
    """ε spent after each round of the run, all phases in order, and the budget."""
    with _style():
        figure = _figure(4.2, 2.4)
        axes = figure.add_subplot()
        colour, over = COLOURS[0], COLOURS[3]
        axes.step(
            range(1, len(epsilons) + 1),
            epsilons,
            where="post",
            color=colour,
            marker="o",
            markersize=3,
        )
        axes.axhline(budget, color=over, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.set_ylim(0, 1.08 * max(budget, *epsilons))
        axes.set_xlabel("round")
        axes.set_ylabel("ε spent")
        svg = _svg(figure)
    alt = (
        f"Steps: ε spent, by round, all phases in order: {epsilons[-1]:.2f} at the end, of a "
        f"budget of {budget:g}."
    )
    return Chart(
        "ε spent, round by round", alt, svg, (Key("spent", colour, ""), Key("budget", over, "4 2"))
    )


def embedding_plot(embedding: dict[str, Any], colour_by: str, names: Sequence[str] = ()) -> Chart:
    """Test examples on the two principal axes of their unit features, before and after
    pre-training.

    Args:
        embedding: of `embedding.json`.
        colour_by: `label`, `group` or `client`.
        names: of the labels, in the order of their numbers; numbers where there are none.
    """
    values = [-1 if value is None or value < 0 else value for value in embedding[colour_by]]
    found = sorted(set(values))
    colours = _colours(found)
    with _style():
        figure = _figure(4.2, 2.4)
        for place, (stage, title) in enumerate(
            (("initial", "random"), ("final", "pre-trained")), 1
        ):
            axes, points = figure.add_subplot(1, 2, place), embedding[stage]
            axes.scatter(
                [p[0] for p in points],
                [p[1] for p in points],
                c=[colours[value] for value in values],
                s=5,
                linewidths=0,
                rasterized=True,
            )
            axes.set_title(title, fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
        svg = _svg(figure)
    keys = [
        Key("none" if value < 0 else _called(names, value, colour_by), colours[value])
        for value in found
    ]
    alt = (
        "Two scatter plots: test examples under the random and the pre-trained encoder, coloured "
        f"by {colour_by}; {len(found)} colours."
    )
    shown = tuple(keys) if 1 < len(keys) <= _MOST_KEYS else ()
    return Chart(f"Embedding, by {colour_by}", alt, svg, shown)


def _colours(values: Sequence[int]) -> dict[int, str]:
    """A colour for each label: the page's where they are enough, else evenly around the circle."""
    if max(values, default=0) < len(COLOURS):
        return {value: _NEITHER if value < 0 else COLOURS[value] for value in values}
    turns = {
        value: hls_to_rgb(place / len(values), 0.45 + 0.15 * (place % 2), 0.6)
        for place, value in enumerate(values)
    }
    return {
        value: _NEITHER if value < 0 else "#" + "".join(f"{round(255 * part):02x}" for part in turn)
        for value, turn in turns.items()
    }


def partition_plot(summary: PartitionSummary) -> Chart:
    """Training examples of each label at each client."""
    with _style():
        svg = _svg(_partition_figure(summary, 4.2))
    clients, shown = len(summary.clients), min(len(summary.clients), _MOST_ROWS)
    kind = (
        f"Heat map: training examples of {summary.classes} labels"
        if summary.classes
        else "Bars: training examples"
    )
    part = "" if shown == clients else f", the first {shown} of them"
    return Chart(
        f"Who holds what{part}",
        f"{kind} at each of {clients} clients{part}; label skew "
        f"{summary.label_skew:.2f} (0 is even).",
        svg,
    )


def _partition_figure(summary: PartitionSummary, width: float) -> Figure:
    from matplotlib.colors import LinearSegmentedColormap, to_rgb
    from matplotlib.ticker import MaxNLocator

    clients = summary.clients[:_MOST_ROWS]
    labels = _label_ticks(summary.class_names, summary.classes)
    below = (
        1.5 + 0.075 * max(len(text) for text in labels.values()) * _are_upright(labels)
        if labels
        else 0.8
    )
    figure = _figure(width, 0.2 * max(4, len(clients)) + below)
    axes = figure.add_subplot()
    if labels:
        blue = to_rgb(COLOURS[0])
        # see-through where nothing is, on any ground
        shades = LinearSegmentedColormap.from_list("shades", [(*blue, 0.03), (*blue, 1.0)])
        image = axes.imshow(
            [client.labels for client in clients],
            cmap=shades,
            aspect="auto",
            vmin=0,
            interpolation="nearest",
        )
        figure.colorbar(
            image,
            ax=axes,
            label="training examples",
            location="bottom",
            aspect=40,
            pad=0.02,
            ticks=MaxNLocator(5, integer=True),
        )
        axes.set_xticks(
            list(labels), list(labels.values()), rotation=90 if _are_upright(labels) else 0
        )
        axes.set_xlabel("label")
    else:
        axes.barh(range(len(clients)), [client.examples for client in clients], color=COLOURS[0])
        axes.invert_yaxis()
        axes.set_xlabel("training examples")
    axes.set_yticks(range(len(clients)), [_row_label(client) for client in clients])
    axes.set_ylabel("client")
    return figure


def _label_ticks(names: Sequence[str], classes: int) -> dict[int, str]:
    """Texts of the labels by their place, every one where there is room; names where there
    are some.
    """
    step = -(-classes // _MOST_TICKS)
    return (
        {place: _short(_called(names, place)) for place in range(0, classes, step)}
        if classes
        else {}
    )


def _are_upright(labels: dict[int, str]) -> bool:
    """Whether labels are too long to stand side by side."""
    return max(len(text) for text in labels.values()) > max(1, 36 // len(labels))


def _called(names: Sequence[str], number: int, kind: str = "") -> str:
    """A label's or group's name, or its number."""
    name = printable(names[number]) if 0 <= number < len(names) else ""
    return name or f"{kind} {number}".strip()


def _row_label(client: ClientSummary) -> str:
    """A client's name, or its number and what its data are."""
    return _short(printable(client.name) or f"{client.client}  {client.note}".strip())


def _short(text: str) -> str:
    """A tick's text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_LABEL else line[: _LONGEST_LABEL - 1] + "…"


def _line(place: int) -> tuple[str, tuple[float, ...]]:
    """Colour and dashes of a line: lines that share a colour differ in dashes, and neighbours
    in both.
    """
    return COLOURS[place % len(COLOURS)], _DASHES[place % len(_DASHES)]


def _line_keys(names: Sequence[str]) -> tuple[Key, ...]:
    return tuple(
        Key(name, _line(place)[0], " ".join(f"{each:g}" for each in _line(place)[1]))
        for place, name in enumerate(names)
    )


@contextmanager
def _style() -> Iterator[None]:
    """Settings while a figure is made and drawn. Text is drawn as it is written: a `$` in a name
    starts no formula.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise DependencyError(
            "plots need matplotlib",
            field="report",
            value=None,
            remedy="pip install 'secure-fl[report]'",
        ) from None
    inked = dict.fromkeys(
        (
            "text.color",
            "axes.edgecolor",
            "axes.labelcolor",
            "axes.titlecolor",
            "xtick.color",
            "ytick.color",
        ),
        _INK,
    )
    plain = {
        "text.parse_math": False,
        "svg.hashsalt": "secure_fl",
        "svg.fonttype": "none",
        "savefig.dpi": 150,
    }
    sizes = {
        "font.size": 8.5,
        **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "axes.labelsize"), 8.5),
    }
    settings: dict[Any, Any] = {**inked, **plain, **sizes}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # a name in another script: the viewer's own fonts have it
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def _figure(width: float, height: float) -> Figure:
    """A figure without pyplot, so that no global state and no display is touched."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        _plain(axes)
    try:
        figure.savefig(path, dpi=110, bbox_inches="tight")
    except ValueError as error:
        raise ConfigError(
            f"{error}", field="plot", value=str(path), remedy="end the name in .png, .svg or .pdf"
        ) from None


def _svg(figure: Figure) -> str:
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
