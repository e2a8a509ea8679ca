"""Dropout whose masks belong to examples, whoever else was drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from math import prod

import torch
from torch import Tensor, nn

from secure_fl.coins import Draws, Use
from secure_fl.errors import PrivacyError

_ELEMENTS, _CHANNELS = (nn.Dropout,), (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@contextmanager
def keyed_dropout(model: nn.Module, draws: Draws) -> Iterator[None]:
    """Within it, dropout layers in train mode take their masks from one row of coins for each row
    of the batch.

    Raises:
        PrivacyError: a layer drops in another way, gets another number of rows, or is computed once
            more in a backward pass, which would take other masks than the forward one.
    """
    number = count(Use.DROPOUT)
    dropouts = (each for each in model.modules() if isinstance(each, nn.modules.dropout._DropoutNd))
    layers = [layer for layer in dropouts if layer.training and layer.p > 0]
    for layer in layers:
        if type(layer) not in (*_ELEMENTS, *_CHANNELS):
            problem = "drops in a way that has no masks for each example"
            remedy = "use nn.Dropout, or 1d, 2d and 3d"
            raise PrivacyError(problem, "model", type(layer).__name__, remedy)
    try:
        for layer in layers:
            layer.forward = _masked(layer, draws, number)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def row_draws(draws: Draws, units: int, rows_per_unit: int) -> Draws:
    """From a row of coins for each example to one for each row: members, view by view."""
    members = len(draws) // units
    examples = torch.arange(len(draws)).view(units, members).repeat(1, rows_per_unit // members)
    views = torch.arange(rows_per_unit // members).repeat_interleave(members).repeat(units)
    return draws[examples.flatten()].of_view(views)


def _masked(
    layer: nn.modules.dropout._DropoutNd, draws: Draws, number: count[int]
) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        if torch._C._current_graph_task_id() != -1:
            problem = "would drop others where it is computed again"
            remedy = "keep dropout outside of torch.utils.checkpoint"
            raise PrivacyError(problem, "model", type(layer).__name__, remedy)
        if len(x) != len(draws):
            problem = "rows cannot be told apart in dropout"
            remedy = "keep the batch as the first axis of what dropout takes"
            raise PrivacyError(problem, "model", ("N", *x.shape[1:]), remedy)
        shape = x.shape[1:] if type(layer) in _ELEMENTS else (x.shape[1], *[1] * (x.ndim - 2))
        kept = draws.kept(prod(shape), 1 - layer.p, next(number)).view(-1, *shape).to(x.device)
        return x * kept / (1 - layer.p) if layer.p < 1 else torch.zeros_like(x)

    return forward
