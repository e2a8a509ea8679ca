"""What loggers send elsewhere: numbers that the manifest lets be written, nothing of
single clients.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from helpers import make_images, tiny_config

from secure_fl import Callback, Federation, Result
from secure_fl.callbacks import MLflow, TensorBoard, WeightsAndBiases
from secure_fl.callbacks.loggers import numbers
from secure_fl.errors import DependencyError
from secure_fl.federation import RoundRecord
from secure_fl.federation.run_folder.metrics import Metrics
from secure_fl.pools.monitor import pool_health

Sent = list[tuple[dict[str, float], int | None]]


def fake_tensorboard(patch: pytest.MonkeyPatch, sent: Sent) -> Callback:
    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            assert folder == "logs"

        def add_scalar(self, name: str, value: float, step: int) -> None:
            sent.append(({name: value}, step))

        def close(self) -> None:
            sent.append(({"closed": 1.0}, None))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "tensorboard", ModuleType("tensorboard"))
    patch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return TensorBoard(Path("logs"))


def fake_mlflow(patch: pytest.MonkeyPatch, sent: Sent) -> Callback:
    module = ModuleType("mlflow")
    module.log_metrics = lambda values, step: sent.append((values, step))  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "mlflow", module)
    return MLflow()


def fake_wandb(patch: pytest.MonkeyPatch, sent: Sent) -> Callback:
    def begin(**settings: Any) -> SimpleNamespace:
        assert settings == {"project": "wards"}
        return SimpleNamespace(
            log=lambda values: sent.append((values, None)),
            finish=lambda: sent.append(({"closed": 1.0}, None)),
        )

    module = ModuleType("wandb")
    module.init = begin  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "wandb", module)
    return WeightsAndBiases(project="wards")


FAKES = [fake_tensorboard, fake_mlflow, fake_wandb]


def ran(
    fake: Callable[[pytest.MonkeyPatch, Sent], Callback], patch: pytest.MonkeyPatch, **tables: Any
) -> tuple[Sent, Result]:
    sent: Sent = []
    return sent, Federation(
        tiny_config(**tables), data=make_images(240), callbacks=fake(patch, sent)
    ).run()


@pytest.mark.parametrize("fake", FAKES)
def test_every_round_is_logged(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, result = ran(fake, monkeypatch)
    logged = {name for values, _ in sent for name in values}
    assert {
        "pretrain/loss",
        "cluster/accuracy",
        "cluster/pools/counts/0",
        "measure/pretrained/knn",
        "pretrain/bytes_up",
    } <= logged
    assert not any("choices" in name or "accuracies" in name for name in logged)
    last = next(record for record in reversed(result.records) if record.phase == "cluster")
    assert any(values.get("cluster/loss") == last.metrics.loss for values, _ in sent)
    assert all(isinstance(value, int | float) for values, _ in sent for value in values.values())
    json.dumps([values for values, _ in sent])


@pytest.mark.parametrize("fake", FAKES)
def test_what_the_manifest_keeps_back_is_not_logged(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, _ = ran(fake, monkeypatch, evaluate={"enabled": False})
    logged = {name.partition("/")[2] for values, _ in sent for name in values}
    assert "bytes_down" in logged
    assert not logged & {
        "loss",
        "accuracy",
        "seconds",
        "sum_seconds",
        "test_loss",
        "pools/largest_share",
    }


def test_steps_are_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, result = ran(fake_mlflow, monkeypatch)
    assert [step for _, step in sent] == [record.round for record in result.records]


def test_nested_metrics_become_names() -> None:
    record = RoundRecord(
        "cluster",
        3,
        4,
        10,
        20,
        None,
        Metrics(
            pools=pool_health([1, 0]),
            accepted=True,
            groups_left_out=("text",),
            choices={"0": 1},
            accuracies={"0": 0.5},
        ),
    )
    expected = {
        "cluster/clients": 4.0,
        "cluster/bytes_down": 10.0,
        "cluster/bytes_up": 20.0,
        "cluster/pools/counts/0": 1.0,
        "cluster/pools/counts/1": 0.0,
        "cluster/pools/active": 1.0,
        "cluster/pools/largest_share": 1.0,
        "cluster/pools/entropy": 0.0,
    }
    assert numbers(record) == expected


@pytest.mark.parametrize(
    ("make", "module"),
    [(lambda: TensorBoard("logs"), "tensorboard"), (MLflow, "mlflow"), (WeightsAndBiases, "wandb")],
)
def test_what_is_missing_is_named(
    make: Callable[[], Callback], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyError, match=rf"pip install 'secure-fl\[{module}\]'"):
        make()
