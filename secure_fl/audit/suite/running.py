"""A whole audit: its checks one after the other or some at a time, each outcome written when it is
there, and `audit.json` at the end.

**Guarantee**: an audit that was interrupted goes on where it stopped; of a run that has changed, or
with other software, every check is tried anew. A check that raises, or whose process dies, is an
outcome, and no pass.
**Assumes**: nobody edits the outcomes in between.
**Not covered**: examples of a configuration that lie elsewhere and change between two parts of an
interrupted audit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from secure_fl import __version__
from secure_fl.audit.check import Depth
from secure_fl.audit.outcome import Outcome
from secure_fl.audit.subject import Subject
from secure_fl.audit.suite.document import (
    FILE,
    FOLDER,
    AuditDocument,
    Audited,
    read_record,
    record_digest,
    verdict_of,
    write_audit,
    write_record,
)
from secure_fl.audit.suite.listening import Listener
from secure_fl.audit.suite.planning import Plan, Planned, check_seed, plan_audit
from secure_fl.audit.suite.trying import not_tried, tried
from secure_fl.audit.suite.worker import answered
from secure_fl.config_file import dump_config
from secure_fl.errors import AuditError
from secure_fl.federation.policy.installed import code_digest
from secure_fl.federation.run_folder.manifest import Manifest
from secure_fl.files import held, is_file, make_folder, parse_json, remove_unfinished
from secure_fl.paths import path_of
from secure_fl.privacy.claims import PrivacyClaim
from secure_fl.records import Record


@dataclass(frozen=True)
class Kept(Record):
    """An outcome, and everything on which it depends.

    Attributes:
        depth, seed, version, code: as in `AuditDocument`.
        subject: what was audited.
    """

    subject: Audited
    depth: Depth
    seed: int
    version: str
    code: str
    outcome: Outcome


def audit(
    subject: Subject,
    out: Path | str | None = None,
    *,
    depth: Depth = Depth.MINUTES,
    seed: int = 0,
    only: Sequence[str] = (),
    jobs: int = 1,
    path: Path | str | None = None,
    addresses: Sequence[str] | None = None,
    listener: Listener | None = None,
) -> AuditDocument:
    """Try to falsify what a run claims.

    Args:
        subject: the run.
        out: folder to write `audit.json` and `audit/` to; the run's own by default.
        depth, seed: how thorough to be, and of what the checks draw.
        only: names of checks; all that apply when empty. What others said before stays.
        jobs, path: how many checks at a time; more than one in processes of their own, which read
            the subject from where it was made of: nothing of it may be yours.
        addresses, listener: of the checks, the catalogue's by default; hooks.

    Raises:
        AuditError: no such check or seed, nowhere to write to, a process does not start, or the run
            has changed meanwhile.
        RunFolderError, FileError: another audit writes to the folder; nothing can be written.
    """
    check_seed(seed)
    told, place = listener or Listener(), place_of(subject, out)
    plan = plan_audit(subject, depth, only, addresses)
    with _Audit.on(subject, place, depth, seed) as running:
        found = {name: outcome for name in _names(plan.chosen) if (outcome := running.kept(name))}
        told.on_plan(plan, tuple(found))
        left = [each for each in plan.chosen if each.check.name not in found]
        for outcome in running.outcomes(left, path_of(path, "path") if path else None, jobs, told):
            running.keep(outcome)
            found[outcome.check] = outcome
            told.on_outcome(outcome)
        return running.document(plan, found)


def place_of(subject: Subject, out: Path | str | None) -> Path:
    """Where an audit is written to.

    Raises:
        AuditError: nowhere was named, and the subject has no folder, or one party's, or one that
            holds nothing of the experimenter's (`evaluate.enabled = false`), as an audit is; or
            what was named is within the subject's folder, or another run's.
    """
    remedy = "name a folder for it with --out"
    out = None if out is None else path_of(out, "out")
    if out is not None and not (subject.folder is not None and _same(out, subject.folder)):
        if subject.folder is not None and subject.folder.resolve() in out.resolve().parents:
            problem = "is within the run's folder, which would then be another one"
            raise AuditError(problem, "--out", str(out), f"{remedy} that lies elsewhere")
        if is_file(out / "manifest.json"):
            problem = "is the folder of another run, which this audit is not of"
            raise AuditError(problem, "--out", str(out), remedy)
        return out
    if subject.folder is None:
        raise AuditError("a configuration has no folder for its audit", "--out", None, remedy)
    if subject.party:
        problem = "a party's folder holds what its owner wrote, and nothing else"
        raise AuditError(problem, "--out", None, remedy)
    if not Manifest.of(subject.config).writes(FILE):
        problem = "the run's record leaves out what only its experimenter may read, as an audit"
        raise AuditError(problem, "--out", None, remedy)
    return subject.folder


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _audited(subject: Subject) -> Audited:
    name = subject.config.name
    if subject.folder is not None:
        digest = record_digest(subject.folder)
        return Audited(name, "party" if subject.party else "run", digest)
    digest = hashlib.sha256(dump_config(subject.config).encode()).hexdigest()
    return Audited(name, "configuration", digest)


def _names(planned: Sequence[Planned]) -> list[str]:
    return [each.check.name for each in planned]


@dataclass(frozen=True)
class _Audit(AbstractContextManager["_Audit"]):
    """An audit under way: its subject, and the folder where outcomes are kept."""

    subject: Subject
    audited: Audited
    claims: tuple[PrivacyClaim, ...]
    place: Path
    depth: Depth
    seed: int
    code: str
    holding: ExitStack

    @classmethod
    def on(cls, subject: Subject, place: Path, depth: Depth, seed: int) -> _Audit:
        """Holds the folder from here on."""
        summary = subject.summary
        charged = None if summary is None else summary.charged
        claims = () if charged is None else charged.claims
        make_folder(place / FOLDER)
        holding = ExitStack()
        holding.enter_context(held(place / FOLDER))
        remove_unfinished(place / FOLDER)
        told = (_audited(subject), claims, place, depth, seed, code_digest())
        return cls(subject, *told, holding)

    def __exit__(self, *_: object) -> None:
        self.holding.close()

    def kept(self, name: str) -> Outcome | None:
        """What a check said of this very subject before; None where it was not tried."""
        file = self._file(name)
        if not is_file(file):
            return None
        try:
            found = read_record(file, Kept)
        except AuditError:  # damaged, or another version's: tried anew
            return None
        same = found == self._record(found.outcome)
        return found.outcome if same and found.outcome.verdict != "not tried" else None

    def keep(self, outcome: Outcome) -> None:
        """Write an outcome. Raises AuditError: the run is not what it was when the audit began."""
        if _audited(self.subject) != self.audited:
            problem, remedy = "changed while it was audited", "wait until nobody writes to it"
            folder = str(self.subject.folder)
            raise AuditError(problem, "DIR", folder, f"{remedy}, and audit it again")
        write_record(self._file(outcome.check), self._record(outcome))

    def outcomes(
        self, left: Sequence[Planned], path: Path | None, jobs: int, told: Listener
    ) -> Iterator[Outcome]:
        """Outcomes as they come; in processes where there are to be several at a time."""
        if jobs == 1:
            return self.in_turn(left, told)
        return self.in_processes(left, path, jobs, told)

    def in_turn(self, left: Sequence[Planned], told: Listener) -> Iterator[Outcome]:
        """Outcomes, one after the other, in this process."""
        for planned in left:
            name = planned.check.name
            told.on_begin(name)
            if planned.problem:
                yield not_tried(planned.check, planned.problem)
                continue
            progress = partial(told.on_progress, name)
            yield tried(planned.check, self.subject, self.depth, self.seed, progress)

    def in_processes(
        self, left: Sequence[Planned], path: Path | None, jobs: int, told: Listener
    ) -> Iterator[Outcome]:
        """Outcomes as they come, so many at a time. Raises AuditError: processes cannot read the
        subject.
        """
        own = (self.subject.data, self.subject.encoder, self.subject.augment)
        if path is None or any(each is not None for each in own):
            problem = "processes cannot be handed data, encoders or augmentations of your own"
            raise AuditError(problem, "jobs", jobs, "run one check at a time: jobs=1")
        stopped = [planned for planned in left if planned.problem]
        yield from self.in_turn(stopped, told)
        ready = [planned for planned in left if not planned.problem]
        common = {"path": str(path.absolute()), "depth": str(self.depth), "seed": self.seed}
        tasks = [common | {"address": planned.address} for planned in ready]
        for answer in answered(
            tasks,
            jobs,
            lambda number, share: told.on_progress(ready[number].check.name, float(share)),
            lambda number: told.on_begin(ready[number].check.name),
        ):
            check = ready[answer.number].check
            if answer.data is None:
                yield not_tried(check, f"its process ended with exit status {answer.status}")
            else:
                yield parse_json(answer.data, Outcome, field=check.name, value="", remedy="")

    def document(self, plan: Plan, found: dict[str, Outcome]) -> AuditDocument:
        """Write `audit.json`; checks that were not asked for say what they said before."""
        before = {name: outcome for name in _names(plan.others) if (outcome := self.kept(name))}
        known = before | found
        outcomes = tuple(known[name] for name in _names(plan.applying) if name in known)
        made = AuditDocument(
            subject=self.audited,
            claims=self.claims,
            depth=self.depth,
            seed=self.seed,
            version=__version__,
            code=self.code,
            verdict=verdict_of(outcomes),
            outcomes=outcomes,
            refused=plan.refused,
            left_out=tuple(name for name in _names(plan.others) if name not in before),
            made=datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
            seconds=round(sum(outcome.seconds for outcome in outcomes), 2),
        )
        return write_audit(self.place, made)

    def _file(self, name: str) -> Path:
        return self.place / FOLDER / f"{name}-{self.depth}-{self.seed}.json"

    def _record(self, outcome: Outcome) -> Kept:
        return Kept(self.audited, self.depth, self.seed, __version__, self.code, outcome)
