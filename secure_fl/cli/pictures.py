"""The picture of `secure-fl data --plot`: the partition, and an example of each class as read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from secure_fl.data.dataset import UNLABELLED, Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.data.summary import PartitionSummary
from secure_fl.errors import ConfigError, need

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_EXAMPLES = 10
_MOST_ROWS = 60
_MOST_LINES = 6


_FORMATS = (".png", ".svg", ".pdf")
_NAME_IT = "end the name in .png, .svg or .pdf"


def save_examples(summary: PartitionSummary, clients: Sequence[ClientData], path: Path) -> None:
    """Write the picture to a file whose suffix names the format.

    Raises:
        DependencyError: matplotlib is missing.
        ConfigError: no format of that name.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(
            "ends in no format that is drawn", field="--plot", value=str(path), remedy=_NAME_IT
        )
    need("matplotlib", "report", "--plot")
    from matplotlib.figure import Figure

    shown = one_a_class(clients)
    rows = min(_MOST_ROWS, len(summary.clients))
    figure = Figure(
        figsize=(max(5.6, 0.9 * len(shown)), max(1.6, 0.22 * rows + 0.8) + 1.3),
        layout="constrained",
    )
    halves = figure.add_gridspec(2, 1, height_ratios=[max(1.6, 0.22 * rows + 0.8), 1.3])
    above, below = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    _draw_partition(above.add_subplot(), summary, rows)
    for number, (title, example) in enumerate(shown, 1):
        axes = below.add_subplot(1, len(shown), number)
        _draw_example(axes, example)
        axes.set_title(title[:14], fontsize=7)
    try:
        figure.savefig(path, dpi=110, bbox_inches="tight")
    except ValueError as error:
        raise ConfigError(f"{error}", field="--plot", value=str(path), remedy=_NAME_IT) from None


def one_a_class(clients: Sequence[ClientData]) -> list[tuple[str, Dataset]]:
    """The first example of each of the first classes, by name; without labels, of clients."""
    found: dict[int, Dataset] = {}
    for client in clients:
        for row, label in enumerate(client.train.y.tolist()):
            if label != UNLABELLED and label not in found and len(found) < _MOST_EXAMPLES:
                found[label] = client.train.take(client.train.y.new_tensor([row]))
    if not found:
        return [
            (client.name, client.train.take(client.train.y.new_tensor([0])))
            for client in clients[:_MOST_EXAMPLES]
        ]
    return [
        (example.class_names[label] if example.class_names else str(label), example)
        for label, example in sorted(found.items())
    ]


def _draw_partition(axes: Axes, summary: PartitionSummary, rows: int) -> None:
    clients = summary.clients[:rows]
    if summary.classes:
        image = axes.imshow(
            [client.labels for client in clients], cmap="Blues", aspect="auto", vmin=0
        )
        axes.figure.colorbar(image, ax=axes, label="training examples")
        axes.set_xlabel("label", fontsize=8)
        if summary.class_names and summary.classes <= 20:
            names = [name[:14] for name in summary.class_names]
            axes.set_xticks(range(summary.classes), names, rotation=45, ha="right")
    else:
        axes.barh(range(len(clients)), [client.examples for client in clients])
        axes.invert_yaxis()
        axes.set_xlabel("training examples", fontsize=8)
    axes.set_yticks(range(len(clients)), [f"{c.name or c.client}  {c.note[:18]}" for c in clients])
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_example(axes: Axes, example: Dataset) -> None:
    """An image (its first channel, unless grey or colour), a series' channels, or a vector."""
    x = example.x[0].numpy()
    if example.kind == "image":
        pixels = x.transpose(1, 2, 0) if len(x) == 3 else x[0]
        spread = float(pixels.max() - pixels.min()) or 1.0
        axes.imshow((pixels - pixels.min()) / spread if pixels.ndim == 3 else pixels, cmap="gray")
    elif example.kind == "series":
        axes.plot(x[:_MOST_LINES].T, linewidth=0.6)
    else:
        axes.bar(range(len(x)), x)
    axes.set_xticks([])
    axes.set_yticks([])
