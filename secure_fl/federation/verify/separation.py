"""The weights of the separation again, from what the rounds before measured. No torch.

Guarantee: where nothing is found, each round of pre-training was trained with the weights that its
configuration's rule gives for the difference that is on record.
Assumes: the record holds what the sums gave, which whoever holds them computes again.
Not covered: with which weights a client really trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from secure_fl.config import FederationConfig
from secure_fl.federation.run_folder.metrics import RoundRecord, Separated


def separations_again(
    config: FederationConfig, lines: Sequence[RoundRecord]
) -> Iterator[tuple[int, str]]:
    """Lines of `metrics.jsonl`, by number from 1, whose weights are others, and how."""
    adaptive, difference = config.objective.adaptive, None
    for number, line in enumerate(lines, 1):
        metrics = line.metrics
        if line.phase == "sketch" and config.sketches_first:
            difference = difference if metrics.difference is None else metrics.difference
        if line.phase != "pretrain":
            continue
        expected = Separated.of(config.objective, difference) if adaptive else None
        if metrics.separation != expected:
            yield number, "not the weights that follow from how far clients differed before"
        if not config.sketches_first and metrics.differences:
            difference = difference if metrics.differences[0] is None else metrics.differences[0]
