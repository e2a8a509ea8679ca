"""Where a run is written and resumed, and what is passed to one that is about to begin."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from wrong_turns.finished_runs import ROWS, Runs, federation
from wrong_turns.turns import Turn, named

from secure_fl import (
    Callback,
    load_encoder,
    load_pools,
    load_result,
)
from secure_fl.callbacks import MLflow, TensorBoard, WeightsAndBiases
from secure_fl.errors import DependencyError, FileError
from secure_fl.export import export, load_exported
from secure_fl.files import held


def raising(_: Any) -> Any:
    raise ValueError(f"of {ROWS}")


EMPTY = "that is empty or does not exist yet"
WROTE = "name the folder that `secure-fl run` wrote"

FOLDERS = [
    Turn(
        "a folder that holds something",
        lambda at: federation().run(at / "full"),
        "out",
        "full",
        "^choose another folder with --out, or empty it$",
    ),
    Turn(
        "a finished run's folder",
        lambda at: federation().run(at / "done"),
        "out",
        "done",
        "resume=True",
    ),
    Turn("a file for a folder", lambda at: federation().run(at / "file"), "out", "file", EMPTY),
    Turn("below a file", lambda at: federation().run(at / "file" / "run"), "out", "run", EMPTY),
    Turn(
        "a home that is not there",
        lambda _: federation().run("~nobody-x/run"),
        "out",
        "~nobody-x/run",
        "write the whole path",
    ),
    Turn("no path", lambda _: federation().run(5), "out", "int", "runs/mine"),  # type: ignore[arg-type]
    Turn(
        "resume, of no folder",
        lambda _: federation().run(resume=True),
        "out",
        "None",
        "the run that was interrupted",
    ),
    Turn(
        "resume, of nothing",
        lambda at: federation().run(at / "never", resume=True),
        "run folder",
        "never",
        WROTE,
    ),
    Turn(
        "resume, of an empty folder",
        lambda at: federation().run(at / "empty", resume=True),
        "run folder",
        "empty",
        WROTE,
    ),
    Turn(
        "resume, of something else",
        lambda at: federation().run(at / "full", resume=True),
        "run folder",
        "full",
        WROTE,
    ),
    Turn(
        "resume, changed",
        lambda at: federation(pools={"lr": 0.3}).run(at / "half", resume=True),
        "pools.lr",
        "0.3",
        "leave the rest as",
    ),
    Turn(
        "resume, with another encoder",
        lambda at: federation(encoder=nn.Linear(5, 7)).run(at / "half", resume=True),
        "run folder",
        "half",
        "the run's own configuration, data and encoder",
    ),
    Turn("load, of nothing", lambda _: load_result("never"), "run folder", "never", WROTE),
    Turn("load, of a file", lambda at: load_result(at / "file"), "run folder", "file", WROTE),
    Turn("load, of no path", lambda _: load_result(5), "run folder", "int", "runs/mine"),  # type: ignore[arg-type]
    Turn(
        "load, of an unfinished run",
        lambda at: load_result(at / "half"),
        "run folder",
        "half",
        r"--resume .*resume=True\)",
    ),
    Turn(
        "an unfinished run's encoder",
        lambda at: load_encoder(at / "half"),
        "run folder",
        "half",
        "finish it with",
    ),
    Turn(
        "pools of a run without",
        lambda at: load_pools(at / "bare"),
        "run folder",
        "bare",
        r"pools\.enabled = true",
    ),
    Turn(
        "an encoder of nothing",
        lambda _: federation(pretrain={"mode": "load", "load_from": "never"}).run(),
        "pretrain.load_from",
        "never",
        WROTE,
    ),
    Turn(
        "an export over a run",
        lambda at: export(at / "done", at / "done"),
        "out",
        "done",
        "another folder",
    ),
    Turn(
        "an export over a file", lambda at: export(at / "done", at / "file"), "out", "file", EMPTY
    ),
    Turn(
        "an export of half a run",
        lambda at: export(at / "half", at / "models"),
        "run folder",
        "half",
        "finish it with",
    ),
    Turn(
        "a form that is none",
        lambda at: export(at / "done", at / "models", ["pickle"]),
        "forms",
        "pickle",
        "safetensors, onnx, hf",
    ),  # type: ignore[list-item]
    Turn(
        "one form, not in a list",
        lambda at: export(at / "done", at / "models", "hf"),
        "forms",
        "'hf'",
        "pass a list",
    ),  # type: ignore[arg-type]
    Turn(
        "a number for forms",
        lambda at: export(at / "done", at / "models", 5),
        "forms",
        "int",
        "pass a list",
    ),  # type: ignore[arg-type]
    Turn(
        "a run for an export",
        lambda at: load_exported(at / "done"),
        "folder",
        "done",
        "export --hf.*load_result",
    ),
]


ARGUMENTS = [
    Turn(
        "a callback's name",
        lambda _: federation(callbacks=["tqdm"]),
        "callbacks[0]",
        "str",
        "an instance of a subclass",
    ),
    Turn(
        "a callback's class",
        lambda _: federation(callbacks=[Callback]),
        "callbacks[0]",
        "the class Callback",
        "an instance",
    ),
    Turn(
        "an encoder's name",
        lambda _: federation(encoder="resnet"),
        "encoder",
        "str",
        r"an nn\.Module that maps",
    ),
    Turn(
        "an encoder's class",
        lambda _: federation(encoder=nn.Flatten),
        "encoder",
        "Flatten",
        r"pass Flatten\(\)",
    ),
    Turn(
        "an encoder of another width",
        lambda _: federation(encoder=nn.Linear(4, 8)),
        "encoder",
        "Linear",
        "an encoder made for this shape",
    ),
    Turn(
        "no encoder from a function",
        lambda _: federation(encoder=lambda seed: None),
        "encoder",
        "NoneType",
        r"return an nn\.Module",
    ),
    Turn(
        "an encoder that raises",
        lambda _: federation(encoder=raising),
        "encoder",
        "raising",
        r"return an nn\.Module",
    ),
    Turn(
        "an augmentation's class",
        lambda _: federation(augment=nn.Dropout),
        "augment",
        "Dropout",
        "an instance",
    ),
    Turn(
        "an augmentation of nothing",
        lambda _: federation(augment=lambda x: None),
        "augment",
        "NoneType",
        "a tensor of the examples' shape",
    ),
    Turn(
        "an augmentation that raises",
        lambda _: federation(augment=raising),
        "augment",
        "raising",
        ".",
        (str(ROWS),),
    ),
    Turn(
        "an augmentation that cuts",
        lambda _: federation(augment=lambda x: x[:, :2]),
        "augment",
        "(2,)",
        r"one view of shape \(5,\)",
    ),
    Turn(
        "an augmentation that forgets rows",
        lambda _: federation(augment=lambda x: x[:1]),
        "augment",
        "",
        r"one view of shape \(5,\)",
    ),
]


@pytest.mark.parametrize(**named(FOLDERS))
def test_folders(turn: Turn, runs: Runs) -> None:
    turn.taken(runs)


@pytest.mark.parametrize(**named(ARGUMENTS))
def test_arguments(turn: Turn) -> None:
    turn.taken(None)


@pytest.mark.parametrize(
    ("logger", "package"),
    [
        (lambda: MLflow(), "mlflow"),
        (lambda: WeightsAndBiases(), "wandb"),
        (lambda: TensorBoard("logs"), "tensorboard"),
    ],
)
def test_loggers_that_are_not_installed(
    logger: Callable[[], Any], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    error = Turn(
        "", lambda _: logger(), package, "None", rf"pip install 'secure-fl\[{package}\]'"
    ).taken(None)
    assert isinstance(error, DependencyError)


def test_a_folder_in_use(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with held(tmp_path / "run"), pytest.raises(Exception, match="in use") as caught:
        federation().run(tmp_path / "run")
    assert str(os.getpid()) in str(caught.value)
    assert "Remedy: " in str(caught.value)


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("secure_fl.files.os.fsync", full)
    with pytest.raises(FileError, match="No space left on device") as caught:
        federation().run(tmp_path / "run")
    assert "the space left" in caught.value.remedy
