"""Plots of runs. One function a plot; matplotlib draws, nothing is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from colorsys import hls_to_rgb
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from secure_fl.federation.run_summary import FinalPools

_NEITHER = "#a9b1ba"
"""The colour of dots without a label."""
_MOST_KEYS = 20


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
        colour, dash = line_style(place)
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
    axes.set_xlabel("rounds of training")
    axes.set_ylabel("clients")


def save_comparison(runs: Sequence[tuple[str, FinalPools]], path: Path) -> None:
    """Accuracy and occupancy of several runs, `(name, pools)`, as one picture; the suffix names
    the format.

    Raises:
        DependencyError: matplotlib is missing.
        ConfigError: the name's end is no format's.
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
            colour, dash = line_style(place)
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
        svg = as_svg(figure)
    alt = (
        f"Lines: the pre-training loss and its terms, by round. The loss goes from {losses[0]:.3g} "
        f"to {losses[-1]:.3g}."
    )
    return Chart("Pre-training loss", alt, svg, line_keys(list(lines)))


def spent_plot(epsilons: Sequence[float], budget: float) -> Chart:
    """ε spent after each round of the run, all phases in order, and the budget."""
    with drawing():
        figure = new_figure(4.2, 2.4)
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
        svg = as_svg(figure)
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
    with drawing():
        figure = new_figure(4.2, 2.4)
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
