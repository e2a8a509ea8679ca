"""What can be imported from the package and its rooms, without knowing their files."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "secure_fl"
ROOMS = sorted(
    f"secure_fl.{path.parent.name}"
    for path in PACKAGE.glob("*/__init__.py")
    if path.parent.name != "cli"
)
PUBLIC = ["secure_fl", *ROOMS]


def typed_names(package: str) -> set[str]:
    """What a type checker sees, which does not look through `lazily`."""
    tree = ast.parse(Path(str(import_module(package).__file__)).read_text())
    guarded = [node for block in tree.body if isinstance(block, ast.If) for node in block.body]
    return {
        alias.asname or ""
        for node in guarded
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_all_rooms_are_looked_at() -> None:
    some = ("data", "models", "privacy", "crypto", "he", "secure_sum", "callbacks")
    assert {f"secure_fl.{room}" for room in some} <= set(ROOMS)
    assert all(import_module(room).__all__ for room in ROOMS)


@pytest.mark.parametrize("package", PUBLIC)
def test_every_name_resolves_is_listed_and_explained(package: str) -> None:
    module = import_module(package)
    for name in module.__all__:
        assert inspect.getdoc(getattr(module, name)), f"{package}.{name} has no docstring"
        assert f"`{name}`" in (module.__doc__ or ""), (
            f"the docstring of {package} does not list {name}"
        )
    assert set(module.__all__) <= set(dir(module))
    assert len(set(module.__all__)) == len(module.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = module.Nothing


@pytest.mark.parametrize(
    "package", [package for package in PUBLIC if package != "secure_fl.config"]
)
def test_type_checkers_see_the_same_names(package: str) -> None:
    assert typed_names(package) == set(import_module(package).__all__)


@pytest.mark.parametrize("package", PUBLIC)
def test_no_name_is_hidden_by_a_file(package: str) -> None:
    """Importing `room/name.py` would put the module where the name was."""
    folder = Path(str(import_module(package).__file__)).parent
    files = {path.stem for path in folder.iterdir()}
    assert not files & set(import_module(package).__all__)


def test_importing_rooms_is_cheap() -> None:
    rooms = [room for room in ROOMS if room != "secure_fl.config"]
    heavy = "{'torch', 'numpy', 'pydantic', 'rich', 'tenseal', 'sklearn', 'matplotlib', 'jinja2'}"
    code = (
        f"import sys, {', '.join(rooms)}; found = {heavy} & "
        "set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_everyday_use() -> None:
    from secure_fl.audit import check_sensitivity
    from secure_fl.data import Dataset
    from secure_fl.objectives import nt_xent_loss
    from secure_fl.report import write_report
    from secure_fl.secure_sum import RoundClient

    assert all(
        callable(one)
        for one in (check_sensitivity, Dataset, nt_xent_loss, write_report, RoundClient)
    )
