"""Hooks into a run: progress on a terminal or in a notebook, and loggers for TensorBoard, MLflow
and Weights & Biases.

Public names, each imported when it is used:

- `Callback`: Hooks into a run; override what you need.
- `LiveProgress`: A bar for each phase and, under it, one for the clients of the round.
- `PlainProgress`: One line a round.
- `TensorBoard`: Writes every round's metrics for TensorBoard.
- `MLflow`: Logs every round's metrics to an MLflow run.
- `WeightsAndBiases`: Logs every round's metrics to a Weights & Biases run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.callbacks.base import Callback as Callback
    from secure_fl.callbacks.loggers import MLflow as MLflow
    from secure_fl.callbacks.loggers import TensorBoard as TensorBoard
    from secure_fl.callbacks.loggers import WeightsAndBiases as WeightsAndBiases
    from secure_fl.callbacks.progress import LiveProgress as LiveProgress
    from secure_fl.callbacks.progress import PlainProgress as PlainProgress

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "base": ["Callback"],
        "loggers": ["MLflow", "TensorBoard", "WeightsAndBiases"],
        "progress": ["LiveProgress", "PlainProgress"],
    },
)
