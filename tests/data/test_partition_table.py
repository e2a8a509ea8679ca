"""The terminal's table and picture of a partition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from data.dealing import OPEN, deal
from helpers import make_images

from secure_fl import Dataset, FederationConfig
from secure_fl.cli.partition_table import partition_table
from secure_fl.data.partitions import partition
from secure_fl.data.summary import PartitionSummary, summarise
from secure_fl.errors import ConfigError


def summary_of(
    classes: int, clients: int = 3, name: str = "a ward with a very long name"
) -> PartitionSummary:
    images = make_images(60 * clients, classes=classes)
    owner = [f"{name} {number}" for number in range(clients)] * 60
    return summarise(
        partition(
            [(Dataset.from_arrays(images.x, images.y, client=owner), None)],
            FederationConfig(**OPEN),
        )
    )


@pytest.mark.parametrize("width", [40, 60, 80, 160])
@pytest.mark.parametrize("classes", [3, 10, 200])
def test_the_table_fits_the_terminal_and_pictures_label_shares(width: int, classes: int) -> None:
    summary = summary_of(3) if classes == 3 else summary_of(10)
    if classes == 200:
        rows = tuple(
            type(row)(**{**vars(row), "labels": row.labels * 20}) for row in summary.clients
        )
        summary = PartitionSummary(summary.shape, 200, summary.label_skew, rows)
    for encoding in ("utf-8", "ascii", "cp1252", "no such encoding"):
        columns, rows_shown = partition_table(summary, width, encoding)
        widths = [
            max(len(name), *(len(str(row[i])) for row in rows_shown)) + 2
            for i, name in enumerate(columns)
        ]
        assert sum(widths) <= width
        assert {"client", "train", "labels"} <= set(columns)
        bars = [str(row[columns.index("labels")]) for row in rows_shown]
        assert all(bar.isascii() for bar in bars) == (encoding != "utf-8")
        assert len({len(bar) for bar in bars}) == 1


def test_bars_follow_the_labels_a_client_holds() -> None:
    x, y, owner = torch.rand(90, 2), np.repeat([0, 1, 2], 30), np.repeat(["a", "b", "c"], 30)
    summary = summarise(deal(Dataset.from_arrays(x, y, client=owner)))
    columns, rows = partition_table(summary, 80, "utf-8")
    assert [row[columns.index("labels")] for row in rows] == ["|█  |", "| █ |", "|  █|"]
    assert [row[columns.index("client")] for row in rows] == ["a", "b", "c"]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (5, 8, 8), (2, 40), (6,)])
@pytest.mark.parametrize("labelled", [True, False])
def test_the_picture_shows_the_partition_and_examples(
    tmp_path: Path, shape: tuple[int, ...], labelled: bool
) -> None:
    pytest.importorskip("matplotlib")
    from secure_fl.cli.pictures import one_a_class, save_examples

    names = np.asarray(["u", "v", "w"])[np.arange(60) % 3] if labelled else None
    clients = deal(
        Dataset.from_arrays(torch.rand(60, *shape), names, client=np.asarray(["n", "s"] * 30))
    )
    assert [title for title, _ in one_a_class(clients)] == (
        ["u", "v", "w"] if labelled else ["n", "s"]
    )
    save_examples(summarise(clients), clients, tmp_path / "who.svg")
    drawn = (tmp_path / "who.svg").read_text()
    assert drawn.startswith("<?xml")
    with pytest.raises(ConfigError, match="plot"):
        save_examples(summarise(clients), clients, tmp_path / "who.txt")
