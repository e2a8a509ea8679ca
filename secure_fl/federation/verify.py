"""Checks a folder against itself: a run's, or one party's. No torch, no models, no data.

Each finding names the file and the place in it. What nothing was held against is listed beside, file by file.

Guarantee: one changed byte in a file that is covered is found. Covered are, of a finished run, all of its files but locks and reports; of one
under way the configuration, the manifest, the transcript, the ledger, and checkpoints.
Assumes: not everything was put together anew: whoever rewrites all files alike is found by those who kept the transcript's head only.
Not covered: whether parties were honest beyond what they signed; what a simulation did with the keys that it holds of all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from secure_fl import __version__
from secure_fl.config import FederationConfig
from secure_fl.config_file import load_config
from secure_fl.errors import RunFolderError, SecureFLError
from secure_fl.federation.manifest import Manifest
from secure_fl.federation.transcript import Line, read_lines
from secure_fl.federation.transcript_entries import EndEntry, LedgerEntry, PlanEntry, StateEntry
from secure_fl.federation.verify_privacy import LEDGER, SUMMARY, claims_again, events_again, marks_of, noise_of_sums
from secure_fl.federation.verify_rounds import FILE, Finding, Rounds
from secure_fl.files import is_file, parse_json, read_bytes
from secure_fl.privacy.chain import Mark, digest
from secure_fl.privacy.ledger import PrivacyLedger

CONFIG, METRICS, MANIFEST, DIGESTS = "config.toml", "metrics.jsonl", "manifest.json", "digests.json"
_LARGEST = 1 << 36
_WHY = {
    ".lock*": "says who writes to the folder now",
    "report.html": "made from the other files, and made anew",
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
    """

    findings: tuple[Finding, ...]
    checked: tuple[tuple[str, str], ...]
    uncovered: dict[str, str]

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
        raise RunFolderError("holds no record", field="folder", value=str(folder), remedy=remedy)
    return _Check(folder).run()


@dataclass
class _Check:
    folder: Path
    findings: list[Finding] = field(default_factory=list)
    checked: list[tuple[str, str]] = field(default_factory=list)
    covered: set[str] = field(default_factory=set)
    whole: bool = True

    def run(self) -> Verified:
        """Everything, each thing once."""
        rounds = Rounds().read(self.lines)
        self.findings += rounds.findings
        self._count(rounds)
        self._config()
        self._ledger(rounds)
        self._checkpoints()
        self._metrics(rounds)
        self._files()
        found = dict.fromkeys(self.findings)
        return Verified(tuple(found), tuple(self.checked), self._uncovered(rounds))

    @cached_property
    def finished(self) -> bool:
        """Whether the run says that it is over."""
        return is_file(self.folder / SUMMARY) or (bool(self.lines) and isinstance(self.lines[-1].entry, EndEntry))

    @cached_property
    def lines(self) -> list[Line]:
        """The transcript up to its first damage."""
        data, lines = self._read(FILE), list[Line]()
        if data is None:
            self.whole = False
            return []
        self.covered.add(FILE)
        try:
            for line in read_lines(data):
                lines.append(line)
        except SecureFLError as problem:
            self._found(FILE, problem.problem.partition(":")[0], problem.problem)
            self.whole = False
        if data and not data.endswith(b"\n"):
            self._found(FILE, "last line", "ends in half a line, as after a kill; resuming cuts it")
            self.whole = False
        return lines

    @cached_property
    def plans(self) -> list[PlanEntry]:
        """Every plan that was in force, the last one last."""
        return [line.entry for line in self.lines if isinstance(line.entry, PlanEntry)]

    @cached_property
    def config(self) -> FederationConfig | None:
        """The configuration; None where there is none, or it is damaged."""
        if not is_file(self.folder / CONFIG):
            return None
        try:
            return load_config(self.folder / CONFIG)
        except SecureFLError as problem:
            self._found(CONFIG, problem.field, problem.problem)
            return None

    def _config(self) -> None:
        names = [path.relative_to(self.folder).as_posix() for path in sorted((self.folder / "configs").glob("*.toml"))]
        plans = [plan.digest for plan in self.plans]
        for name in [*names, *([CONFIG] if is_file(self.folder / CONFIG) else [])]:
            data = self._read(name)
            known = plans[-1:] if name == CONFIG else plans
            if data is not None and self.whole and hashlib.sha256(data).hexdigest() not in known:
                self._found(name, "content", "not the configuration whose digest is in the transcript's plan")
            self.covered.add(name)
        if self.config is not None and self._same_version:
            self._spelled(MANIFEST, json.dumps(Manifest.of(self.config).as_dict(), indent=1) + "\n", "not the tags that follow from config.toml")

    @property
    def _same_version(self) -> bool:
        """Whether this version of the software wrote the record."""
        return bool(self.plans) and (self.plans[-1].versions or {}).get("secure-fl") == __version__

    @cached_property
    def ledger(self) -> PrivacyLedger | None:
        """The ledger; None where there is none, or it is damaged."""
        if not is_file(self.folder / LEDGER):
            return None
        self.covered.add(LEDGER)
        try:
            found = PrivacyLedger.load(self.folder / LEDGER)
            self._spelled(LEDGER, json.dumps(self._json(LEDGER), indent=1, sort_keys=True), "not spelled as it was written")
        except SecureFLError as problem:
            self._found(LEDGER, "content", problem.problem)
            return None
        return found

    def _ledger(self, rounds: Rounds) -> None:
        entries = [line.entry for line in self.lines if isinstance(line.entry, LedgerEntry)]
        private = self.config is not None and (self.config.privacy.unit != "none" or self.config.noises_sketches)
        if self.ledger is None:
            if not is_file(self.folder / LEDGER) and (private or any(entry.client is None for entry in entries)):
                self._found(LEDGER, "file", "missing, though the record counts its releases")
            return
        marks = [*marks_of(entries, self.ledger), *self._marks()]
        self.findings += events_again(self.ledger, marks)
        self.findings += noise_of_sums(self.ledger.releases, rounds.sums)
        releases = len(self.ledger.releases)
        self.checked.append(("ledger", f"{releases} releases, chained; ε of every subject from their events; {len(marks)} marks of it elsewhere"))
        summary = self._json(SUMMARY) if is_file(self.folder / SUMMARY) else None
        if self.config is None or summary is None:
            return
        self.findings += claims_again(summary, self.config, self.ledger, words=self._same_version)
        said = summary.get("privacy") or summary.get("sketches") or {}
        if isinstance(said, dict) and (self._json(LEDGER) or {}).get("claims") != said.get("claims"):
            self._found(SUMMARY, "claims", "not those in ledger.json")
        self.checked.append(("claims", "every ε and claim of the summary, computed again; each round's survivors against the noise charged for"))

    def _marks(self) -> Iterator[tuple[str, Mark]]:
        """The ledger's marks in metrics, summary and checkpoints."""
        places: list[tuple[str, object]] = [(f"{METRICS} line {number}", line.get("metrics")) for number, line in enumerate(self.metrics, 1)]
        summary = (self._json(SUMMARY) or {}) if is_file(self.folder / SUMMARY) else {}
        places.append((SUMMARY, summary.get("privacy") or summary.get("sketches")))
        places += [(name, self._json(name)) for name in self._names("checkpoints/*/manifest.json")]
        for where, said in places:
            found = said.get("ledger") if isinstance(said, dict) else None
            if isinstance(found, dict):
                length = found.get("length")
                yield where, Mark(length if isinstance(length, int) else -1, str(found.get("head")))
            elif self.finished and isinstance(said, dict):
                self._found(where, "ledger", "does not count the ledger's releases: it is not what the run wrote")

    def _checkpoints(self) -> None:
        states = {entry.digest: entry.place for line in self.lines if isinstance(entry := line.entry, StateEntry)}
        names = self._names("checkpoints/*/manifest.json")
        for name in names:
            content = self._json(name)
            tensors = name.replace("manifest.json", "state.safetensors")
            if content is None:
                continue
            if content.get("check") != digest({**content, "check": ""}):
                self._found(name, "check", "not the digest of the rest")
            if content.get("sha256") != {"state.safetensors": self._sha256(tensors)}:
                self._found(tensors, "content", "not what the checkpoint's manifest says")
            place = (content.get("phase"), content.get("round"))
            if self.whole and states.get(str(content.get("check"))) != place:
                self._found(name, "check", "no state entry of the transcript tells of it")
            self._spelled(name, json.dumps(content, indent=1), "not spelled as it was written")
            self.covered |= {name, tensors}
        if names:
            self.checked.append(("checkpoints", f"{len(names)}, by their digests in the transcript"))

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Lines of `metrics.jsonl` that can be read."""
        data, found = (self._read(METRICS) or b"") if is_file(self.folder / METRICS) else b"", list[dict[str, Any]]()
        whole, _, half = data.rpartition(b"\n")
        if half:
            self._found(METRICS, "last line", "ends in half a line, as after a kill; resuming cuts it")
        for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
            parsed = self._parsed(METRICS, line, f"line {number}")
            if parsed is not None:
                found.append(parsed)
        return found

    def _metrics(self, rounds: Rounds) -> None:
        """Each round that summed something has a sum, of as many clients."""
        if not self.whole or not self.metrics:
            return
        asked: dict[str, set[str]] = {}
        for _, begun, _ in rounds.sums:
            asked.setdefault(f"{begun.step} {begun.place[1] + 1}", set()).update(begun.cohort)
        steps = {begun.step for _, begun, _ in rounds.sums}
        for number, line in enumerate(self.metrics, 1):
            place = f"{line.get('phase')} {line.get('round')}"
            if str(line.get("phase")) in steps and len(asked.get(place, ())) != line.get("clients"):
                self._found(METRICS, f"line {number}: clients", "the transcript has no sum of so many clients in this round")
        self.checked.append(("metrics", f"{len(self.metrics)} lines, against the transcript's sums"))

    def _files(self) -> None:
        """Digests of files in the last entry, and in `digests.json`."""
        if not self.whole or not self.finished:
            return
        last = self.lines[-1] if self.lines else None
        if last is None or not isinstance(last.entry, EndEntry):
            self._found(FILE, "last line", "the run has a summary, and its transcript does not end; resume the run, which ends it")
            return
        files = dict(last.entry.files)
        if DIGESTS in ((self._json(MANIFEST) or {}).get("files") or {}):
            content = self._json(DIGESTS) or {}
            self.covered.add(DIGESTS)
            rest = {name: value for name, value in content.items() if name != "digest"}
            if content.get("digest") != digest(rest) or not isinstance(content.get("files"), dict):
                self._found(DIGESTS, "digest", "not that of the rest")
            elif content.get("transcript") != last.head.hex():
                self._found(FILE, "last line", "not the one that digests.json was written after")
            self._spelled(DIGESTS, json.dumps(content, indent=1) + "\n", "not spelled as it was written")
            files |= content["files"] if isinstance(content.get("files"), dict) else {}
        there = set(self._names("**/*"))
        for name, said in files.items():
            if name not in there or self._sha256(name) != said:
                self._found(name, "content", "not the bytes that the run ended with")
            self.covered.add(name)
        self.checked.append(("files", f"{len(files)}, by their digests"))

    def _count(self, rounds: Rounds) -> None:
        self.checked.append(("transcript", f"{len(self.lines)} entries, chained" + (f"; head {self.lines[-1].head.hex()}" if self.lines else "")))
        self.checked.append(("rounds", f"{len(rounds.sums)} sums: numbers, cohorts, survivors, counts and pools by the rules of each round"))
        if rounds.signatures:
            told = ", ".join(dict.fromkeys(rounds.coordinators))
            self.checked.append(("signatures", f"{rounds.signatures}, under rosters that the coordinator signed; its fingerprint: {told}"))

    def _uncovered(self, rounds: Rounds) -> dict[str, str]:
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and name not in self.covered:
                known = next((pattern for pattern in _WHY if path.match(pattern) or name.startswith(pattern)), "")
                found[known or name] = _WHY.get(known, "nothing tells its content")
        if rounds.unsigned:
            found[FILE] = f"no signed messages of {len(rounds.unsigned)} rounds are kept"
        return found

    # Reading

    def _found(self, file: str, place: str, problem: str) -> None:
        self.findings.append(Finding(file, place, problem))

    def _names(self, pattern: str) -> Sequence[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.glob(pattern))

    def _read(self, name: str) -> bytes | None:
        try:
            return read_bytes(self.folder / name, most=_LARGEST)
        except SecureFLError as problem:
            self._found(name, "file", problem.problem)
            return None

    def _sha256(self, name: str) -> str | None:
        data = self._read(name)
        return None if data is None else hashlib.sha256(data).hexdigest()

    def _json(self, name: str) -> dict[str, Any] | None:
        data = self._read(name)
        return None if data is None else self._parsed(name, data, "content")

    def _parsed(self, name: str, data: bytes, place: str) -> dict[str, Any] | None:
        try:
            return parse_json(data, dict[str, Any], field=name, value="not shown", remedy="restore the file")
        except SecureFLError as problem:
            self._found(name, place, problem.problem)
            return None

    def _spelled(self, name: str, text: str, problem: str) -> None:
        data = self._read(name)
        if data is not None and data != text.encode():
            self._found(name, "content", problem)
        self.covered.add(name)
