"""The house: a room imports only from rooms below it, and importing the package is cheap."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from lowest import EXTRAS, lowest

ROOT = Path(__file__).parents[1]
PACKAGE, KERNELS = ROOT / "secure_fl", ROOT / "kernels" / "secure_fl_kernels"

FLOORS = [
    {"ciphers", "errors", "lazy", "lock_holder", "odds", "quantities", "seeds", "terminal"},
    {"records"},
    {"coins", "files", "paths"},
    {"config"},
    {"crypto"},
    {"he"},
    {"config_file", "data", "models", "objectives", "secure_sum"},
    {"privacy", "pools", "training"},
    {"federation"},
    {"engines", "baselines"},
    {"finished"},
    {"callbacks", "export"},
    {"arguments"},
    {"run"},
    {"sklearn"},
    {"estimate"},
    {"audit"},
    {"report"},
    {"operations"},
    {"deployment"},
    {"cli"},
    {"experimental"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def violations(path: Path, names: set[str]) -> list[str]:
    room, wrong = room_of(path), []
    for name in names:
        parts = name.split(".")
        if parts[0] == "secure_fl" and len(parts) > 1 and parts[1] in LEVEL:
            other = parts[1]
            if other != room and LEVEL[other] >= LEVEL[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    return wrong


def test_every_room_is_on_a_floor() -> None:
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms <= set(LEVEL), f"give a floor to {rooms - set(LEVEL)}"


def test_rooms_import_downwards_only() -> None:
    sources = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    assert [line for path in sources for line in violations(path, imports(path))] == []


def test_a_planted_violation_is_found() -> None:
    assert violations(PACKAGE / "data" / "views.py", {"secure_fl.federation.client.Client"})
    assert violations(PACKAGE / "data" / "views.py", {"secure_fl.models.build.build_encoder"})


def test_nothing_imports_an_experiment() -> None:
    """Not even by name in a string: what a run needs cannot be in a room that may be removed."""
    house = [path for path in PACKAGE.rglob("*.py") if room_of(path) != "experimental"]
    assert len(house) > 200
    for path in [*house, *KERNELS.rglob("*.py")]:
        assert "secure_fl.experimental" not in path.read_text(encoding="utf-8"), path


def test_every_experiment_says_what_would_bring_it_in() -> None:
    tree = ast.parse((PACKAGE / "experimental" / "__init__.py").read_text(encoding="utf-8"))
    notes = [
        note for note in (ast.get_docstring(tree) or "").split("\n- **")[1:] if "Owner: " in note
    ]
    assert all("bring" in note for note in notes)
    named = set(re.findall(r"`(\w+)`", " ".join(note.split("\n\n")[0] for note in notes)))
    assert {path.stem for path in (PACKAGE / "experimental").glob("*.py")} - {"__init__"} <= named


def test_kernels_import_torch_only() -> None:
    """And triton, with numpy under its interpreter, in the two folders that are imported when they
    are needed.
    """
    for path in KERNELS.rglob("*.py"):
        foreign = (
            {name.split(".")[0] for name in imports(path)}
            - set(sys.stdlib_module_names)
            - {"torch", "secure_fl_kernels"}
        )
        folder = path.relative_to(KERNELS).parts[0]
        assert foreign <= {"gpu": {"triton"}, "proof": {"triton", "numpy"}}.get(folder, set()), path


def test_losses_on_the_processor_import_no_gpu_kernels() -> None:
    code = (
        "import sys, torch, secure_fl_kernels.functional as f; f.nt_xent_loss(torch.ones(600, 2), "
        "torch.ones(600, 2));assert not any(name.startswith('secure_fl_kernels.gpu') for name in "
        "sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("room", ["config", "errors", "config_file", "seeds"])
def test_configuration_imports_no_torch(room: str) -> None:
    code = f"import sys, secure_fl.{room}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import sys; before = set(sys.modules); import secure_fl;heavy = {'torch', 'numpy', "
        "'pydantic', 'tenseal', 'triton', 'flwr', 'kornia'} & set(sys.modules);assert not heavy, "
        "heavy; print(len(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 80, (
        "modules, most of them of importlib.metadata: typing, email and friends"
    )


def test_command_line_help_imports_no_torch() -> None:
    code = "import sys; import secure_fl.cli.main; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_export_resolves() -> None:
    import secure_fl

    for name in secure_fl.__all__:
        assert getattr(secure_fl, name) is not None
    assert set(secure_fl.__all__) <= set(dir(secure_fl))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = secure_fl.Nothing


def test_no_pickle_anywhere() -> None:
    for path in [*PACKAGE.rglob("*.py"), *KERNELS.rglob("*.py")]:
        names = {name.split(".")[0] for name in imports(path)}
        assert not names & {"pickle", "dill", "cloudpickle", "joblib"}, path
        assert "torch.load(" not in path.read_text(), path


LONGEST_FILE, LONGEST_FUNCTION = 400, 40
HELD_SHORT = ("secure_fl", "kernels", "tests", "bench", "examples")


def too_long(source: str, name: str) -> list[str]:
    """A file of too many lines, and functions that are too long from `def` to their last line."""
    lines = len(source.splitlines())
    found = [f"{name}: {lines} lines"] if lines > LONGEST_FILE else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                found.append(f"{name}:{node.lineno}: {node.name}, {length} lines")
    return found


@pytest.mark.parametrize("folder", HELD_SHORT)
def test_files_and_functions_stay_short(folder: str) -> None:
    sources = sorted((ROOT / folder).rglob("*.py"))
    assert sources, f"nothing is looked at in {folder}"
    found = [
        each for path in sources for each in too_long(path.read_text(), str(path.relative_to(ROOT)))
    ]
    assert found == []


def test_what_is_too_long_is_found() -> None:
    def function(lines: int) -> str:
        return "class C:\n    async def f(self):\n" + "        x = 1\n" * (lines - 1)

    assert too_long(function(41), "a.py") == ["a.py:2: f, 41 lines"]
    assert too_long(function(40), "a.py") == []
    assert too_long("x = 1\n" * 401, "a.py") == ["a.py: 401 lines"]
    assert too_long("x = 1\n" * 400, "a.py") == []


def test_every_requirement_names_the_lowest_version_that_is_tested() -> None:
    """`make lowest` would take a newer one in silence."""
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in EXTRAS for each in project["optional-dependencies"][extra]),
    ]
    assert [each.partition("==")[0] for each in lowest(text)] == [
        re.split(r"[<>=;]", each)[0] for each in wanted
    ]
