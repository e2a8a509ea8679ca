"""The table of `secure-fl data`: what fits the terminal, label shares as bars."""

from __future__ import annotations

from collections.abc import Sequence

from secure_fl.data.summary import ClientSummary, PartitionSummary

_MOST_CLASSES = 12
_BLOCKS, _ASCII = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
_BARS = 24
"""Columns of a picture of label shares at most; more classes share one."""
_GAP = 2
"""Columns between those of a table."""
_LONGEST_NAME = 16
_OPTIONAL = ("test", "group", "val", "data")
"""Columns that a narrow terminal leaves out, the last first."""


def partition_table(
    summary: PartitionSummary, width: int, encoding: str
) -> tuple[list[str], list[list[object]]]:
    """Headings and rows that fit into `width` columns: clients by name, what each holds, and its
    label shares as a picture.

    Counts of labels follow where there is room and there are few classes.
    """
    bars = _BARS if width >= 80 else max(4, min(_BARS, width // 4))
    cells = _cells(summary, _LONGEST_NAME if width >= 60 else width // 4)
    shown = [name for name in cells if name not in _OPTIONAL]
    pictured: list[tuple[str, list[object]]] = []
    if summary.classes:
        pictured = [("labels", list(shares_pictures(summary, encoding, bars)))]
    left = width - _together([(name, cells[name]) for name in shown] + pictured)
    for name in _OPTIONAL:
        if left < _width(name, cells[name]):
            break
        left -= _width(name, cells[name])
        shown.append(name)
    if 0 < summary.classes <= _MOST_CLASSES and _together(counts := _counts(summary)) <= left:
        pictured += counts
    columns = [(name, cells[name]) for name in cells if name in shown] + pictured
    rows = zip(*(values for _, values in columns), strict=True)
    return [name for name, _ in columns], [list(row) for row in rows]


def _cells(summary: PartitionSummary, longest: int) -> dict[str, list[object]]:
    """Heading -> one cell a client."""
    clients = summary.clients
    return {
        "client": [_named(c, longest) for c in clients],
        "group": ["-" if c.group is None else c.group for c in clients],
        "data": [c.note for c in clients],
        "train": [c.examples for c in clients],
        "val": [c.validation for c in clients],
        "test": [c.test for c in clients],
    }


def _counts(summary: PartitionSummary) -> list[tuple[str, list[object]]]:
    """A column for each class, of every client's number of examples."""
    names = summary.class_names or tuple(map(str, range(summary.classes)))
    return [
        (name[:_LONGEST_NAME], [c.labels[number] for c in summary.clients])
        for number, name in enumerate(names)
    ]


def shares_pictures(summary: PartitionSummary, encoding: str, most: int) -> list[str]:
    """Each client's label shares as bars against its largest share, one a class or for neighbours
    beyond `most`; ASCII where the encoding has no block letters, empty without labels.
    """
    levels = _BLOCKS
    try:
        levels.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        levels = _ASCII
    bins = min(most, summary.classes)
    pictures = []
    for client in summary.clients:
        counts = [
            sum(client.labels[summary.classes * b // bins : summary.classes * (b + 1) // bins])
            for b in range(bins)
        ]
        top = max(counts, default=0)
        heights = [count and max(1, round(count / top * (len(levels) - 1))) for count in counts]
        pictures.append("".join(levels[height] for height in heights))
    return [f"|{bars}|" for bars in pictures]


def _named(client: ClientSummary, most: int) -> object:
    """A client's number where it has no name, else as much of its name as fits."""
    if client.name in ("", str(client.client)):
        return client.client
    return client.name if len(client.name) <= most else client.name[: max(1, most - 1)] + "~"


def _together(columns: Sequence[tuple[str, list[object]]]) -> int:
    return sum(_width(*column) for column in columns)


def _width(name: str, values: Sequence[object]) -> int:
    return max(len(name), *(len(str(value)) for value in values)) + _GAP
