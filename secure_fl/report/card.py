"""A run on one sheet: `privacy-card.json`, and the same as a page of at most two sheets of paper.

All of it is read off the run's folder, and what the folder's manifest keeps from its readers is not
on the card (`Manifest.seen`). `privacy-card.schema.json`, beside this file, is its JSON schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from secure_fl.audit.outcome import Verdict
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.run_folder.secrecy import Secrecy
from secure_fl.federation.run_folder.summary import Charged, Privacy, SketchPrivacy
from secure_fl.files import is_file, read_bytes, read_json, write_atomically, write_json
from secure_fl.finished.artifacts import ModelCard
from secure_fl.privacy.chain import Mark
from secure_fl.records import Record, document, schema
from secure_fl.report.audited import Audit
from secure_fl.report.runs import Run, read_runs

CARD, PAGE = "privacy-card.json", "privacy-card.html"
NO_BOUND: Literal["no bound"] = "no bound"
_REMEDY = "restore the file that the run wrote"

Epsilon = float | Literal["no bound"]


@dataclass(frozen=True)
class RunFacts(Record):
    """Which run it is: its name, how it ended, and its seed, which feeds no noise."""

    name: str
    status: str
    seed: int


@dataclass(frozen=True)
class AgainstWhom(Record):
    """ε against one adversary, for one unit; ε of different units are never added."""

    adversary: str
    unit: str
    epsilon: Epsilon
    delta: float
    adjacency: str
    sampling: str


@dataclass(frozen=True)
class Claimed(Record):
    """What is claimed of differential privacy.

    Attributes:
        unit: whose presence ε bounds: an `example`'s, or a whole `client`'s.
        epsilon: the largest of any client, against whoever sees what the noise was sized for.
        budget: ε that was not to be passed; absent where there was none.
        covers: what of the run is covered.
        releases: how many there were, each in `ledger.json`.
        adversaries: ε against each.
    """

    unit: str
    adjacency: str
    epsilon: Epsilon
    delta: float
    covers: str
    releases: int
    adversaries: tuple[AgainstWhom, ...]
    budget: float | None = None


@dataclass(frozen=True)
class Sums(Record):
    """How sums of updates are protected.

    Attributes:
        protection: its layers.
        key_holder: who can open sums; absent without encryption.
        min_pool_clients: fewest clients of a pool that is opened.
        robust: how updates are averaged against clients that lie.
    """

    protection: str
    min_pool_clients: int
    robust: str
    key_holder: str | None = None


@dataclass(frozen=True)
class DataFacts(Record):
    """Shapes and counts, as far as the manifest lets readers of the folder have them."""

    clients: int
    examples: int | None = None
    shape: tuple[int, ...] | None = None
    classes: int | None = None


@dataclass(frozen=True)
class Accuracy(Record):
    """Over clients, of the pool that each one chose, on its own test examples."""

    mean: float | None
    deviation: float | None
    worst: float | None
    balanced: float | None
    most_frequent_class: float | None
    test_loss: float | None


@dataclass(frozen=True)
class AuditBound(Record):
    """What one method says of ε from below; `epsilon` is null where every finite ε is refuted.
    `claimed` is the ε that it is held against, at this δ: of the steps that the check played.
    """

    check: str
    method: str
    kind: str
    unit: str
    epsilon: float | None
    delta: float
    confidence: float
    claimed: float | None = None


@dataclass(frozen=True)
class AuditFacts(Record):
    """The verdict of the audit whose `audit.json` lies in the folder.

    Attributes:
        made: when, in UTC.
        current: whether the folder is still what was audited; if not, the verdict is not of this
            run as it stands.
        held, broken, not_tried: names of checks that were asked for.
        left_out: names of checks that apply, and that nobody asked for.
        not_applicable: names of checks that do not apply to the run.
    """

    verdict: Verdict
    depth: str
    made: str
    current: bool
    held: tuple[str, ...]
    broken: tuple[str, ...]
    not_tried: tuple[str, ...]
    left_out: tuple[str, ...]
    not_applicable: tuple[str, ...]
    bounds: tuple[AuditBound, ...]


@dataclass(frozen=True)
class RecordFacts(Record):
    """By what the folder is known again.

    Attributes:
        fits: whether `secure-fl verify` found nothing in it that does not fit.
        findings: how many it found.
        configuration: SHA-256 of `config.toml`, hex.
        transcript: hash of its last line, hex, which holds those of all before; absent where there
            is none.
        signatures: how many were checked, and under which coordinator's fingerprint; absent where
            nothing is signed.
        ledger: how many releases, and the last one's hash; absent where nothing was charged.
    """

    fits: bool
    findings: int
    configuration: str
    transcript: str | None = None
    ledger: Mark | None = None
    signatures: str | None = None


@dataclass(frozen=True, kw_only=True)
class PrivacyCard(Record):
    """A run's claims and what stands behind them.

    Attributes:
        privacy: null where nothing is noised: then no ε holds.
        readers: who can read what of the sums.
        assumptions, not_covered: of the claims; and what the run does not protect at all.
        accuracy, audit: absent where the manifest keeps them from readers, or there is none.
    """

    format: Literal[1] = 1
    run: RunFacts
    privacy: Claimed | None
    sums: Sums
    readers: tuple[Secrecy, ...]
    assumptions: tuple[str, ...]
    not_covered: tuple[str, ...]
    unprotected: tuple[str, ...]
    data: DataFacts
    accuracy: Accuracy | None = None
    audit: AuditFacts | None = None
    record: RecordFacts
    versions: Mapping[str, str]


def card_of(run: Run) -> PrivacyCard:
    """A run's card, as its folder's manifest lets readers have it.

    Raises:
        RunFolderError, FileError: a file of the run is damaged or cannot be read.
    """
    said = run.summary.charged
    claims = () if said is None else said.claims
    made = PrivacyCard(
        run=RunFacts(run.summary.name, run.summary.status, run.summary.seed),
        privacy=None if said is None else _claimed(said),
        sums=_sums(run),
        readers=run.summary.secrecy,
        assumptions=_each(text for claim in claims for text in claim.assumes),
        not_covered=_each(text for claim in claims for text in claim.not_covered),
        unprotected=run.summary.unprotected,
        data=_data(run),
        accuracy=_accuracy(run),
        audit=_audit(run),
        record=_record(run),
        versions=run.summary.versions,
    )
    return RunFolder.open(run.folder).manifest.seen(CARD, made)


def write_card(path: Path, folder: Path) -> tuple[Path, Path]:
    """Write a run's card as JSON and as a page; gives their paths.

    Args:
        path: the run's folder.
        folder: to write to.

    Raises:
        RunFolderError, FileError: as `card_of`; or `folder` cannot be written to.
        DependencyError: jinja2 is missing.
    """
    from secure_fl.report.card_page import card_page

    card = card_of(read_runs([path])[0])
    page = card_page(card).encode()
    write_json(folder / CARD, document(card))
    write_atomically(folder / PAGE, page)
    return folder / CARD, folder / PAGE


def card_schema() -> dict[str, Any]:
    """JSON schema of `privacy-card.json`, as the package holds it."""
    return schema(PrivacyCard, "secure_fl privacy card")


def _claimed(said: Charged) -> Claimed:
    rows = (
        AgainstWhom(
            str(claim.adversary),
            str(claim.unit),
            _epsilon(claim.epsilon),
            claim.delta,
            str(claim.adjacency),
            claim.sampling,
        )
        for claim in said.claims
    )
    return Claimed(
        unit=said.unit,
        adjacency=said.adjacency,
        epsilon=_epsilon(said.epsilon),
        delta=said.delta,
        covers=said.covers if isinstance(said, SketchPrivacy) else "the whole run",
        releases=said.releases,
        adversaries=tuple(rows),
        budget=said.budget if isinstance(said, Privacy) else None,
    )


def _epsilon(value: float | None) -> Epsilon:
    return NO_BOUND if value is None else value


def _sums(run: Run) -> Sums:
    security = run.config.security
    return Sums(
        security.protection,
        security.min_pool_clients,
        security.robust,
        security.key_holder if security.protection == "bfv+masked" else None,
    )


def _data(run: Run) -> DataFacts:
    file = run.folder / "model" / "model.json"
    model = read_json(file, ModelCard, _REMEDY) if is_file(file) else None
    return DataFacts(
        run.clients,
        run.summary.examples,
        None if model is None else model.shape,
        None if model is None else model.classes,
    )


def _accuracy(run: Run) -> Accuracy | None:
    found = run.pools
    if found is None:
        return None
    return Accuracy(
        found.accuracy,
        found.accuracy_std,
        found.accuracy_min,
        found.balanced_accuracy,
        found.majority,
        found.test_loss,
    )


def _audit(run: Run) -> AuditFacts | None:
    if (audit := Audit.of(run)) is None:
        return None
    bounds = (
        AuditBound(
            outcome.check,
            bound.method,
            bound.kind,
            outcome.unit,
            bound.epsilon if isfinite(bound.epsilon) else None,
            bound.delta,
            bound.confidence,
            _finite(audit.claimed(outcome, bound)),
        )
        for outcome, bound in audit.bounds
    )
    by = {
        verdict: tuple(one.check for one in audit.outcomes if one.verdict == verdict)
        for verdict in ("held", "broken", "not tried")
    }
    return AuditFacts(
        audit.verdict,
        audit.document.depth,
        audit.document.made,
        audit.current,
        by["held"],
        by["broken"],
        by["not tried"],
        audit.document.left_out,
        tuple(each.check for each in audit.document.refused),
        tuple(bounds),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _record(run: Run) -> RecordFacts:
    said = run.summary.charged
    digest = hashlib.sha256(read_bytes(run.folder / "config.toml")).hexdigest()
    return RecordFacts(
        run.verified.ok,
        len(run.verified.findings),
        digest,
        run.verified.head or None,
        None if said is None else said.ledger,
        dict(run.verified.checked).get("signatures"),
    )


def _each(texts: Iterable[str]) -> tuple[str, ...]:
    """Every text once."""
    return tuple(dict.fromkeys(texts))
