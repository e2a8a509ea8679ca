"""Folders that are filled once, and never half."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from secure_fl.errors import DeploymentError
from secure_fl.files import (
    held,
    is_bare,
    is_file,
    is_lock,
    is_trace,
    listed,
    make_folder,
    remove,
    sync,
    write_atomically,
)

_UNFINISHED = "unfinished"
"""Is in the first folder until all of it was made."""


@contextmanager
def beginning(folders: Mapping[Path, Collection[str]], *, used: Path) -> Iterator[None]:
    """Within it folders are filled. What an earlier call left that was cut short is removed before:
    nothing that it made was shown to anybody. Nothing else is.

    Args:
        folders: the first is held meanwhile; of each, what is made in it.
        used: is there once anything that was made was used.

    Raises:
        DeploymentError: there is something in them.
        RunFolderError: another process fills them.
        FileError: they cannot be written.
    """
    first = next(iter(folders))
    if not is_file(first / _UNFINISHED):
        _check_bare(folders)
    make_folder(first)
    with held(first):
        if is_file(first / _UNFINISHED):
            _remove_left(folders, used)
        else:
            _check_bare(folders)
        write_atomically(first / _UNFINISHED, "removed when `init` ends\n")
        yield
        remove(first / _UNFINISHED)
        sync(first)  # else a power cut brings it back


def check_whole(first: Path, *, used: Path) -> None:
    """Raises DeploymentError: `beginning` did not end, and keys may be missing."""
    if is_file(first / _UNFINISHED) and not is_file(used):
        remedy = "type `secure-fl federate init` again, which begins anew"
        raise DeploymentError("was not made to its end", "folder", str(first.parent), remedy)


def _check_bare(folders: Mapping[Path, Collection[str]]) -> None:
    if not all(is_bare(folder) for folder in folders):
        raise _taken(next(iter(folders)).parent, "holds a federation already")


def _remove_left(folders: Mapping[Path, Collection[str]], used: Path) -> None:
    """What was left of an earlier call, if there is nothing else."""
    left = [path for folder in folders for path in listed(folder) if not is_lock(path)]
    made = {folder / name for folder, names in folders.items() for name in (*names, _UNFINISHED)}
    if is_file(used):
        raise _taken(used.parent.parent, "holds a federation already")
    if others := sorted(path.name for path in left if not (path in made or is_trace(path))):
        raise _taken(used.parent.parent, f"holds what `init` did not make: {', '.join(others)}")
    for path in left:
        if path.name != _UNFINISHED:
            remove(path)


def _taken(folder: Path, problem: str) -> DeploymentError:
    remedy = "choose another folder: keys are never replaced"
    return DeploymentError(problem, "folder", str(folder), remedy)
