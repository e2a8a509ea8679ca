"""Which code is installed here: one digest over the source of both packages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from secure_fl.errors import DependencyError

_PACKAGES = ("secure_fl", "secure_fl_kernels")
_FORMAT = b"secure-fl source 1"


def code_digest(folders: Mapping[str, Path] | None = None) -> str:
    """64 hex digits over every file of the packages: names within them, lengths and contents.

    The same source has the same digest wherever it is installed and whether or not it was compiled:
    paths outside the packages, times, modes, `__pycache__` and hidden files do not count.

    **Guarantee**: two installations of equal digest hold the same files (SHA-256).

    **Assumes**: nobody who is to be caught runs this function: it tells a site about its own
    machine.

    **Not covered**: Python, torch and all other packages; what another party really runs.

    Args:
        folders: package name -> its folder; those that this process would import when left out.

    Raises:
        DependencyError: a package is not installed as a folder of files.
    """
    total = hashlib.sha256(_FORMAT)
    for package, folder in sorted((folders or _installed()).items()):
        for path in _files(folder):
            name = f"{package}/{path.relative_to(folder).as_posix()}".encode()
            content = path.read_bytes()
            total.update(len(name).to_bytes(4, "little") + name)
            total.update(len(content).to_bytes(8, "little") + content)
    return total.hexdigest()


def _installed() -> dict[str, Path]:
    """Folders of the packages, none of which is imported to find them."""
    found = {}
    for package in _PACKAGES:
        spec = find_spec(package)
        places = [] if spec is None else list(spec.submodule_search_locations or [])
        if not places:
            remedy = "install secure-fl as files: pip install secure-fl"
            raise DependencyError("no folder of source", package, None, remedy)
        found[package] = Path(places[0])
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Files that count, in an order that does not depend on the file system."""
    found = (path for path in folder.rglob("*") if path.is_file())
    for path in sorted(found, key=lambda path: path.relative_to(folder).as_posix()):
        parts = path.relative_to(folder).parts
        hidden = any(part == "__pycache__" or part.startswith(".") for part in parts)
        if not hidden and path.suffix not in (".pyc", ".pyo"):
            yield path
