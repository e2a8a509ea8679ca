"""Quantities as people read them."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes in decimal units: `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def counted(number: int, what: str) -> str:
    """`1 round`, `2 rounds`, `2 parties`, `2 classes`."""
    many = f"{what[:-1]}ies" if what.endswith("ty") else f"{what}{'es' * what.endswith('s') or 's'}"
    return f"{number} {what if number == 1 else many}"


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def duration(seconds: float) -> str:
    """`12 s`, `2 min 3 s` or `1 h 2 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    shown = [f"{count} {unit}" for count, unit in parts if count][:2]
    return " ".join(shown) or "0 s"
