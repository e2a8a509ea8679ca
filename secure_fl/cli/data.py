"""`secure-fl data`: the partition, shown before hours are spent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_fl.cli.common import Settings
from secure_fl.cli.console import Sheet, out
from secure_fl.quantities import counted

if TYPE_CHECKING:
    from secure_fl.data.partitions import ClientData
    from secure_fl.data.summary import PartitionSummary

_MOST_CLASSES = 12


def data(
    config: Annotated[Path, typer.Argument(help="Configuration.")],
    settings: Settings = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Also draw it, and an example of each class: a file ending in .png, .svg or .pdf."
        ),
    ] = None,
) -> None:
    """Show what each client would hold, and what the examples were read as."""
    from secure_fl.cli.partition_table import partition_table
    from secure_fl.config_file import load_config
    from secure_fl.data.partitions import partition
    from secure_fl.data.sources import load_sources
    from secure_fl.data.summary import summarise

    loaded = load_config(config, settings or [])
    clients = partition(load_sources(loaded.data, loaded.seed), loaded)
    summary = summarise(clients)
    columns, rows = partition_table(summary, out.width, out.encoding)
    out.print(Sheet("", columns, rows))
    for line in _reading(clients, summary):
        out.print(line)
    if plot is not None:
        from secure_fl.cli.pictures import save_examples

        save_examples(summary, clients, plot)
        out.print(f"wrote {plot}")


def _reading(clients: Sequence[ClientData], summary: PartitionSummary) -> list[str]:
    """What was read as what, in words."""
    first = clients[0].train
    names = ", ".join(summary.class_names[:_MOST_CLASSES])
    more = ", …" if len(summary.class_names) > _MOST_CLASSES else ""
    names = f": {names}{more}" if names else ""
    notes = list(dict.fromkeys(note for client in clients for note in client.train.notes))
    skew = f"label skew {summary.label_skew:.2f} (0 is IID)"
    figures = f"{counted(summary.classes, 'class')}, {skew}{names}"
    return [f"read as {first.reading}", *notes, f"examples of shape {summary.shape}, {figures}"]
