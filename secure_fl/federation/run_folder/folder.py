"""A run's folder: `config.toml`, `metrics.jsonl`, `summary.json`, `partition.json`, `checkpoints/`,
and the models in `model/`.

One run writes to it at a time (`files.held`); whatever is read from it may be damaged, and is
refused with a typed error then.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from secure_fl.config import FederationConfig
from secure_fl.errors import FileError, RunFolderError
from secure_fl.federation.run_folder.checkpoint import (
    Checkpoint,
    Told,
    go_back,
    load_checkpoint,
    save_checkpoint,
)
from secure_fl.federation.run_folder.configs import RunConfigs
from secure_fl.federation.run_folder.manifest import Manifest
from secure_fl.federation.run_folder.metrics import Metrics, RoundRecord
from secure_fl.federation.run_folder.summary import Summary
from secure_fl.federation.state import State
from secure_fl.files import (
    append_line,
    is_bare,
    is_file,
    lock_of,
    make_folder,
    parse_json,
    read_bytes,
    read_json,
    remove,
    write_atomically,
    write_json,
)
from secure_fl.privacy.chain import Mark
from secure_fl.records import document

MARKED = ("metrics.jsonl", "summary.json", "the last checkpoint")
"""Where a run with a ledger says how far that had come."""
_LONGEST = 1 << 32


def check_bare(path: Path) -> None:
    """Refuse a place for a new run where something is. Raises RunFolderError: a folder that holds
    something; FileError: a file; or nobody can say.
    """
    if is_file(path):
        remedy = "name a folder that is empty or does not exist yet"
        raise FileError("is a file", "out", str(path), remedy)
    if above := next((parent for parent in path.absolute().parents if is_file(parent)), None):
        remedy = "check the path, and name a folder that is empty or does not exist yet"
        raise FileError(f"cannot be written to: {above.name} is a file", "out", str(path), remedy)
    if not is_bare(path):
        remedy = "choose another folder with --out, or empty it"
        if is_file(RunFolder(path).config):
            remedy += ", or continue its run with --resume (from Python: resume=True)"
        raise RunFolderError("already holds something", "out", str(path), remedy)


class RunFolder:
    """Reads and writes one run's folder. `metrics.jsonl` grows line by line; `summary.json` comes
    last and marks a finished run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self._configs = path / "config.toml", RunConfigs(path)
        self.metrics, self.summary = path / "metrics.jsonl", path / "summary.json"
        self.partition, self.embedding = path / "partition.json", path / "embedding.json"
        self.ledger, self.results = path / "ledger.json", path / "private-results"
        self.central, self.model = path / "central.json", path / "model"
        self.transcript, self.digests = path / "transcript.jsonl", path / "digests.json"
        self.told: Told = lambda *_: None
        """Is told each checkpoint's state and digest before it is there."""
        self._lines, self._process, self._lock = 0, os.getpid(), lock_of(path)

    @classmethod
    def new(cls, path: Path) -> RunFolder:
        """An empty folder, made where there is none; it holds no run before `begin`. Raises
        RunFolderError: the folder already holds something; FileError: it is a file, or cannot be
        made.
        """
        check_bare(path)
        make_folder(path, tighten=True)
        return cls(path)

    def begin(
        self,
        config: FederationConfig,
        documents: Mapping[Path, Mapping[str, Any]] | None = None,
        digest: str = "",
    ) -> None:
        """Write what a run begins with: `documents`, each as `write` does, and last the
        configuration.

        That is under the name by which the user's state directory knows the run. From then on it
        can be resumed, and nothing is missing.

        Args:
            digest: of what a resumed run must share; hex.
        """
        self.manifest = Manifest.of(config)
        write_atomically(self.metrics, "")
        write_json(self.path / "manifest.json", self.manifest.as_dict())
        for path, content in (documents or {}).items():
            self.write(path, content)
        self._configs.write(config, secrets.token_hex(16), digest)

    @classmethod
    def open(cls, path: Path, field: str = "run folder") -> RunFolder:
        """An existing run's folder. Raises RunFolderError: there is no run.

        Args:
            field: where the caller named it, for the error.
        """
        folder = cls(path)
        if not is_file(folder.config):
            remedy = "name the folder that `secure-fl run` wrote"
            raise RunFolderError("holds no run", field, str(path), remedy)
        return folder

    @property
    def run(self) -> str:
        """The run's name in the user's state directory: random, made when it began. Raises
        RunFolderError: `config.toml` does not begin with it any more, or was cut short.
        """
        return self._configs.ends().run

    def read_config(self, overrides: Sequence[str] = ()) -> FederationConfig:
        """The resolved configuration, with `a.b=c` overrides. Raises RunFolderError: the file lost
        its first or last line, as one does that was emptied or cut: settings would read as their
        defaults; ConfigError: it is damaged otherwise.
        """
        return self._configs.read(overrides)

    def begun_as(self) -> list[tuple[FederationConfig, str]]:
        """The configurations that the run has had, oldest first and its own last, each with the
        digest in its first lines. Raises RunFolderError: one is damaged or names another run;
        ConfigError: likewise.
        """
        return self._configs.all()

    def change(self, config: FederationConfig, digest: str) -> None:
        """Go on with other lengths: the configuration is kept as `configs/N.toml`, then replaced
        under the same name of the run. A crash in between leaves the run as it was.
        """
        self.check_own()
        self._configs.replace(config, digest)

    def rewind(self, state: State, digest: str, lines: int) -> None:
        """Go back to the end of an earlier step, which is to go on: no summary, no later line, no
        later checkpoint.
        """
        self.check_own()
        remove(self.summary)
        checkpoint = load_checkpoint(self.path / "checkpoints")
        back = Checkpoint(state, digest, lines, None if checkpoint is None else checkpoint.ledger)
        go_back(self.path / "checkpoints", back, self.told)

    @cached_property
    def manifest(self) -> Manifest:
        """Who may read what is written here."""
        return Manifest.of(self.read_config())

    def view(self, path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
        """What of a file's document is written. Raises RunFolderError: a field has no tag."""
        return self.manifest.view(path.relative_to(self.path).as_posix(), document)

    def write(self, path: Path, document: Mapping[str, Any]) -> None:
        """A JSON file of the fields that are written; no file where there are none."""
        kept = self.view(path, document)
        if kept:
            write_json(path, kept)

    def read_summary(self) -> Summary:
        """The run's results. Raises RunFolderError: the run has not finished, or the file is
        damaged, or has fields that this version does not know.
        """
        if not is_file(self.summary):
            remedy = (
                f"finish it with `secure-fl run --resume {self.path}`, from Python with "
                f"Federation(...).run({str(self.path)!r}, resume=True)"
            )
            raise RunFolderError("the run is not finished", "run folder", str(self.path), remedy)
        remedy = f"delete it and write it again with `secure-fl run --resume {self.path}`"
        return read_json(self.summary, Summary, remedy)

    def read_metrics(self) -> list[RoundRecord]:
        """All rounds so far. Raises RunFolderError: a line is damaged, or has fields that this
        version does not know.
        """
        return [_record(number, line) for number, line in enumerate(self._read_lines(), 1)]

    def check_own(self) -> None:
        """Refuse to go on in a forked copy of the process that holds the folder, and where the
        folder is not the one that it holds. Raises RunFolderError: this is a copy; or the folder
        was moved or deleted, and what is there now is nobody's or another run's.
        """
        if os.getpid() != self._process:
            problem = f"is in use by process {self._process}, a copy of which this is"
            remedy = "let the process that began the run go on, or wait for its end and resume"
            raise RunFolderError(problem, "folder", str(self.path), remedy)
        if lock_of(self.path) != self._lock:
            problem = "was moved, deleted or replaced while its run was under way"
            remedy = "leave a folder where it is while its run goes on; resume it where it is now"
            raise RunFolderError(problem, "folder", str(self.path), remedy)

    def of_another_run(self) -> RunFolderError:
        """What is raised where a folder is resumed with what it was not made with."""
        problem = "was made with another configuration, data or encoder"
        remedy = "resume with the run's own configuration, data and encoder, or start a new run"
        return RunFolderError(problem, "run folder", str(self.path), remedy)

    def append(self, record: RoundRecord) -> None:
        """Add a round to `metrics.jsonl`. Raises FileError: it cannot be written; the file is as it
        was.
        """
        self.check_own()
        kept = self.view(self.metrics, document(record))
        append_line(self.metrics, json.dumps(kept, allow_nan=False))
        self._lines += 1

    def save(self, state: State, digest: str, ledger: Mark | None = None) -> None:
        """Checkpoint; `digest` says which run it belongs to, `ledger` how far that has come."""
        self.check_own()
        newest = self.path / "checkpoints" / "newest"
        tensors = self.view(newest / "state.safetensors", state.tensors)
        facts = self.view(newest / "manifest.json", {"facts": dict(state.facts)}).get("facts", {})
        kept = Checkpoint(State(state.place, tensors, facts), digest, self._lines, ledger)
        save_checkpoint(self.path / "checkpoints", kept, self.told)

    def restore(self, *digests: str) -> State | None:
        """State of the newest checkpoint, None where there is none; lines of `metrics.jsonl` that
        came after it are cut. Raises RunFolderError: the checkpoint is damaged, or the run is one
        with another configuration, other data or another encoder.

        Args:
            digests: of what the run was made with, oldest first; the last is what its configuration
                says, any may be the checkpoint's.
        """
        checkpoint = load_checkpoint(self.path / "checkpoints")
        if digests[-1] != self._configs.ends().digest or (
            checkpoint is not None and checkpoint.digest not in digests
        ):
            raise self.of_another_run()
        written, lines = self._read_lines(), 0 if checkpoint is None else checkpoint.lines
        kept = written[:lines]
        if len(kept) < lines:
            problem, remedy = "has lost rounds", "start a new run"
            raise RunFolderError(problem, "metrics.jsonl", f"{len(kept)} of {lines} lines", remedy)
        write_atomically(self.metrics, b"".join(line + b"\n" for line in kept))
        self._lines = len(kept)
        return None if checkpoint is None else checkpoint.state

    def marks(self) -> list[tuple[str, Mark]]:
        """How far the ledger had come at the last recorded round, at the newest checkpoint and in
        the summary, where they say so. Raises RunFolderError: one of them is damaged.
        """
        checkpoint, lines = load_checkpoint(self.path / "checkpoints"), self._read_lines()
        last = _record(len(lines), lines[-1]).metrics if lines else Metrics()
        charged = self.read_summary().charged if is_file(self.summary) else None
        found = [None if one is None else one.ledger for one in (last, charged, checkpoint)]
        known = zip(MARKED, found, strict=True)
        return [(where, mark) for where, mark in known if mark is not None]

    def _read_lines(self) -> list[bytes]:
        """Whole lines of `metrics.jsonl`; half a line at its end, of a process that was killed,
        does not count.
        """
        if not is_file(self.metrics):
            return []
        return read_bytes(self.metrics, most=_LONGEST).split(b"\n")[:-1]


def _record(number: int, line: bytes) -> RoundRecord:
    remedy = "restore the file the run wrote, or start a new run"
    where = f"line {number}"
    return parse_json(line, RoundRecord, field="metrics.jsonl", value=where, remedy=remedy)
