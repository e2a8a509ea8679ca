"""Every recipe of docs/python.md runs as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def stand_in(patch: pytest.MonkeyPatch, name: str, **attributes: Any) -> None:
    """In place of a package that need not be installed here."""
    module = ModuleType(name)
    vars(module).update(attributes)
    patch.setitem(sys.modules, name, module)


def test_recipes_are_short() -> None:
    assert len(BLOCKS) >= 12
    assert all(len([line for line in block.splitlines() if line.strip()]) <= 16 for block in BLOCKS)


def test_every_recipe_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logged: list[Any] = []
    quiet = SimpleNamespace(log=logged.append, finish=lambda: None)
    writer = SimpleNamespace(add_scalar=lambda *values: logged.append(values), close=lambda: None)
    stand_in(monkeypatch, "tensorboard")
    stand_in(monkeypatch, "torch.utils.tensorboard", SummaryWriter=lambda folder: writer)
    stand_in(monkeypatch, "mlflow", log_metrics=lambda values, step: logged.append(values))
    stand_in(monkeypatch, "wandb", init=lambda **settings: quiet)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "recipes"}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    assert logged
    said = capsys.readouterr().out
    assert "Federation('secure-fl', clients=6, shape=(1, 8, 8))" in said
    assert "did you mean pools.count?" in said
    assert "(7, 32)" in said
    assert (tmp_path / "exported" / "hub" / "README.md").is_file()
