"""Checkpoints: tensors in safetensors, everything else in a JSON manifest with hashes, published by rename. No pickle."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from secure_fl.errors import RunFolderError
from secure_fl.federation.phase import ServerState
from secure_fl.files import sync

_SCHEMA = 1
_KEPT = 2
_REMEDY = "delete the damaged folder under checkpoints/ to go on from the one before it"


@dataclass(frozen=True)
class Checkpoint:
    """A state and what belongs to it.

    Attributes:
        digest: of the configuration, the data and the encoder.
        lines: lines of `metrics.jsonl` written by then; later ones are cut on resume.
    """

    state: ServerState
    digest: str
    lines: int


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint under `folder` so that a crash at any moment leaves the previous one whole; keep the last two."""
    state = checkpoint.state
    temporary = folder / ".writing"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors = temporary / "state.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.tensors.items()}, tensors)
    manifest = {
        "schema": _SCHEMA,
        "digest": checkpoint.digest,
        "lines": checkpoint.lines,
        "phase": state.phase,
        "round": state.round,
        "facts": state.facts,
        "sha256": {tensors.name: file_digest(tensors)},
    }
    (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in temporary.iterdir():
        sync(path)
    target = folder / f"{state.phase:02d}-{state.round:05d}"
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    sync(folder)
    for old in _found(folder)[:-_KEPT]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint under `folder`, or None where there is none.

    Raises:
        RunFolderError: it is damaged, or of another version.
    """
    found = _found(folder)
    if not found:
        return None
    newest = found[-1]
    try:
        manifest: dict[str, Any] = json.loads((newest / "manifest.json").read_text(encoding="utf-8"))
        digests = {name: file_digest(newest / name) for name in manifest["sha256"]}
    except (OSError, ValueError, KeyError) as error:
        raise RunFolderError(f"unreadable checkpoint: {error}", field="checkpoints", value=newest.name, remedy=_REMEDY) from None
    if digests != manifest["sha256"]:
        raise RunFolderError("its files do not match their hashes", field="checkpoints", value=newest.name, remedy=_REMEDY)
    if manifest["schema"] != _SCHEMA:
        remedy = "resume it with the version of secure-fl that wrote it"
        raise RunFolderError(f"is of schema {manifest['schema']}, not {_SCHEMA}", field="checkpoints", value=newest.name, remedy=remedy)
    state = ServerState(manifest["phase"], manifest["round"], load_file(newest / "state.safetensors"), manifest["facts"])
    return Checkpoint(state, manifest["digest"], manifest["lines"])


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _found(folder: Path) -> list[Path]:
    """Checkpoints, oldest first; unfinished ones begin with a dot and do not count."""
    return sorted(path for path in folder.glob("[0-9]*-[0-9]*") if path.is_dir()) if folder.is_dir() else []
