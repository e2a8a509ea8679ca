"""Plots of runs, as SVG text that a page can carry. One function a plot; matplotlib draws, nothing is shown."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secure_fl.data.summary import PartitionSummary
from secure_fl.errors import ConfigError, DependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POOL_COLOURS = ("#3b6fb6", "#e08a2e", "#4e9a57", "#b8484e", "#8064a8", "#8a6a4f", "#d37fb5", "#7a7a7a")
_MOST_HEATMAP_ROWS = 60
_COUNTS = ("round", "rounds of training", "clients")
"""Axes with these labels carry whole numbers."""


def accuracy_plot(runs: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    """Mean test accuracy over clients after each round, one line a run."""
    figure = _figure(5.6, 3.0)
    _draw_accuracy(figure.add_subplot(), runs)
    return _svg(figure)


def _draw_accuracy(axes: Axes, runs: Sequence[tuple[str, Sequence[float | None]]]) -> None:
    for name, accuracies in runs:
        known = [(number, value) for number, value in enumerate(accuracies) if value is not None]
        axes.plot([n for n, _ in known], [v for _, v in known], marker="o", markersize=3, label=name)
    axes.set_xlabel("rounds of training")
    axes.set_ylabel("accuracy, mean over clients")
    axes.set_ylim(0, 1)
    if len(runs) > 1:
        axes.legend(frameon=False, fontsize=8)


def occupancy_plot(counts: Sequence[Sequence[int]], title: str = "") -> str:
    """Clients in each pool, round by round, stacked."""
    figure = _figure(3.6, 2.4)
    _draw_occupancy(figure.add_subplot(), counts, title)
    return _svg(figure)


def _draw_occupancy(axes: Axes, counts: Sequence[Sequence[int]], title: str) -> None:
    floor = [0] * len(counts)
    for pool in range(len(counts[0])):
        heights = [row[pool] for row in counts]
        axes.bar(range(len(counts)), heights, bottom=floor, width=0.85, color=_POOL_COLOURS[pool % len(_POOL_COLOURS)], label=f"pool {pool}")
        floor = [a + b for a, b in zip(floor, heights, strict=True)]
    axes.set_xlabel("rounds of training")
    axes.set_ylabel("clients")
    axes.set_title(title, fontsize=9)


def save_comparison(runs: Sequence[tuple[str, dict[str, Any]]], path: Path) -> None:
    """Accuracy and occupancy of several runs, `(name, summary)`, as one picture; the suffix names the format.

    Raises:
        DependencyError: matplotlib is missing.
    """
    figure = _figure(2.6 * max(2, len(runs)), 5.2)
    grid = figure.add_gridspec(2, len(runs))
    above = figure.add_subplot(grid[0, :])
    _draw_accuracy(above, [(name, summary["pools"]["accuracy_per_round"]) for name, summary in runs])
    for column, (name, summary) in enumerate(runs):
        _draw_occupancy(figure.add_subplot(grid[1, column]), summary["pools"]["occupancy_per_round"], name)
    _save(figure, path)


def loss_plot(losses: Sequence[float], terms: Sequence[dict[str, float]]) -> str:
    """The pre-training loss and its terms, unweighted, after each round."""
    figure = _figure(5.6, 3.0)
    axes = figure.add_subplot()
    rounds = range(1, len(losses) + 1)
    axes.plot(rounds, losses, color="black", label="loss")
    for name in terms[0]:
        axes.plot(rounds, [term[name] for term in terms], linewidth=1, label=name)
    axes.set_xlabel("round")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def spent_plot(epsilons: Sequence[float], budget: float) -> str:
    """ε spent after each round of the run, all phases in order, and the budget."""
    figure = _figure(5.6, 2.4)
    axes = figure.add_subplot()
    axes.step(range(1, len(epsilons) + 1), epsilons, where="post", color="black")
    axes.axhline(budget, color="#b00020", linewidth=1, linestyle="--", label="budget")
    axes.set_ylim(0, None)
    axes.set_xlabel("round")
    axes.set_ylabel("ε spent")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def embedding_plot(embedding: dict[str, Any], colour_by: str) -> str:
    """Test examples on the two principal axes of their unit features, before and after pre-training."""
    figure = _figure(6.4, 3.1)
    values = [-1 if value is None else value for value in embedding[colour_by]]
    for number, (stage, title) in enumerate((("initial", "random encoder"), ("final", "pre-trained encoder")), 1):
        axes = figure.add_subplot(1, 2, number)
        points = embedding[stage]
        dots = axes.scatter([p[0] for p in points], [p[1] for p in points], c=values, cmap="tab10", s=5, linewidths=0, rasterized=True)
        axes.set_title(f"{title}, by {colour_by}", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        if number == 2 and len(set(values)) > 1:
            handles, labels = dots.legend_elements()
            axes.legend(handles, labels, frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure)


def partition_plot(summary: PartitionSummary) -> str:
    """Training examples of each label at each client."""
    return _svg(_partition_figure(summary))


def save_partition(summary: PartitionSummary, path: Path) -> None:
    """Write the partition plot to a file whose suffix names the format.

    Raises:
        DependencyError: matplotlib is missing.
    """
    _save(_partition_figure(summary), path)


def _partition_figure(summary: PartitionSummary) -> Figure:
    clients = summary.clients[:_MOST_HEATMAP_ROWS]
    figure = _figure(5.6, max(1.6, 0.22 * len(clients) + 0.8))
    axes = figure.add_subplot()
    if summary.classes:
        image = axes.imshow([client.labels for client in clients], cmap="Blues", aspect="auto", vmin=0)
        figure.colorbar(image, ax=axes, label="training examples")
        axes.set_xlabel("label")
    else:
        axes.barh(range(len(clients)), [client.examples for client in clients])
        axes.invert_yaxis()
        axes.set_xlabel("training examples")
    axes.set_yticks(range(len(clients)), [f"{c.client}  {c.note[:18]}" for c in clients], fontsize=7)
    axes.set_ylabel("client")
    return figure


def _figure(width: float, height: float) -> Figure:
    """A figure without pyplot, so that no global state and no display is touched."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise DependencyError("plots need matplotlib", field="report", value=None, remedy="pip install 'secure-fl[report]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        _plain(axes)
    try:
        figure.savefig(path, dpi=110, bbox_inches="tight")
    except ValueError as error:
        raise ConfigError(f"{error}", field="plot", value=str(path), remedy="end the name in .png, .svg or .pdf") from None


def _svg(figure: Figure) -> str:
    import matplotlib as mpl

    for axes in figure.axes:
        _plain(axes)
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "secure_fl", "svg.fonttype": "none", "savefig.dpi": 150}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _plain(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.label.get_text() in _COUNTS:
            axis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)
