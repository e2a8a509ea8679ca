"""Loggers for TensorBoard, MLflow and Weights & Biases: the numbers of every round, as the manifest
lets them be written.

A round's record comes here as it goes into `metrics.jsonl`: with `evaluate.enabled = false` no
field of the experimenter's is in it. Numbers of single clients stay out in any case, since these
tools send what they are given elsewhere. Steps are rounds, which begin at 1 in every phase.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secure_fl.callbacks.base import Callback
from secure_fl.errors import DependencyError
from secure_fl.records import document

if TYPE_CHECKING:
    from secure_fl.federation.run_folder.metrics import RoundRecord
    from secure_fl.finished.result import Result

_OF_SINGLE_CLIENTS = ("choices", "accuracies")


class TensorBoard(Callback):
    """Writes every round's metrics for TensorBoard. Raises DependencyError: TensorBoard is not
    installed.

    Args:
        folder: where event files go; see them with `tensorboard --logdir FOLDER`.
    """

    def __init__(self, folder: Path | str) -> None:
        _needed("tensorboard", "tensorboard")
        self._writer: Any = _needed("torch.utils.tensorboard", "tensorboard").SummaryWriter(
            str(folder)
        )

    def on_round(self, record: RoundRecord) -> None:
        for name, value in numbers(record).items():
            self._writer.add_scalar(name, value, record.round)

    def on_end(self, result: Result) -> None:
        self._writer.close()


class MLflow(Callback):
    """Logs every round's metrics to the MLflow run that is active, or to one that MLflow begins.
    Raises DependencyError: MLflow is not installed.
    """

    def __init__(self) -> None:
        self._mlflow: Any = _needed("mlflow", "mlflow")

    def on_round(self, record: RoundRecord) -> None:
        self._mlflow.log_metrics(numbers(record), step=record.round)


class WeightsAndBiases(Callback):
    """Logs every round's metrics to a Weights & Biases run, which ends with the federation's.
    Raises DependencyError: Weights & Biases is not installed.

    Args:
        settings: passed to `wandb.init`, such as `project="hospitals"`.
    """

    def __init__(self, **settings: Any) -> None:
        self._run: Any = _needed("wandb", "wandb").init(**settings)

    def on_round(self, record: RoundRecord) -> None:
        # Its steps only grow, and rounds begin at 1 in every phase: the round is a number like
        # the others.
        self._run.log({**numbers(record), f"{record.phase}/round": record.round})

    def on_end(self, result: Result) -> None:
        self._run.finish()


def numbers(record: RoundRecord) -> dict[str, float]:
    """The numbers of a round as `phase/name`, nested names joined by `/`, lists by position;
    nothing of single clients.
    """
    found = {
        name: getattr(record, name)
        for name in ("clients", "bytes_down", "bytes_up", "seconds", "sum_seconds")
    }
    told = document(record.metrics)
    kept = {name: value for name, value in told.items() if name not in _OF_SINGLE_CLIENTS}
    return {f"{record.phase}/{name}": value for name, value in _flat({**found, **kept}, "")}


def _flat(value: object, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, bool | str) or value is None:
        return
    if isinstance(value, int | float):
        yield name, float(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}/{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _flat(item, f"{name}/{position}")


def _needed(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        remedy = f"pip install 'secure-fl[{extra}]'"
        raise DependencyError("is not installed", extra, None, remedy) from None
