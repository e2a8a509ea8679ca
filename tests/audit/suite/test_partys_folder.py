"""An audit of one party's folder: what its record shows is tried, and nothing else is a pass."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from federation.verify.test_verify_party import CLIENT, SERVER, kept, made

from secure_fl.audit.subject import Subject
from secure_fl.audit.suite.document import AuditDocument
from secure_fl.audit.suite.running import audit
from secure_fl.errors import AuditError, RunFolderError

EXAMPLES = ("cohort", "masks", "hubs", "example-noise", "membership")
"""Checks that play with all clients, or with their examples."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("ran")).folder


@pytest.fixture
def folder(tmp_path: Path, ran: Path) -> Path:
    return Path(shutil.copytree(ran, tmp_path / "ran"))


def audited(place: Path) -> AuditDocument:
    return audit(Subject.of(place), place.parent / "audited")


def verdicts(found: AuditDocument) -> dict[str, str]:
    return {each.check: each.verdict for each in found.outcomes}


@pytest.mark.parametrize("name", [SERVER, CLIENT])
def test_the_record_is_tried_and_nothing_that_needs_examples_is_a_pass(
    folder: Path, name: str
) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found = audited(folder / name)
    said = verdicts(found)
    assert (found.subject.kind, found.verdict, said.pop("record")) == ("party", "not tried", "held")
    assert said.pop("account", None) == ("held" if name == CLIENT else None)
    assert set(said.values()) == {"not tried"}
    assert set(EXAMPLES) <= set(said)
    told = {each.said for each in found.outcomes if each.verdict == "not tried"}
    assert all("all clients' examples" in each for each in told)
    assert {path: path.read_bytes() for path in before} == before


def test_a_release_that_a_client_left_out_of_its_ledger_is_found(folder: Path) -> None:
    kept(folder / CLIENT, lambda releases: releases[:-1])
    assert verdicts(audited(folder / CLIENT))["record"] == "broken"


def test_a_ledger_beyond_its_budget_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject.of(folder / CLIENT)
    from secure_fl.privacy.ledger import PrivacyLedger

    honest = PrivacyLedger.maximum
    monkeypatch.setattr(PrivacyLedger, "maximum", lambda *rest: honest(*rest) / 2)
    found = audit(subject, folder / "out", only=["account"])
    (outcome,) = (each for each in found.outcomes if each.check == "account")
    assert outcome.verdict == "broken"
    assert "the ledger's own accountant" in outcome.said


def test_nothing_is_written_into_a_partys_folder(folder: Path) -> None:
    for out in (None, folder / CLIENT):
        with pytest.raises(AuditError, match="--out"):
            audit(Subject.of(folder / CLIENT), out)


def test_a_folder_without_a_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "transcript.jsonl").write_text("")
    with pytest.raises(RunFolderError, match="no plan"):
        Subject.of(tmp_path)
