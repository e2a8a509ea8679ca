"""Writes the transcript of a simulated run, entry by entry, as rounds end.

Guarantee: a sum, or a checkpoint's digest, is in the transcript before anything that follows from
it is in the run's folder; every field that is written has a tag (`manifest`), and none is the
experimenter's.
Assumes: the caller says in which round of which phase it is.
Not covered: one process holds all parties, and signs for all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

from secure_fl import __version__
from secure_fl.config import FederationConfig
from secure_fl.crypto.envelope import NO_KEY
from secure_fl.errors import SecureSumError
from secure_fl.federation.folder import RunFolder
from secure_fl.federation.round_entries import evidence_in, keys_entry, round_entry, sum_entry
from secure_fl.federation.transcript import Transcript
from secure_fl.federation.transcript_entries import (
    EndEntry,
    Entry,
    LedgerEntry,
    PlanEntry,
    RefusedEntry,
    RoundEntry,
    StateEntry,
    SumEntry,
    entry_of,
    facts_of,
)
from secure_fl.files import is_file, is_lock, read_bytes, remove
from secure_fl.privacy.chain import Mark, digest
from secure_fl.secure_sum.embedded import EmbeddedFederation
from secure_fl.secure_sum.embedded_round import Outcome, Tap
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.steps import Refusal, claimed

_LARGEST = 1 << 36


class Recorder:
    """Writes a run's transcript; nothing where there is no folder."""

    def __init__(self, folder: RunFolder | None, config: FederationConfig, clients: int) -> None:
        """Opens the folder's transcript, or begins it.

        Raises:
            RefusedError: the transcript is damaged.
            FileError: it cannot be read or written.
        """
        self._folder, self._config = folder, config
        self._clients = tuple(f"client-{number:04d}" for number in range(clients))
        self._transcript: Transcript | None = None
        self._step, self._place, self._attempt = "", (0, 0), 0
        self._evidence: dict[tuple[int, str, str], tuple[bytes, ...]] = {}
        self._keys = {NO_KEY}
        self.rounds = 0
        """Rounds of sums that there have been: the next one's number."""
        if folder is not None:
            known = is_file(folder.transcript)
            self._transcript = (
                Transcript.open(folder.transcript) if known else Transcript.new(folder.transcript)
            )
            numbers = (
                line.entry.round
                for line in self._transcript.lines()
                if isinstance(line.entry, RoundEntry)
            )
            self.rounds = max(numbers, default=-1) + 1
            folder.told = lambda place, check: self._add(StateEntry(place, check))

    def plan(self, parties: EmbeddedFederation | None) -> None:
        """What the run goes by from here on.

        Args:
            parties: whose keys sign; None where sums are made in the open.
        """
        if self._folder is None:
            return
        remove(self._folder.digests)
        security, privacy, clients = self._config.security, self._config.privacy, len(self._clients)
        fewest = 0
        if parties is not None:
            cohorts = self._config.cohorts(clients)
            fewest = min(security.sums(cohort, privacy.colluders).survivors for cohort in cohorts)
        entry = PlanEntry(
            hashlib.sha256(read_bytes(self._folder.config)).hexdigest(),
            "embedded",
            security.protection,
            security.key_holder,
            self._clients,
            fewest,
            privacy.colluders,
            None if parties is None else parties.roster.digest.hex(),
            0 if parties is None else parties.roster.revision,
            {"secure-fl": __version__},
        )
        self._add(entry, () if parties is None else parties.credentials)

    def begins(self, step: str, place: tuple[int, int]) -> None:
        """The round that comes next: name and number of its step, and rounds finished in it."""
        self._step, self._place, self._attempt = step, place, 0

    def attempt(self) -> None:
        """The round is tried, once more or for the first time."""
        self._attempt += 1
        self._evidence = {}

    def open_round(self, number: int, cohort: Sequence[int], pools: int, unit: int) -> None:
        """A sum in the open begins, of which nobody enforces anything."""
        entry = RoundEntry(
            round=number,
            place=self._place,
            step=self._step,
            attempt=self._attempt,
            cohort=tuple(self._clients[client] for client in sorted(cohort)),
            left_out=(),
            plan=None,
            fewest=0,
            threshold=0,
            minimum=0,
            unit=unit,
            pools=pools,
            exact=False,
            key=NO_KEY.hex(),
        )
        self._add(entry)

    def signed_round(self, plan: RoundPlan, without: Sequence[int]) -> None:
        """A protected sum begins, from the start without some of its clients."""
        if plan.key_fingerprint not in self._keys:
            self._keys.add(plan.key_fingerprint)
            by_authority = plan.opener == "authority"
            self._add(keys_entry(plan, plan.authority if by_authority else plan.cohort[0]))
        left_out = [self._clients[client] for client in without]
        at, attempt = self._place, self._attempt
        entry = round_entry(plan, step=self._step, place=at, attempt=attempt, left_out=left_out)
        self._add(entry)

    @property
    def tap(self) -> Tap | None:
        """Sees every message, and keeps what is evidence of the round under way.

        That is short messages, and the signed heads of uploads.
        """
        return None if self._folder is None else self._seen

    def _seen(self, sender: str, recipient: str, data: bytes) -> bytes:
        with suppress(SecureSumError):  # what the server cannot read is no evidence
            found = evidence_in(data) if recipient == "server" else None
            if found is not None:
                number, kept = found
                self._evidence.setdefault((number, sender, claimed(data)[1]), kept)
        return data

    def signed_sum(self, plan: RoundPlan, outcome: Outcome) -> None:
        """A protected sum was opened."""
        entry = sum_entry(
            plan,
            outcome.opened,
            view=outcome.view,
            survivors=outcome.survivors,
            uploads=outcome.uploads,
            missed=outcome.missed,
        )
        kept = sorted(self._evidence.items())
        signed = [each for (number, *_), parts in kept if number == plan.round for each in parts]
        self._add(entry, signed)

    def open_sum(self, number: int, survivors: Sequence[int], blocks: Blocks, pools: int) -> None:
        """A sum in the open was made; `pools` as in `open_round`."""
        parts = (blocks.head, blocks.shared, blocks.pools)
        found = hashlib.sha256(
            b"".join(part.contiguous().numpy().tobytes() for part in parts)
        ).hexdigest()
        names = tuple(self._clients[client] for client in sorted(survivors))
        counts = tuple(int(count) for count in blocks.head[:pools])
        self._add(
            SumEntry(number, None, names, {}, {}, counts, tuple(range(len(blocks.pools))), found)
        )

    def refused(self, plan: RoundPlan, refusals: Sequence[Refusal]) -> None:
        """Messages that were turned away in a round."""
        for each in refusals:
            self._add(RefusedEntry(each.sender, each.phase, each.reason, each.by, plan.round))

    def ledger(self, mark: Mark | None) -> None:
        """How far the run's ledger has come; None without one."""
        if mark is not None:
            self._add(LedgerEntry(None, mark.length, mark.head))

    def end(self) -> None:
        """The run is over: digests of all its files.

        Those of files with the experimenter's fields are in a file of their own.
        """
        if self._folder is None or self._transcript is None:
            return
        # A report is made when the run is over, and made anew.
        own = (self._folder.transcript, self._folder.digests, self._folder.path / "report.html")
        files, manifest = dict[str, str](), self._folder.manifest
        for path in sorted(self._folder.path.rglob("*")):
            name = path.relative_to(self._folder.path).as_posix()
            if path.is_file() and path not in own and not is_lock(path) and manifest.covers(name):
                files[name] = hashlib.sha256(read_bytes(path, most=_LARGEST)).hexdigest()
        told = {name: found for name, found in files.items() if not manifest.is_experimenters(name)}
        self._add(EndEntry("done", told))
        if manifest.experiments:
            rest = {name: found for name, found in files.items() if name not in told}
            content = {"transcript": self._transcript.head.hex(), "files": rest}
            self._folder.write(self._folder.digests, {**content, "digest": digest(content)})

    def _add(self, entry: Entry, evidence: Sequence[bytes] = ()) -> None:
        if self._folder is None or self._transcript is None:
            return
        document = {
            "kind": entry.kind,
            "facts": facts_of(entry),
            "evidence": [],
            "before": "",
            "hash": "",
        }
        kept = self._folder.view(self._folder.transcript, document)
        self._transcript.add(entry_of(entry.kind, kept["facts"]), evidence)
