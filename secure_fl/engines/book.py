"""The records of one run, written to its folder if it has one, and told to whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from secure_fl.config import FederationConfig
from secure_fl.engines.recorder import Recorder
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.budget import BudgetGate
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.run_folder.manifest import Manifest
from secure_fl.federation.run_folder.metrics import RoundRecord
from secure_fl.federation.state import State
from secure_fl.federation.whole_run.alerts import watched


@dataclass
class Book:
    """A simulation's records.

    Attributes:
        config, manifest: of the run; the manifest says which fields a listener is told.
        folder: of the run; None where nothing is written.
        box, gate, recorder: private results, the ledger and the transcript, which are brought up to
            date with each record.
        majorities: of every client, what its accuracy is compared with.
        digest: of configuration and encoder, which a checkpoint names.
        tell: takes the name of a hook and its arguments.
    """

    config: FederationConfig
    manifest: Manifest
    folder: RunFolder | None
    box: ReleaseBox
    gate: BudgetGate
    recorder: Recorder
    majorities: Mapping[str, float]
    digest: str
    tell: Callable[..., None]
    records: list[RoundRecord] = field(init=False)

    def __post_init__(self) -> None:
        self.records = [] if self.folder is None else self.folder.read_metrics()

    def begin(self, name: str, rounds: int, finished: int) -> None:
        """A row of rounds begins, or goes on."""
        self.tell("on_phase", name, rounds, finished)

    def check(self) -> None:
        """Refuse to go on where the records would go elsewhere. Raises RunFolderError: as
        `RunFolder.check_own`.
        """
        if self.folder is not None:
            self.folder.check_own()

    def write(self, record: RoundRecord, state: State, *, save: bool) -> None:
        """Take in a record, and save the state after it where that is asked for."""
        record = watched(record, self.records, self.config, self.majorities)
        self.records.append(record)
        self.recorder.ledger(self.gate.mark)
        if self.folder is not None:
            self.folder.append(record)
            if save:
                self.folder.save(state, self.digest, self.gate.mark)
                self.box.checkpointed()
        self.tell("on_round", self.manifest.seen("metrics.jsonl", record))
