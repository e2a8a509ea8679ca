"""The plot of a partition: how many training examples of each label each client holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from secure_fl.data.summary import ClientSummary, PartitionSummary
from secure_fl.report.figures import COLOURS, Chart, as_svg, called, drawing, new_figure, shortened
from secure_fl.report.names import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_MOST_ROWS, _MOST_TICKS = 60, 25


def partition_plot(summary: PartitionSummary) -> Chart:
    """Training examples of each label at each client."""
    with drawing():
        svg = as_svg(_partition_figure(summary, 4.2))
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
    clients = summary.clients[:_MOST_ROWS]
    labels = _label_ticks(summary.class_names, summary.classes)
    below = 0.8
    if labels:
        below = 1.5 + 0.075 * max(len(text) for text in labels.values()) * _are_upright(labels)
    figure = new_figure(width, 0.2 * max(4, len(clients)) + below)
    axes = figure.add_subplot()
    if labels:
        _draw_labels(figure, axes, clients, labels)
    else:
        axes.barh(range(len(clients)), [client.examples for client in clients], color=COLOURS[0])
        axes.invert_yaxis()
        axes.set_xlabel("training examples")
    axes.set_yticks(range(len(clients)), [_row_label(client) for client in clients])
    axes.set_ylabel("client")
    return figure


def _draw_labels(
    figure: Figure, axes: Axes, clients: Sequence[ClientSummary], labels: dict[int, str]
) -> None:
    """A heat map of clients by labels; `labels` are the ticks that have room."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb
    from matplotlib.ticker import MaxNLocator

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
    upright = _are_upright(labels)
    axes.set_xticks(list(labels), list(labels.values()), rotation=90 if upright else 0)
    axes.set_xlabel("label")


def _label_ticks(names: Sequence[str], classes: int) -> dict[int, str]:
    """Texts of the labels by their place, every one where there is room; names where there
    are some.
    """
    step = -(-classes // _MOST_TICKS)
    return (
        {place: shortened(called(names, place)) for place in range(0, classes, step)}
        if classes
        else {}
    )


def _are_upright(labels: dict[int, str]) -> bool:
    """Whether labels are too long to stand side by side."""
    return max(len(text) for text in labels.values()) > max(1, 36 // len(labels))


def _row_label(client: ClientSummary) -> str:
    """A client's name, or its number and what its data are."""
    return shortened(printable(client.name) or f"{client.client}  {client.note}".strip())
