"""Run folders as the page needs them: read whole, and told apart by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from secure_fl.audit.suite.document import AuditDocument, read_audit
from secure_fl.config import FederationConfig
from secure_fl.data.summary import PartitionSummary
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.run_folder.metrics import RoundRecord
from secure_fl.federation.run_folder.summary import FinalPools, Summary
from secure_fl.federation.verify.check import Verified, verify
from secure_fl.files import is_file, read_bytes, read_json
from secure_fl.report.names import printable, told_apart

T = TypeVar("T")
_REMEDY = "restore the file that the run wrote"


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name: its own, or its folder's where it has none; told apart from the other runs' on
            the page.
        folder: its place.
        config: its settings.
        text: `config.toml`.
        summary: `summary.json`.
        rounds: the lines of `metrics.jsonl`.
        partition: None where the record leaves the experimenter's files out, as `embedding` is.
    """

    name: str
    folder: Path
    config: FederationConfig
    text: str
    summary: Summary
    rounds: list[RoundRecord]
    partition: PartitionSummary | None
    embedding: dict[str, Any] | None

    @property
    def pools(self) -> FinalPools | None:
        """What was measured of the pools; None where nothing was."""
        return self.summary.pools

    @property
    def pool_count(self) -> int:
        """Models that clients choose among; 0 where there are none."""
        return self.config.pools.count if self.config.pools.enabled else 0

    @property
    def setting(self) -> dict[str, object]:
        """What accuracies are of: data, however its labels are declared, clients and seed."""
        return {
            "data": self.config.data.model_dump(exclude={"classes", "class_names"}),
            "partition": self.config.partition,
            "seed": self.config.seed,
            "number of clients": self.clients,
        }

    @property
    def clients(self) -> int:
        """How many there are."""
        return self.summary.clients

    @property
    def client_names(self) -> dict[int, str]:
        """Names of the clients that have one."""
        members = () if self.partition is None else self.partition.clients
        return {member.client: printable(member.name) for member in members if member.name}

    def client(self, number: int) -> str:
        """What a client is called: its name, or its number."""
        names = self.client_names
        return names.get(number) or (f"client {number}" if names else str(number))

    @cached_property
    def verified(self) -> Verified:
        """What checking the folder against itself showed, as `secure-fl verify` prints it."""
        return verify(self.folder)

    @cached_property
    def audit(self) -> AuditDocument | None:
        """What tried to falsify the run; None where nothing has. Raises AuditError: damaged."""
        return read_audit(self.folder)

    @cached_property
    def is_as_audited(self) -> bool:
        """Whether the folder is still what was audited; it is read whole for that."""
        return self.audit is not None and self.audit.is_of(self.folder)

    @cached_property
    def data_digest(self) -> str | None:
        """Of all examples as they were dealt; None where the record does not say."""
        path = RunFolder(self.folder).partition
        said = _where_written(path, dict[str, Any]) or {}
        found = said.get("digest")
        return found if isinstance(found, str) else None

    def lines(self, phase: str) -> list[RoundRecord]:
        """A phase's rounds."""
        return [line for line in self.rounds if line.phase == phase]


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Every folder once, in the order given. Raises RunFolderError: a folder holds no finished run,
    or a damaged one.
    """
    found = [_read(folder) for folder in {folder.resolve(): folder for folder in folders}.values()]
    names = told_apart([(run.name, run.folder) for run in found])
    return [replace(run, name=name) for run, name in zip(found, names, strict=True)]


def _read(path: Path) -> Run:
    folder = RunFolder.open(path)
    config, summary = folder.read_config(), folder.read_summary()
    text = read_bytes(folder.config).decode(errors="replace")
    return Run(
        printable(summary.name),
        path.resolve(),
        config,
        text,
        summary,
        folder.read_metrics(),
        _where_written(folder.partition, PartitionSummary),
        _where_written(folder.embedding, dict[str, Any]),
    )


def _where_written(path: Path, kind: type[T]) -> T | None:
    return read_json(path, kind, _REMEDY) if is_file(path) else None
