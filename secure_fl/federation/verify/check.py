"""Checks a folder against itself: a run's, or one party's. No torch, no models, no data.

Each finding names the file and the place in it. What nothing was held against is listed beside.

Guarantee: one changed byte in a file that is covered is found. Covered are, of a finished run, all
of its files but locks and reports; of one under way the configuration, the manifest, the
transcript, the ledger, and checkpoints.
Assumes: not everything was put together anew. Whoever does that is found by those who kept the
transcript's head, and by nobody else.
Not covered: whether parties were honest beyond what they signed; what a simulation did with the
keys that it holds of all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from secure_fl import __version__
from secure_fl.config import FederationConfig
from secure_fl.config_file import load_config
from secure_fl.errors import RunFolderError, SecureFLError
from secure_fl.federation.parties.party_folder import OWNER
from secure_fl.federation.run_folder.audit_seal import AUDIT, SEAL, is_sealed
from secure_fl.federation.run_folder.manifest import Manifest
from secure_fl.federation.run_folder.metrics import RoundRecord
from secure_fl.federation.run_folder.summary import Summary
from secure_fl.federation.run_folder.tags import MADE_LATER
from secure_fl.federation.transcript.chain import Line, read_lines
from secure_fl.federation.transcript.entries import EndEntry, LedgerEntry, PlanEntry, StateEntry
from secure_fl.federation.verify.folder import ReadFolder
from secure_fl.federation.verify.party import Party
from secure_fl.federation.verify.predecessor import check_before
from secure_fl.federation.verify.privacy import (
    LEDGER,
    SUMMARY,
    claims_again,
    events_again,
    marks_of,
    noise_of_sums,
)
from secure_fl.federation.verify.rounds import FILE, Finding, Rounds
from secure_fl.federation.verify.separation import separations_again
from secure_fl.federation.verify.state import state_digest
from secure_fl.files import is_file
from secure_fl.privacy.chain import Mark, digest
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.records import document

CONFIG, METRICS, MANIFEST = "config.toml", "metrics.jsonl", "manifest.json"
DIGESTS, CHECKPOINTS = "digests.json", "checkpoints/*/manifest.json"
_SUMMED = {"pretrain", "cluster"}
"""Steps whose every round sums updates, where sums are protected."""
_SPELLED = "not spelled as it was written"
_SEALED = "a party's, under a key that is not here; its owner finds damage"
_WHY = {
    ".lock*": "says who writes to the folder now",
    **dict.fromkeys(MADE_LATER, "made of a finished run, and made anew"),
    "*.sealed": _SEALED,
    "rounds-": _SEALED,
    "results.made": _SEALED,
    "sums-": "what a server took in of the last rounds; it finds damage when it plays them again",
    "private-results/": "answers sealed under keys that are not here; who opens one finds damage",
    METRICS: "until the run has ended: rounds, clients and the ledger's marks only",
}
"""Why files are not covered."""


@dataclass(frozen=True)
class Verified:
    """What checking a folder showed.

    Attributes:
        findings: what does not fit; empty when all is well.
        checked: what was held against what, and how much of it, in words.
        uncovered: file -> why nothing, or not everything, was held against it.
        head: hash of the transcript's last undamaged line, hex; empty where there is none.
    """

    findings: tuple[Finding, ...]
    checked: tuple[tuple[str, str], ...]
    uncovered: dict[str, str]
    head: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify(folder: Path) -> Verified:
    """Check everything in a folder that something else in it tells about.

    Raises:
        RunFolderError: there is neither a transcript nor a run.
        FileError: the folder cannot be read.
    """
    if not is_file(folder / FILE) and not is_file(folder / CONFIG):
        remedy = "name the folder that `secure-fl run` wrote, or a party's own"
        raise RunFolderError("holds no record", "folder", str(folder), remedy)
    return _Check(folder).run()


@dataclass
class _Check(ReadFolder):
    """`whole`: whether the transcript is undamaged, so that other files can be held against it."""

    whole: bool = True

    def run(self) -> Verified:
        """Everything, each thing once."""
        rounds = Rounds().read(self.lines)
        self.findings += rounds.findings
        self._count(rounds)
        self._config(rounds)
        self._ledger(rounds)
        self._checkpoints(rounds)
        self._metrics(rounds)
        self._files()
        self._audit()
        if rounds.agreed is not None:
            check_before(self, rounds.agreed.plan, party=False)
        if is_file(self.folder / OWNER):
            accepted = Party(self, self.lines, rounds).check(self.ledger)
            if accepted is not None:
                check_before(self, accepted, party=True)
        findings = tuple(dict.fromkeys(self.findings))
        head = self.lines[-1].head.hex() if self.lines else ""
        return Verified(findings, tuple(self.checked), self._uncovered(rounds), head)

    @cached_property
    def lines(self) -> list[Line]:
        """The transcript up to its first damage."""
        data, lines = self.read(FILE), list[Line]()
        if data is None:
            self.whole = False
            return []
        self.covered.add(FILE)
        try:
            for line in read_lines(data):
                lines.append(line)
        except SecureFLError as problem:
            self.found(FILE, problem.problem.partition(":")[0], problem.problem)
            self.whole = False
        if data and not data.endswith(b"\n"):
            self.found(FILE, "last line", "half a line, as after a kill; resuming cuts it")
            self.whole = False
        return lines

    @cached_property
    def plans(self) -> list[PlanEntry]:
        """Every plan that was in force, the last one last."""
        return [line.entry for line in self.lines if isinstance(line.entry, PlanEntry)]

    @cached_property
    def finished(self) -> bool:
        """Whether the run says that it is over."""
        ended = bool(self.lines) and isinstance(self.lines[-1].entry, EndEntry)
        return ended or is_file(self.folder / SUMMARY)

    @cached_property
    def same_version(self) -> bool:
        """Whether this version of the software wrote the record."""
        versions = self.plans[-1].versions if self.plans else None
        return (versions or {}).get("secure-fl") == __version__

    @cached_property
    def config(self) -> FederationConfig | None:
        """The configuration; None where there is none, or it is damaged."""
        if not is_file(self.folder / CONFIG):
            return None
        try:
            return load_config(self.folder / CONFIG)
        except SecureFLError as problem:
            self.found(CONFIG, problem.field, problem.problem)
            return None

    @cached_property
    def summary(self) -> Summary | None:
        """What `summary.json` says; None where there is none, or it is damaged."""
        data = self.read(SUMMARY) if is_file(self.folder / SUMMARY) else None
        return None if data is None else self.parsed(SUMMARY, data, "content", Summary)

    @cached_property
    def metrics(self) -> list[RoundRecord]:
        """Lines of `metrics.jsonl` that can be read."""
        data = (self.read(METRICS) if is_file(self.folder / METRICS) else None) or b""
        whole, _, half = data.rpartition(b"\n")
        if half:
            self.found(METRICS, "last line", "half a line, as after a kill; resuming cuts it")
        lines = enumerate(whole.split(b"\n") if whole else [], 1)
        parsed = (self.parsed(METRICS, at, f"line {number}", RoundRecord) for number, at in lines)
        return [line for line in parsed if line is not None]

    @cached_property
    def ledger(self) -> PrivacyLedger | None:
        """The ledger; None where there is none, or it is damaged."""
        if not is_file(self.folder / LEDGER):
            return None
        self.covered.add(LEDGER)
        try:
            found = PrivacyLedger.load(self.folder / LEDGER)
        except SecureFLError as problem:
            self.found(LEDGER, "content", problem.problem)
            return None
        self.spelled(LEDGER, self.json(LEDGER), _SPELLED, sort_keys=True)
        return found

    def _config(self, rounds: Rounds) -> None:
        plans = [plan.configuration for plan in self.plans]
        for name in [*self.names("configs/*.toml"), *self.names(CONFIG)]:
            known = plans[-1:] if name == CONFIG else plans
            if self.whole and self.sha256(name) not in known:
                self.found(name, "content", "its digest is not in the transcript's plan")
            self.covered.add(name)
        if self.config is not None and self.same_version:
            tags = Manifest.of(self.config).as_dict()
            self.spelled(MANIFEST, tags, "not the tags that follow from config.toml", end="\n")
        agreed, last = rounds.agreed, self.plans[-1:]
        if agreed is None or [agreed.entry.configuration] != [each.configuration for each in last]:
            return
        if self.config not in (None, agreed.plan.config):
            self.found(CONFIG, "content", "not the configuration of the signed plan")

    def _ledger(self, rounds: Rounds) -> None:
        entries = [line.entry for line in self.lines if isinstance(line.entry, LedgerEntry)]
        config, ledger = self.config, self.ledger
        counted = any(entry.client is None for entry in entries)
        if ledger is None:
            private = config and (config.privacy.unit != "none" or config.noises_sketches)
            if not is_file(self.folder / LEDGER) and (private or counted):
                self.found(LEDGER, "file", "missing, though the record counts its releases")
            return
        marks = [*marks_of(entries, ledger), *self._marks()]
        self.findings += events_again(ledger, marks)
        self.findings += noise_of_sums(ledger.releases, rounds.sums, everybodys=counted)
        told = "releases, chained; ε of every subject from their events"
        counts = f"{len(ledger.releases)} {told}; {len(marks)} marks of it elsewhere"
        self.checked.append(("ledger", counts))
        if config is None or self.summary is None:
            return
        self.findings += claims_again(self.summary, config, ledger, words=self.same_version)
        said = self.summary.charged
        stated = None if said is None else document(said.claims)
        if (self.json(LEDGER) or {}).get("claims") != stated:
            self.found(SUMMARY, "claims", "not those in ledger.json")
        told = "every ε and claim of the summary, computed again"
        self.checked.append(("claims", f"{told}; survivors against the noise charged for"))

    def _marks(self) -> Iterator[tuple[str, Mark]]:
        """The ledger's marks in metrics, summary and checkpoints."""
        places: list[tuple[str, str, Mark | None]] = [
            (METRICS, f"line {number}: metrics.ledger", line.metrics.ledger)
            for number, line in enumerate(self.metrics, 1)
        ]
        if self.summary is not None:
            said = self.summary.charged
            places.append((SUMMARY, "ledger", None if said is None else said.ledger))
        for name in self.names(CHECKPOINTS):
            mark = (self.json(name) or {}).get("ledger")
            data = json.dumps(mark).encode()
            places.append((name, "ledger", mark and self.parsed(name, data, "ledger", Mark)))
        for file, place, found in places:
            if found is not None:
                yield f"{file}, {place},", found
            elif self.finished:
                self.found(file, place, "does not count the ledger's releases")

    def _checkpoints(self, rounds: Rounds) -> None:
        entries = [line.entry for line in self.lines if isinstance(line.entry, StateEntry)]
        states = {entry.checkpoint: entry for entry in entries}
        signed = {(entry.place, entry.digest) for entry in rounds.states}
        reached = 0
        names = self.names(CHECKPOINTS)
        for name in names:
            content, tensors = self.json(name), name.replace(MANIFEST, "state.safetensors")
            if content is None:
                continue
            if content.get("check") != digest({**content, "check": ""}):
                self.found(name, "check", "not the digest of the rest")
            if content.get("sha256") != {"state.safetensors": self.sha256(tensors)}:
                self.found(tensors, "content", "not what the checkpoint's manifest says")
            entry = states.get(str(content.get("check")))
            if self.whole and entry is None:
                self.found(name, "check", "no state entry of the transcript tells of it")
            elif entry is not None and self._state_in(content, tensors) != entry.digest:
                self.found(tensors, "content", "not the state that the transcript tells of")
            elif entry is not None:
                reached += (entry.place, entry.digest) in signed
            self.spelled(name, content, _SPELLED)
            self.covered.add(tensors)
        if names:
            told = f"{len(names)}, by their digests in the transcript; {reached} as appliers signed"
            self.checked.append(("checkpoints", told))

    def _state_in(self, content: dict[str, Any], tensors: str) -> str | None:
        """Digest of the state that a checkpoint holds."""
        data, facts = self.read(tensors), content.get("facts")
        try:
            place = [content["step"], content["round"]]
            return None if data is None else state_digest(place, facts or {}, data).hex()
        except (ValueError, KeyError, TypeError, AttributeError, SecureFLError):
            return None

    def _metrics(self, rounds: Rounds) -> None:
        """Each round that summed something has a sum, of as many clients; weights that follow what
        was measured do so.
        """
        if not (self.whole and self.metrics and self.plans):
            return
        summed = {(begun.step, begun.place[1]) for _, begun, _ in rounds.sums}
        asked = {f"{step} {at + 1}": rounds.asked[step, at] for step, at in summed}
        steps = {begun.step for _, begun, _ in rounds.sums}
        if self.plans[-1].roster is not None:
            steps |= _SUMMED
        for number, line in enumerate(self.metrics, 1):
            clients = asked.get(f"{line.phase} {line.round}", ())
            if line.phase in steps and len(clients) != line.clients:
                problem = "the transcript has no sum of so many clients in this round"
                self.found(METRICS, f"line {number}: clients", problem)
        if self.config is not None:
            for number, problem in separations_again(self.config, self.metrics):
                self.found(METRICS, f"line {number}: separation", problem)
        self.checked.append(("metrics", f"{len(self.metrics)} lines, against the sums"))

    def _audit(self) -> None:
        """An audit's document against its own seal, which no run tells of."""
        said = self.json(AUDIT) if is_file(self.folder / AUDIT) else None
        if said is None:
            return
        if not is_sealed(said):
            self.found(AUDIT, SEAL, "not that of the rest: it was changed after the audit")
            return
        self.checked.append(("audit", f"its seal, {said[SEAL]}"))

    def _files(self) -> None:
        """Digests of files in the last entry, and in `digests.json`."""
        if not self.whole or not self.finished:
            return
        last = self.lines[-1] if self.lines else None
        if last is None or not isinstance(last.entry, EndEntry):
            problem = "there is a summary, and no end; resume the run, which ends it"
            self.found(FILE, "last line", problem)
            return
        files = last.entry.files | self._experimenters(last.head.hex())
        there = set(self.names("**/*"))
        for name, said in files.items():
            if name not in there or self.sha256(name) != said:
                self.found(name, "content", "not the bytes that the run ended with")
            self.covered.add(name)
        self.checked.append(("files", f"{len(files)}, by their digests"))

    def _experimenters(self, head: str) -> dict[str, str]:
        """What `digests.json` says, where the run wrote one."""
        if not is_file(self.folder / MANIFEST):
            return {}
        if DIGESTS not in ((self.json(MANIFEST) or {}).get("files") or {}):
            return {}
        content = self.json(DIGESTS) or {}
        rest = {name: value for name, value in content.items() if name != "digest"}
        if content.get("digest") != digest(rest):
            self.found(DIGESTS, "digest", "not that of the rest")
        elif content.get("transcript") != head:
            self.found(FILE, "last line", "not the one after which digests.json was written")
        self.spelled(DIGESTS, content, _SPELLED, end="\n")
        files = content.get("files")
        return files if isinstance(files, dict) else {}

    def _count(self, rounds: Rounds) -> None:
        head = f"; head {self.lines[-1].head.hex()}" if self.lines else ""
        self.checked.append(("transcript", f"{len(self.lines)} entries, chained{head}"))
        told = "numbers, cohorts, survivors, counts and pools by each round's rules"
        self.checked.append(("rounds", f"{len(rounds.sums)} sums: {told}"))
        if rounds.signatures:
            signer = ", ".join(dict.fromkeys(rounds.coordinators))
            told = f"{rounds.signatures}, under rosters of the coordinator with fingerprint"
            self.checked.append(("signatures", f"{told} {signer}"))

    def _uncovered(self, rounds: Rounds) -> dict[str, str]:
        found = {}
        for name in self.names("**/*"):
            if name not in self.covered:
                known = (each for each in _WHY if Path(name).match(each) or name.startswith(each))
                why = next(known, "")
                found[why or name] = _WHY.get(why, "nothing tells its content")
        notes = []
        if rounds.unsigned:
            notes.append(f"no signed messages of {len(rounds.unsigned)} rounds are kept")
        if rounds.blind:
            notes.append(f"counts of {rounds.blind} sums, which their server could not read")
        if notes:
            found[FILE] = "; ".join(notes)
        return found
