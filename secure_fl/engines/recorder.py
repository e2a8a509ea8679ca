"""Writes the transcript of a simulated run: what its server writes down, and what a run adds.

Guarantee: a sum, or a checkpoint's digest, is in the transcript before anything that follows from
it is in the run's folder; every field that is written has a tag (`manifest`), and none is the
experimenter's.
Assumes: one process at a time writes to the folder.
Not covered: one process holds all parties, and signs for all of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from secure_fl import __version__
from secure_fl.config import FederationConfig
from secure_fl.crypto.roster import Roster
from secure_fl.federation.parties.server_record import Journal
from secure_fl.federation.plan import Plan
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.run_folder.tags import is_made_later
from secure_fl.federation.state import State
from secure_fl.federation.transcript.chain import Transcript
from secure_fl.federation.transcript.entries import (
    EndEntry,
    LedgerEntry,
    PlanEntry,
    RoundEntry,
    StateEntry,
    entry_of,
    facts_of,
    plan_facts,
)
from secure_fl.files import is_lock, read_bytes, remove
from secure_fl.privacy.chain import Mark, digest

FEDERATION = "embedded"
"""Name of a simulation's federation."""
_LARGEST = 1 << 36


def client_name(number: int) -> str:
    """Of a simulated client, on the roster."""
    return f"client-{number:04d}"


class Recorder:
    """A run's transcript, in its folder, or in memory where there is none."""

    def __init__(self, folder: RunFolder | None, config: FederationConfig, clients: int) -> None:
        """Opens the folder's transcript, or begins it. Raises RefusedError: the transcript is
        damaged; FileError: it cannot be read or written.
        """
        self._folder, self._config = folder, config
        self.clients = tuple(client_name(number) for number in range(clients))
        self._mark: Mark | None = None
        path = None if folder is None else folder.transcript
        known = path is not None and os.path.lexists(path)  # else a folder would be taken for none
        self._transcript = Transcript.open(path) if path and known else Transcript.new(path)
        rounds = [
            line.entry.round
            for line in self._transcript.lines()
            if isinstance(line.entry, RoundEntry)
        ]
        self.number = max(rounds, default=-1) + 1
        """Of the first round that parties of this process call."""
        if folder is not None:
            folder.told = self._checkpointed

    def begins(self) -> None:
        """What the run goes by from here on, before there are parties that sign it."""
        if self._folder is not None:
            remove(self._folder.digests)
        security, colluders = self._config.security, self._config.privacy.colluders
        entry = PlanEntry(
            None,
            FEDERATION,
            security.protection,
            security.key_holder,
            self.clients,
            0,
            colluders,
            versions={"secure-fl": __version__},
            configuration=self._configuration,
        )
        self._write(entry.kind, facts_of(entry))

    def planned(self, plan: Plan, roster: Roster, evidence: Sequence[bytes]) -> None:
        """What parties signed.

        Args:
            evidence: the coordinator's card, the signed roster, the signed plan.
        """
        self._write("plan", plan_facts(plan, roster, self._configuration), evidence)

    @property
    def head(self) -> bytes:
        """Of the transcript."""
        return self._transcript.head

    @property
    def journal(self) -> Journal:
        """Where the run's server writes."""
        return Journal(self._heard, self._transcript.after, lambda: self.head)

    def ledger(self, mark: Mark | None) -> None:
        """How far the run's ledger has come, where that is news; None without one."""
        if mark is not None and mark != self._mark:
            self._mark = mark
            self._write("ledger", facts_of(LedgerEntry(None, mark.length, mark.head)))

    def end(self) -> None:
        """The run is over: digests of all its files. Those of files with the experimenter's fields
        are in a file of their own.
        """
        folder = self._folder
        if folder is None:
            return
        own = (folder.transcript, folder.digests)
        files, manifest = dict[str, str](), folder.manifest
        for path in sorted(folder.path.rglob("*")):
            name = path.relative_to(folder.path).as_posix()
            later = is_made_later(name) or is_lock(path)
            if path.is_file() and path not in own and not later and manifest.covers(name):
                files[name] = hashlib.sha256(read_bytes(path, most=_LARGEST)).hexdigest()
        told = {name: found for name, found in files.items() if not manifest.is_experimenters(name)}
        self._write("end", facts_of(EndEntry("done", told)))
        if manifest.experiments:
            rest = {name: found for name, found in files.items() if name not in told}
            content = {"transcript": self.head.hex(), "files": rest}
            folder.write(folder.digests, {**content, "digest": digest(content)})

    @property
    def _configuration(self) -> str | None:
        if self._folder is None:
            return None
        return hashlib.sha256(read_bytes(self._folder.config)).hexdigest()

    def _checkpointed(self, state: State, check: str) -> None:
        place = (state.place.step, state.place.round)
        self._write("state", facts_of(StateEntry(place, state.digest.hex(), check)))

    def _heard(self, kind: str, facts: Mapping[str, Any], evidence: Sequence[bytes]) -> None:
        """What the server writes; a run ends later than its rounds, with its files."""
        if kind != "end":
            self._write(kind, facts, evidence)

    def _write(self, kind: str, facts: Mapping[str, Any], evidence: Sequence[bytes] = ()) -> None:
        entry = entry_of(kind, facts)
        if self._folder is not None:
            self._folder.check_own()
            rest = {"evidence": [], "before": "", "hash": ""}
            document = {"kind": kind, "facts": facts_of(entry), **rest}
            entry = entry_of(kind, self._folder.view(self._folder.transcript, document)["facts"])
        self._transcript.add(entry, evidence)
