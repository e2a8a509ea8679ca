"""One round, as a line of `metrics.jsonl` holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Metrics = dict[str, Any]


@dataclass(frozen=True)
class RoundRecord:
    """One round, as a line of `metrics.jsonl` holds it.

    `seconds`, `sum_seconds` are None, and `metrics` has gaps, where a line was read back that was
    written without the experimenter's fields.

    Attributes:
        phase: name of the step.
        round: counted from 1 within the step.
        clients: asked.
        bytes_down, bytes_up: bodies of messages, over all clients.
        seconds, sum_seconds: wall time, and the secure sum's part of it.
    """

    phase: str
    round: int
    clients: int
    bytes_down: int
    bytes_up: int
    seconds: float | None = None
    metrics: Metrics = field(default_factory=dict)
    sum_seconds: float | None = None
