"""Tiles that were measured on this machine: one file a GPU or processor, which the launchers read.

`secure-fl kernels tune` writes them. A file says which device, kernels and versions it was measured
with, and holds a digest of itself; one that is of another device or other kernels, or damaged, is
refused by name and the shipped tiles run. `SECURE_FL_TILES` names another folder than the user's
cache, or is `shipped`: then no file is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

VARIABLE = "SECURE_FL_TILES"
SHIPPED = "shipped"
REMEDY = f"run `secure-fl kernels tune` again, delete the file, or set {VARIABLE}={SHIPPED}"
Choice = tuple[int, ...]
Choices = Mapping[str, Choice]
_NONE: Choices = MappingProxyType({})


class StaleTilesError(ValueError):
    """A file of tiles is of another device or other kernels, or damaged."""


@dataclass(frozen=True)
class Tuned:
    """What a file holds.

    Attributes:
        device: name of the GPU, or of the processor with its caches.
        kernels: digest of the kernels' sources.
        software: versions of torch and triton.
        date: when it was measured, in UTC.
        choices: by kernel and class of shapes, what `gpu.tiles` or `cpu.tiles` make of it.
    """

    device: str
    kernels: str
    software: str
    date: str
    choices: dict[str, Choice]


def folder() -> Path | None:
    """Where the files are; None where none is to be read."""
    return _folder(*_asked())


def _asked() -> tuple[str | None, str | None]:
    return os.environ.get(VARIABLE), os.environ.get("XDG_CACHE_HOME")


def _folder(asked: str | None, base: str | None) -> Path | None:
    if asked == SHIPPED:
        return None
    return Path(asked) if asked else Path(base or Path.home() / ".cache") / "secure_fl" / "tiles"


def path_of(device: str, place: Path) -> Path:
    """The device's file."""
    return place / f"{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}.json"


def choices(device: str) -> Choices:
    """What was measured for the device; nothing where there is no file, or a stale one, of which
    one warning tells.
    """
    return _choices(device, *_asked())


@cache
def _choices(device: str, asked: str | None, base: str | None) -> Choices:
    """Found once for each answer of the environment: launchers ask at every call."""
    place = _folder(asked, base)
    if place is None:
        return _NONE
    path = path_of(device, place)
    try:
        return MappingProxyType(read(path, device).choices) if path.exists() else _NONE
    except StaleTilesError as error:
        warnings.warn(f"{error}; the shipped tiles run", RuntimeWarning, stacklevel=2)
        return _NONE


def forget() -> None:
    """Read files anew from now on."""
    _choices.cache_clear()


def explain(device: str) -> str:
    """Which tiles run on the device, in words."""
    place = folder()
    if place is None:
        return f"shipped, since {VARIABLE}={SHIPPED}"
    path = path_of(device, place)
    if not path.exists():
        return "shipped; `secure-fl kernels tune` measures better ones"
    try:
        found = read(path, device)
    except StaleTilesError as error:
        return f"shipped; REFUSED: {error}"
    return f"measured on {found.date}, {len(found.choices)} classes, {path}"


def read(path: Path, device: str) -> Tuned:
    """The file's tiles.

    Raises:
        StaleTilesError: it is damaged, or of another device, other kernels or other versions.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        body = stored["tiles"]
        found = Tuned(**{**body, "choices": {k: tuple(v) for k, v in body["choices"].items()}})
        whole = stored["digest"] == _digest(found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        whole, found = False, None
    if found is None or not whole:
        raise StaleTilesError(f"{path} is damaged: its content is not what was written; {REMEDY}")
    here = {"device": device, "kernels": kernels_digest(), "software": software()}
    for name, expected in here.items():
        if getattr(found, name) != expected:
            what = f"of {name} {getattr(found, name)!r}, and here is {expected!r}"
            raise StaleTilesError(f"{path} is {what}; {REMEDY}")
    return found


def write(path: Path, tuned: Tuned) -> None:
    """Replace the file at once: a reader sees the old or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"tiles": asdict(tuned), "digest": _digest(tuned)}, indent=1)
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    forget()


def _digest(tuned: Tuned) -> str:
    text = json.dumps(asdict(tuned), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def kernels_digest() -> str:
    """Of the sources of all kernels."""
    here, sums = Path(__file__).parent, hashlib.sha256()
    for path in sorted([*(here / "gpu").glob("*.py"), *(here / "cpu").glob("*.py")]):
        sums.update(path.read_bytes())
    return sums.hexdigest()[:12]


def software() -> str:
    """Versions that decide what a kernel is compiled to."""
    found = []
    for name in ("torch", "triton"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


# The search


@dataclass(frozen=True)
class Class:
    """One kernel and class of shapes, with what may run there, the shipped choice first."""

    name: str
    candidates: Sequence[Choice]


Seconds = Callable[[str, Choice], float]
"""Class and choice -> seconds of one call; infinite where it cannot run or computes wrongly."""

_ROUNDS = 5
_GAIN = 0.97
"""What is not faster by 3 % is chance: the shipped choice stays."""


def search(
    classes: Sequence[Class],
    seconds: Seconds,
    keep: Callable[[str, Choice, float], None],
    minutes: float,
    clock: Callable[[], float],
) -> list[str]:
    """Measure every class's candidates in turn and keep the fastest, one class after another, so
    that what is kept stays when the search is stopped.

    Args:
        keep: told of each class, its choice, and its seconds over those of the shipped one.
        minutes: no class is begun after them, and one that they cut short is left: a few samples
            would choose by chance.

    Returns:
        Names of the classes that are left.
    """
    end = clock() + 60 * minutes
    for number, each in enumerate(classes):
        best: dict[Choice, float] = {}
        for _ in range(_ROUNDS):
            if clock() >= end:
                return [later.name for later in classes[number:]]
            for choice in each.candidates:
                taken = seconds(each.name, choice)
                best[choice] = min(taken, best.get(choice, taken))
        shipped = each.candidates[0]
        fastest = min(best, key=best.__getitem__)
        gained = best[fastest] < _GAIN * best[shipped]
        chosen = fastest if gained else shipped
        keep(each.name, chosen, best[chosen] / best[shipped] if gained else 1.0)
    return []
