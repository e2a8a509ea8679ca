"""A run's folder: `config.toml`, `metrics.jsonl`, `summary.json`, `partition.json`, `checkpoints/`, and the models in `model/`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from secure_fl.config import FederationConfig
from secure_fl.config_file import dump_config, load_config
from secure_fl.errors import RunFolderError
from secure_fl.federation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from secure_fl.federation.manifest import Manifest
from secure_fl.federation.phase import RoundRecord, ServerState
from secure_fl.files import sync, write_atomically, write_json


class RunFolder:
    """Reads and writes one run's folder. `metrics.jsonl` grows line by line; `summary.json` comes last and marks a finished run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics, self.summary, self.config = path / "metrics.jsonl", path / "summary.json", path / "config.toml"
        self.model, self.partition, self.embedding = path / "model", path / "partition.json", path / "embedding.json"
        self.ledger, self.results, self.central = path / "ledger.json", path / "private-results", path / "central.json"
        self._lines = 0

    @classmethod
    def create(cls, path: Path, config: FederationConfig) -> RunFolder:
        """A new run's folder.

        Raises:
            RunFolderError: the folder already holds something.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            remedy = "choose another --out, delete it, or continue its run with --resume"
            raise RunFolderError("already holds something", field="out", value=str(path), remedy=remedy)
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path)
        write_atomically(folder.config, dump_config(config))
        folder.metrics.touch()
        folder.write(path / "manifest.json", folder.manifest.as_dict())
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run's folder.

        Raises:
            RunFolderError: there is no run.
        """
        folder = cls(path)
        if not folder.config.is_file():
            raise RunFolderError("holds no run", field="run folder", value=str(path), remedy="name the folder that `secure-fl run` wrote")
        return folder

    def read_config(self) -> FederationConfig:
        """The resolved configuration."""
        return load_config(self.config)

    @cached_property
    def manifest(self) -> Manifest:
        """Who may read what is written here."""
        return Manifest.of(self.read_config())

    def view(self, path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
        """What of a file's document is written.

        Raises:
            RunFolderError: a field has no tag.
        """
        return self.manifest.view(path.relative_to(self.path).as_posix(), document)

    def write(self, path: Path, document: Mapping[str, Any]) -> None:
        """A JSON file of the fields that are written; no file where there are none."""
        kept = self.view(path, document)
        if kept:
            write_json(path, kept)

    def read_json(self, path: Path) -> dict[str, Any]:
        """What a JSON file of this folder holds."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content

    def read_summary(self) -> dict[str, Any]:
        """The run's results.

        Raises:
            RunFolderError: the run has not finished.
        """
        if not self.summary.is_file():
            remedy = f"finish it with `secure-fl run --resume {self.path}`"
            raise RunFolderError("the run is not finished", field="run folder", value=str(self.path), remedy=remedy)
        try:
            summary: dict[str, Any] = json.loads(self.summary.read_text(encoding="utf-8"))
        except ValueError as error:
            remedy = f"delete it and write it again with `secure-fl run --resume {self.path}`"
            raise RunFolderError(f"unreadable: {error}", field="summary.json", value=str(self.path), remedy=remedy) from None
        return summary

    def read_metrics(self) -> list[dict[str, Any]]:
        """All rounds so far."""
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def of_another_run(self) -> RunFolderError:
        """What is raised where a folder is resumed with what it was not made with."""
        remedy = "resume with the run's own configuration, data and encoder, or start a new run"
        return RunFolderError("was made with another configuration, data or encoder", field="run folder", value=str(self.path), remedy=remedy)

    def append(self, record: RoundRecord) -> None:
        """Add a round to `metrics.jsonl`."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.view(self.metrics, asdict(record)), allow_nan=False) + "\n")
        self._lines += 1

    def save(self, state: ServerState, digest: str) -> None:
        """Checkpoint; `digest` says which run it belongs to."""
        sync(self.metrics)
        newest = self.path / "checkpoints" / "newest"
        tensors = self.view(newest / "state.safetensors", state.tensors)
        facts = self.view(newest / "manifest.json", {"facts": state.facts}).get("facts", {})
        save_checkpoint(self.path / "checkpoints", Checkpoint(replace(state, tensors=tensors, facts=facts), digest, self._lines))

    def restore(self, digest: str) -> ServerState:
        """State of the newest checkpoint; lines of `metrics.jsonl` that came after it are cut.

        Raises:
            RunFolderError: the checkpoint is damaged, or of a run with another configuration, other data or another encoder.
        """
        checkpoint = load_checkpoint(self.path / "checkpoints")
        lines = 0 if checkpoint is None else checkpoint.lines
        if checkpoint is not None and checkpoint.digest != digest:
            raise self.of_another_run()
        kept = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)[:lines] if self.metrics.exists() else []
        if len(kept) < lines:
            raise RunFolderError("has lost rounds", field="metrics.jsonl", value=f"{len(kept)} of {lines} lines", remedy="start a new run")
        write_atomically(self.metrics, "".join(kept))
        self._lines = len(kept)
        return ServerState() if checkpoint is None else checkpoint.state
