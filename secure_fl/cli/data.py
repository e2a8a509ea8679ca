"""`secure-fl data`: the partition, shown before hours are spent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_fl.cli.console import out, table

_MOST_CLASSES = 12


def data(
    config: Annotated[Path, typer.Argument(help="Configuration.")],
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="a.b=c", help="Change a setting; may be repeated.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Also draw it: a file ending in .png, .svg or .pdf.")] = None,
) -> None:
    """Show what each client would hold: examples, tests, labels, known group."""
    from secure_fl.config_file import load_config
    from secure_fl.data.partitions import partition
    from secure_fl.data.sources import load_sources
    from secure_fl.data.summary import summarise

    loaded = load_config(config, settings or [])
    summary = summarise(partition(load_sources(loaded.data, loaded.seed), loaded))
    labels = [str(label) for label in range(summary.classes)] if summary.classes <= _MOST_CLASSES else []
    rows = [
        [c.client, "-" if c.group is None else c.group, c.note, c.examples, c.validation, c.test, *(c.labels if labels else ())]
        for c in summary.clients
    ]
    out.print(table("", ["client", "group", "data", "train", "val", "test", *labels], rows))
    out.print(f"examples of shape {summary.shape}, {summary.classes} classes, label skew {summary.label_skew:.2f} (0 is IID)", markup=False)
    if plot is not None:
        from secure_fl.report.plots import save_partition

        save_partition(summary, plot)
        out.print(f"wrote {plot}", markup=False)
