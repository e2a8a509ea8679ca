"""`audit.json`: what an audit found, as records; and of which state of a run it tells."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from secure_fl import records
from secure_fl.audit.check import Depth
from secure_fl.audit.outcome import Outcome, Verdict
from secure_fl.errors import AuditError
from secure_fl.federation.run_folder.audit_seal import AUDIT, is_sealed, seal_of
from secure_fl.federation.run_folder.tags import is_made_later
from secure_fl.files import is_file, is_lock, parse_json, read_bytes, write_atomically
from secure_fl.paths import path_of
from secure_fl.privacy.claims import PrivacyClaim
from secure_fl.records import Record, T, document

FILE, FOLDER = AUDIT, "audit"
"""The whole document, and beside it the folder of single outcomes."""
_LARGEST, _LARGEST_RECORD = 1 << 36, 1 << 24
"""Bytes of a file of a run that are digested; and of an audit's own, which a page is made of."""
_REMEDY = "delete it, and audit again"


@dataclass(frozen=True)
class Audited(Record):
    """What was audited.

    Attributes:
        name: the configuration's.
        kind: a finished `run`, a `configuration` that nobody has run yet, or a `party`: its folder
            alone, of a deployment.
        digest: SHA-256 over all that is recorded in the folder, or over the configuration; hex.
    """

    name: str
    kind: Literal["run", "configuration", "party"]
    digest: str


@dataclass(frozen=True)
class Refused(Record):
    """A check that does not apply.

    Attributes:
        check: its name.
        tried: what it would have asked.
        why: it does not apply, in one sentence.
    """

    check: str
    tried: str
    why: str


@dataclass(frozen=True, kw_only=True)
class AuditDocument(Record):
    """A whole audit.

    An infinite number (a bound where every finite ε is refuted) is written as null.

    Attributes:
        format: of this file.
        seal: digest of all the rest (`run_folder.audit_seal`), hex; empty until it is written.
        subject: what was audited.
        claims: what the run claims of its privacy, as `summary.json` has it; empty for a
            configuration, and for a run without differential privacy.
        depth, seed: as asked for.
        version: of the software that audited.
        code: digest of its source (`federation.policy.installed.code_digest`).
        verdict: `broken` where any outcome is; else `not tried` where any was not, or there is
            none; else `held`. Checks in `left_out` do not count: look at both.
        outcomes: of all checks that were tried, in the catalogue's order.
        refused: checks that do not apply.
        left_out: names of checks that apply and that nobody asked for (`--only`).
        made: when it was written, in UTC: `2026-11-30T22:05Z`.
        seconds: all outcomes' together.
    """

    format: Literal[2] = 2
    seal: str = ""
    subject: Audited
    claims: tuple[PrivacyClaim, ...] = ()
    depth: Depth
    seed: int
    version: str
    code: str
    verdict: Verdict
    outcomes: tuple[Outcome, ...]
    refused: tuple[Refused, ...] = ()
    left_out: tuple[str, ...] = ()
    made: str
    seconds: float

    def is_of(self, folder: Path) -> bool:
        """Whether the run in a folder is still what was audited. Raises FileError: unreadable."""
        return self.subject.digest == record_digest(folder)


def verdict_of(outcomes: Iterable[Outcome]) -> Verdict:
    """What several outcomes say together; see `AuditDocument.verdict`."""
    found = {outcome.verdict for outcome in outcomes}
    if "broken" in found:
        return "broken"
    return "held" if found == {"held"} else "not tried"


def read_audit(path: Path | str) -> AuditDocument | None:
    """What an audit wrote: of a run's folder, of the folder given as `--out`, or that file itself.

    None where there is no audit. Whether it is of the run as it stands, `is_of` tells.

    Raises:
        AuditError: damaged, of another format, changed after it was sealed, or its parts do not fit
            each other.
        FileError: it cannot be read.
    """
    place = path_of(path, "path")
    file = place / FILE if place.is_dir() else place
    if not is_file(file):
        return None
    found = read_record(file, AuditDocument)
    names = [outcome.check for outcome in found.outcomes]
    if found.verdict != verdict_of(found.outcomes):
        raise AuditError.of_file("its verdict is not that of its outcomes", file, _REMEDY)
    if len({*names, *found.left_out}) < len(names) + len(found.left_out):
        raise AuditError.of_file("a check stands in it twice", file, _REMEDY)
    if not is_sealed(_values(found)):
        raise AuditError.of_file("was changed after it was sealed", file, _REMEDY)
    return found


def sealed(made: AuditDocument) -> AuditDocument:
    """The same as it will be read (0.0 where a check measured 0), with its seal."""
    whole = _parsed(encoded(made), Path(FILE), AuditDocument)
    return replace(whole, seal=seal_of(_values(whole)))


def write_audit(folder: Path, made: AuditDocument) -> AuditDocument:
    """Seal an audit and write it into a folder, whole or not at all. Raises as `write_record`."""
    whole = sealed(made)
    write_record(folder / FILE, whole)
    return whole


def encoded(record: Record) -> bytes:
    """A record of an audit as JSON, with null for infinity.

    Raises:
        AuditError: a number in it is none (NaN), or −infinity.
    """
    try:
        return json.dumps(_values(record), indent=1, allow_nan=False).encode()
    except ValueError:
        remedy = "report it: a check must not measure what is no number"
        raise AuditError.unshown("is no number", "a figure", remedy) from None


def write_record(path: Path, record: Record) -> None:
    """Write a record of an audit, whole or not at all.

    Raises:
        AuditError: as `encoded`.
        FileError: it cannot be written.
    """
    write_atomically(path, encoded(record) + b"\n")


def read_record(path: Path, kind: type[T]) -> T:
    """A record of an audit. Raises AuditError: damaged; FileError: it cannot be read."""
    return _parsed(read_bytes(path, most=_LARGEST_RECORD), path, kind)


def schema() -> dict[str, Any]:
    """JSON schema of `audit.json`, as `audit.schema.json` in this package holds it."""
    return records.schema(AuditDocument, "secure-fl audit.json")


def record_digest(folder: Path) -> str:
    """SHA-256 over all files of a run but those that are made when it is over; hex.

    Raises:
        FileError: one cannot be read.
    """
    found = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and not is_lock(path)
    }
    parts = {
        name: hashlib.sha256(read_bytes(path, most=_LARGEST)).hexdigest()
        for name, path in found.items()
        if not is_made_later(name)
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _parsed(data: bytes, path: Path, kind: type[T]) -> T:
    told: Any = {"field": path.name, "value": str(path), "remedy": _REMEDY}
    return parse_json(data, kind, **told, error=AuditError)


def _values(record: Record) -> Any:
    return _finite(document(record))


def _finite(value: Any) -> Any:
    """JSON values with null for infinity."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if value == math.inf else value
