"""`audit.json`: written and read again, by its schema, and of which state of a run it is."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from secure_fl.audit.bounds.result import Bound
from secure_fl.audit.check import Depth
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.second_account import bracket
from secure_fl.audit.subject import Subject
from secure_fl.audit.suite import document
from secure_fl.audit.suite.catalogue import checks
from secure_fl.audit.suite.document import (
    AuditDocument,
    Audited,
    Refused,
    read_audit,
    record_digest,
    sealed,
    verdict_of,
    write_audit,
    write_record,
)
from secure_fl.errors import AuditError, ConfigError, FileError
from secure_fl.federation.run_folder.audit_seal import is_sealed
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.claims import Adversary, PrivacyClaim

BOUND = Bound("one run", math.inf, 1e-5, 0.95, ("fair coins",), details={"mu": 2.0})
OUTCOME = Outcome(
    "toy", "to break it", "server", "example", "held", "nothing seen", 1e-3, (BOUND,),
    (Figure("rate, share", 0.5, low=0.4, high=0.6, chance=0.5),),
)  # fmt: skip
CLAIM = PrivacyClaim(
    2.0, 1e-5, PrivacyUnit.EXAMPLE, Adjacency.ADD_REMOVE, "Poisson", Adversary.MODEL, "derived",
    ("the ledger is complete",), (),
)  # fmt: skip
DOCUMENT = AuditDocument(
    subject=Audited("toy", "run", "00"),
    claims=(CLAIM,),
    depth=Depth.MINUTES,
    seed=3,
    version="0.1.0",
    code="11",
    verdict="held",
    outcomes=(OUTCOME,),
    refused=(Refused("other", "to break that", "there is no such thing"),),
    left_out=("third",),
    made="2026-11-30T22:05Z",
    seconds=1.5,
)


def test_it_reads_as_it_was_written(tmp_path: Path) -> None:
    written = write_audit(tmp_path, DOCUMENT)
    assert written == sealed(DOCUMENT)
    assert read_audit(tmp_path) == read_audit(tmp_path / document.FILE) == written
    said = json.loads((tmp_path / document.FILE).read_text())
    assert said["outcomes"][0]["bounds"][0]["epsilon"] is None, "JSON has no infinity"


def test_whole_numbers_are_sealed_as_they_are_read(tmp_path: Path) -> None:
    """A count of 0 stands where a share is asked for; 0 and 0.0 are two texts."""
    counted = replace(OUTCOME, figures=(Figure("found", 0, low=0, high=1, limit=0),))
    written = write_audit(tmp_path, replace(DOCUMENT, outcomes=(counted,), seconds=2))
    assert read_audit(tmp_path) == written
    assert is_sealed(json.loads((tmp_path / document.FILE).read_text()))


def test_there_may_be_none(tmp_path: Path) -> None:
    assert read_audit(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [{"format": 1}, {"verdict": "fine"}, {"more": 1}, {"seed": "3"}, {"outcomes": [{}]}],
)
def test_another_form_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write_audit(tmp_path, DOCUMENT)
    said = json.loads((tmp_path / document.FILE).read_text()) | change
    (tmp_path / document.FILE).write_text(json.dumps(said))
    with pytest.raises(AuditError, match="damaged"):
        read_audit(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"left_out": []},
        {"depth": "night"},
        {"made": "2026-12-01T00:00Z"},
        {"seal": ""},
    ],
)
def test_an_edit_after_the_audit_is_noticed(tmp_path: Path, change: dict[str, object]) -> None:
    write_audit(tmp_path, DOCUMENT)
    said = json.loads((tmp_path / document.FILE).read_text()) | change
    (tmp_path / document.FILE).write_text(json.dumps(said))
    with pytest.raises(AuditError, match="changed after it was sealed"):
        read_audit(tmp_path)


def test_the_seal_is_of_the_record_that_was_audited() -> None:
    other = replace(DOCUMENT, subject=replace(DOCUMENT.subject, digest="11"))
    assert sealed(other).seal != sealed(DOCUMENT).seal


def test_what_is_no_number_is_not_written(tmp_path: Path) -> None:
    wrong = replace(OUTCOME, figures=(Figure("rate", math.nan),))
    with pytest.raises(AuditError, match="no number"):
        write_record(tmp_path / "toy.json", wrong)
    assert not (tmp_path / "toy.json").exists()


def test_the_schema_in_the_package_is_that_of_the_records() -> None:
    shipped = Path(document.__file__).with_name("audit.schema.json")
    assert json.loads(shipped.read_text()) == json.loads(json.dumps(document.schema()))
    fields = document.schema()["required"]
    assert {"subject", "depth", "seed", "version", "verdict", "outcomes", "made"} <= set(fields)


def test_the_verdict_is_the_worst_and_nothing_is_no_pass() -> None:
    def of(*verdicts: str) -> str:
        return verdict_of(replace(OUTCOME, verdict=each) for each in verdicts)  # type: ignore[arg-type]

    assert of("held", "held") == "held"
    assert of("held", "not tried") == of() == "not tried"
    assert of("not tried", "broken", "held") == "broken"


def test_a_changed_run_is_another_and_what_is_made_of_it_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text("1")
    before = record_digest(tmp_path)
    (tmp_path / "audit").mkdir()
    for made in ("audit/toy.json", "audit.json", "report.html", ".lock", "audit/.lock"):
        (tmp_path / made).write_text("made")
    assert record_digest(tmp_path) == before
    of_this = replace(DOCUMENT, subject=Audited("toy", "run", before))
    assert of_this.is_of(tmp_path)
    (tmp_path / "ledger.json").write_text("2")
    assert record_digest(tmp_path) != before
    assert not of_this.is_of(tmp_path)


def test_what_checks_ask_reads_alike() -> None:
    """A `yes` is what would be bad, of each: a reader of `held` need not guess what held."""
    for each in checks():
        assert each.tried.startswith(("whether ", "how far ")), each.name


def test_paths_may_be_text(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text('name = "mine"\n')
    assert Subject.of(str(tmp_path / "my.toml")).config.name == "mine"
    assert read_audit(str(tmp_path)) is None
    with pytest.raises(FileError):
        bracket(str(tmp_path / "ledger.json"), 1e-5)
    with pytest.raises(ConfigError):
        Subject.of(3)  # type: ignore[arg-type]
