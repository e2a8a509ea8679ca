"""Plots of runs. One function a plot; matplotlib draws, nothing is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from colorsys import hls_to_rgb
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secure_fl.data.summary import ClientSummary, PartitionSummary
from secure_fl.report.figures import (
    COLOURS,
    Chart,
    Key,
    as_svg,
    called,
    drawing,
    line_keys,
    line_style,
    new_figure,
    pool_colour,
    save,
    shortened,
)
from secure_fl.report.names import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from secure_fl.federation.run_folder.metrics import Separated
    from secure_fl.federation.run_folder.summary import FinalPools

_NEITHER = "#a9b1ba"
"""The colour of dots without a label."""
_MOST_KEYS = 20
_MOST_ROWS, _MOST_TICKS = 60, 25


def accuracy_plot(runs: Sequence[tuple[str, Sequence[float | None]]]) -> Chart:
    """Mean test accuracy over clients after each round, one line a run."""
    with drawing():
        figure = new_figure(4.2, 2.8)
        _draw_accuracy(figure.add_subplot(), runs)
        svg = as_svg(figure)
    ends = [(name, [value for value in course if value is not None]) for name, course in runs]
    told = "; ".join(
        f"{name}: from {known[0]:.2f} to {known[-1]:.2f}" for name, known in ends if known
    )
    alt = f"Lines: test accuracy, mean over clients, by rounds of training. {told}."
    return Chart("Accuracy per round", alt, svg, line_keys([name for name, _ in runs]))


def _draw_accuracy(axes: Axes, runs: Sequence[tuple[str, Sequence[float | None]]]) -> None:
    for place, (name, accuracies) in enumerate(runs):
        known = [(number, value) for number, value in enumerate(accuracies) if value is not None]
        _draw_line(axes, place, *zip(*known, strict=True), label=name, clip_on=False)
    axes.set(xlabel="rounds of training", ylabel="accuracy, mean over clients", ylim=(0, 1))


def _draw_line(
    axes: Axes, place: int, x: Sequence[float] = (), y: Sequence[float] = (), **more: Any
) -> None:
    """One line of several, in the style of its place."""
    colour, dash = line_style(place)
    style = (0, dash) if dash else "-"
    axes.plot(x, y, marker="o", markersize=3, color=colour, linestyle=style, **more)


def occupancy_plot(counts: Sequence[Sequence[int]], title: str) -> Chart:
    """Clients in each pool, round by round, stacked."""
    with drawing():
        figure = new_figure(4.2, 2.6)
        _draw_occupancy(figure.add_subplot(), counts)
        svg = as_svg(figure)
    end = ", ".join(f"pool {pool}: {members}" for pool, members in enumerate(counts[-1]))
    alt = f"Stacked bars: clients in each pool of {title}, by rounds of training. At the end {end}."
    keys = tuple(Key(f"pool {pool}", pool_colour(pool)) for pool in range(len(counts[0])))
    return Chart(f"Clients in each pool: {title}", alt, svg, keys)


def _draw_occupancy(axes: Axes, counts: Sequence[Sequence[int]]) -> None:
    floor = [0] * len(counts)
    for pool in range(len(counts[0])):
        heights = [row[pool] for row in counts]
        axes.bar(range(len(counts)), heights, bottom=floor, width=0.85, color=pool_colour(pool))
        floor = [a + b for a, b in zip(floor, heights, strict=True)]
    axes.set(xlabel="rounds of training", ylabel="clients")


def save_comparison(runs: Sequence[tuple[str, FinalPools]], path: Path) -> None:
    """Accuracy and occupancy of several runs, `(name, pools)`, as one picture; the suffix names the
    format. Raises DependencyError: matplotlib is missing; ConfigError: the name's end is no
    format's.
    """
    with drawing():
        figure = new_figure(2.6 * max(2, len(runs)), 5.2)
        grid = figure.add_gridspec(2, len(runs))
        above = figure.add_subplot(grid[0, :])
        _draw_accuracy(above, [(name, pools.accuracy_per_round) for name, pools in runs])
        above.legend(frameon=False, fontsize=8)
        for column, (name, pools) in enumerate(runs):
            below = figure.add_subplot(grid[1, column])
            _draw_occupancy(below, pools.occupancy_per_round)
            below.set_title(name, fontsize=9)
        save(figure, path)


def loss_plot(losses: Sequence[float], terms: Sequence[Mapping[str, float]]) -> Chart:
    """The pre-training loss and its terms, unweighted, after each round."""
    lines = {"loss": losses, **{name: [term[name] for term in terms] for name in terms[0]}}
    with drawing():
        figure = new_figure(4.2, 2.6)
        axes = figure.add_subplot()
        for place, values in enumerate(lines.values()):
            _draw_line(axes, place, range(1, len(losses) + 1), values)
        axes.set(xlabel="round", ylabel="loss, mean over clients")
        svg = as_svg(figure)
    alt = (
        f"Lines: the pre-training loss and its terms, by round. The loss goes from {losses[0]:.3g} "
        f"to {losses[-1]:.3g}."
    )
    return Chart("Pre-training loss", alt, svg, line_keys(list(lines)))


def separation_plot(rounds: Sequence[Separated]) -> Chart:
    """How far clients differed when a round of pre-training began, and the weights that followed,
    over those of the first round.
    """
    first, known = rounds[0], [each.difference for each in rounds if each.difference is not None]
    lines: dict[str, list[float | None]] = {
        "difference of clients": [each.difference for each in rounds],
        "gamma over its first": [each.gamma / (first.gamma or 1) for each in rounds],
        "delta over its first": [each.delta / (first.delta or 1) for each in rounds],
    }
    with drawing():
        figure = new_figure(4.2, 2.6)
        axes = figure.add_subplot()
        for place, values in enumerate(lines.values()):
            points = [(number, each) for number, each in enumerate(values, 1) if each is not None]
            _draw_line(axes, place, *zip(*points, strict=True))
        axes.set(xlabel="round")
        svg = as_svg(figure)
    alt = (
        f"Lines: how far clients differ, last {known[-1]:.2f} of 1, and the weights of the "
        f"separation, by round of pre-training: gamma goes from {first.gamma:.3g} to "
        f"{rounds[-1].gamma:.3g}, delta from {first.delta:.3g} to {rounds[-1].delta:.3g}."
        if known
        else "Nothing was measured yet."
    )
    return Chart("Separation of clients in pre-training", alt, svg, line_keys(list(lines)))


def spent_plot(epsilons: Sequence[float], budget: float) -> Chart:
    """ε spent after each round of the run, all phases in order, and the budget."""
    with drawing():
        figure = new_figure(4.2, 2.4)
        axes = figure.add_subplot()
        colour, over = COLOURS[0], COLOURS[3]
        rounds = range(1, len(epsilons) + 1)
        axes.step(rounds, epsilons, where="post", color=colour, marker="o", markersize=3)
        axes.axhline(budget, color=over, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.set(xlabel="round", ylabel="ε spent", ylim=(0, 1.08 * max(budget, *epsilons)))
        svg = as_svg(figure)
    alt = (
        f"Steps: ε spent, by round, all phases in order: {epsilons[-1]:.2f} at the end, of a "
        f"budget of {budget:g}."
    )
    keys = Key("spent", colour, ""), Key("budget", over, "4 2")
    return Chart("ε spent, round by round", alt, svg, keys)


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
    with drawing():
        figure = new_figure(4.2, 2.4)
        stages = (("initial", "random"), ("final", "pre-trained"))
        for place, (stage, title) in enumerate(stages, 1):
            axes, (x, y) = figure.add_subplot(1, 2, place), zip(*embedding[stage], strict=True)
            own = [colours[value] for value in values]
            axes.scatter(x, y, c=own, s=5, linewidths=0, rasterized=True)
            axes.set_title(title, fontsize=9)
            axes.set(xticks=[], yticks=[])
        svg = as_svg(figure)
    keys = [
        Key("none" if value < 0 else called(names, value, colour_by), colours[value])
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
    with drawing():
        svg = as_svg(_partition_figure(summary, 4.2))
    clients, shown = len(summary.clients), min(len(summary.clients), _MOST_ROWS)
    kind = "Bars: training examples"
    if summary.classes:
        kind = f"Heat map: training examples of {summary.classes} labels"
    part = "" if shown == clients else f", the first {shown} of them"
    skew = f"label skew {summary.label_skew:.2f} (0 is even)"
    return Chart(
        f"Who holds what{part}", f"{kind} at each of {clients} clients{part}; {skew}.", svg
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
    held = [client.labels for client in clients]
    image = axes.imshow(held, cmap=shades, aspect="auto", vmin=0, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, location="bottom", aspect=40, pad=0.02)
    bar.set_label("training examples")
    bar.set_ticks(MaxNLocator(5, integer=True))
    upright = _are_upright(labels)
    axes.set_xticks(list(labels), list(labels.values()), rotation=90 if upright else 0)
    axes.set_xlabel("label")


def _label_ticks(names: Sequence[str], classes: int) -> dict[int, str]:
    """Texts of the labels by their place, every one where there is room; names where there
    are some.
    """
    step = max(1, -(-classes // _MOST_TICKS))
    return {place: shortened(called(names, place)) for place in range(0, classes, step)}


def _are_upright(labels: dict[int, str]) -> bool:
    """Whether labels are too long to stand side by side."""
    return max(len(text) for text in labels.values()) > max(1, 36 // len(labels))


def _row_label(client: ClientSummary) -> str:
    """A client's name, or its number and what its data are."""
    return shortened(printable(client.name) or f"{client.client}  {client.note}".strip())
