"""Checkpoints: tensors in safetensors, all else in a JSON manifest with hashes; never pickle."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue

from secure_fl.errors import RunFolderError
from secure_fl.federation.state import Place, State
from secure_fl.federation.tensors import pack, unpack
from secure_fl.files import listed, make_folder, parse_json, read_bytes, remove, write_folder
from secure_fl.privacy.chain import Mark, digest

_SCHEMA = 3
_KEPT = 2
_LARGEST = 1 << 36
_REMEDY = "delete the damaged folder under checkpoints/ to go on from the one before it"
_NAME = re.compile(r"[0-9]+-[0-9]+-[0-9]+")
_MANIFEST, _TENSORS = "manifest.json", "state.safetensors"

Count = Annotated[int, Field(ge=0, le=10**9)]
Told = Callable[[State, str], None]


@dataclass(frozen=True)
class Checkpoint:
    """A state and what belongs to it.

    Attributes:
        digest: of the configuration, the data and the encoder.
        lines: lines of `metrics.jsonl` written by then; later ones are cut on resume.
        ledger: how far the ledger had come; None without one.
    """

    state: State
    digest: str
    lines: int
    ledger: Mark | None = None


@dataclass(frozen=True)
class _Manifest:
    """What `manifest.json` holds; `check` is the SHA-256 of the rest."""

    schema: int
    digest: str
    lines: Count
    step: Count
    round: Count
    facts: dict[str, JsonValue]
    sha256: dict[str, str]
    ledger: Mark | None = None
    check: str = ""

    @property
    def digest_of_rest(self) -> str:
        return digest(replace(self, check="").as_dict())

    def as_dict(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def save_checkpoint(folder: Path, checkpoint: Checkpoint, told: Told = lambda *_: None) -> None:
    """Write a checkpoint under `folder` so that a crash at any moment leaves the previous one
    whole; keep the last two. Raises FileError: it cannot be written.

    Args:
        told: is told the state and the checkpoint's digest before the checkpoint is there.
    """
    _write(folder, checkpoint, told)
    for old in _found(folder)[:-_KEPT]:
        remove(old)


def go_back(folder: Path, checkpoint: Checkpoint, told: Told = lambda *_: None) -> None:
    """Write a checkpoint of an earlier step than the newest and remove the others, the newest
    first: a crash leaves the newest, or one between. Raises FileError: it cannot be written.
    """
    written = _write(folder, checkpoint, told)
    for other in reversed(_found(folder)):
        if other != written:
            remove(other)


def _write(folder: Path, checkpoint: Checkpoint, told: Told) -> Path:
    state, tensors = checkpoint.state, pack(checkpoint.state.tensors)
    sums = {_TENSORS: hashlib.sha256(tensors).hexdigest()}
    place, facts, lines = state.place, dict(state.facts), checkpoint.lines
    manifest = _Manifest(
        _SCHEMA, checkpoint.digest, lines, place.step, place.round, facts, sums, checkpoint.ledger
    )
    check = manifest.digest_of_rest
    written = json.dumps(replace(manifest, check=check).as_dict(), indent=1, allow_nan=False)
    make_folder(folder)
    told(state, check)
    path = folder / f"{place.step:02d}-{place.round:05d}-{lines:06d}"
    write_folder(path, {_MANIFEST: written.encode(), _TENSORS: tensors})
    return path


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint under `folder`, or None where there is none. Raises RunFolderError: it
    is damaged, or of another version; FileError: it cannot be read.
    """
    found = _found(folder)
    if not found:
        return None
    newest, manifest = found[-1], _manifest(found[-1])
    tensors = read_bytes(newest / _TENSORS, most=_LARGEST)
    sums = {_TENSORS: hashlib.sha256(tensors).hexdigest()}
    if manifest.check != manifest.digest_of_rest or manifest.sha256 != sums:
        problem = "its files do not match their hashes"
        raise RunFolderError(problem, "checkpoints", newest.name, _REMEDY)
    loaded = unpack(tensors, field="checkpoints", value=newest.name, remedy=_REMEDY)
    state = State(Place(manifest.step, manifest.round), loaded, manifest.facts)
    return Checkpoint(state, manifest.digest, manifest.lines, manifest.ledger)


def _manifest(checkpoint: Path) -> _Manifest:
    data = read_bytes(checkpoint / _MANIFEST)
    told: Any = {"field": "checkpoints", "value": checkpoint.name, "remedy": _REMEDY}
    schema = parse_json(data, dict[str, JsonValue], **told).get("schema")
    if schema != _SCHEMA:
        problem = f"is of another schema than {_SCHEMA}"
        remedy = "resume it with the version of secure-fl that wrote it"
        raise RunFolderError(problem, "checkpoints", checkpoint.name, remedy)
    return parse_json(data, _Manifest, **told)


def _found(folder: Path) -> list[Path]:
    """Checkpoints, oldest first; unfinished ones begin with a dot and do not count."""
    return [path for path in listed(folder) if _NAME.fullmatch(path.name)]
