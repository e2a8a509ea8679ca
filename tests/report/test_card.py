"""The privacy card: what it says is what the folder says, and no more than its manifest lets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from report import card_schema
from report.audits import MADE, NOISE, audited
from report.pages import Reader, edit, summary
from report.test_audited import leave_out

from secure_fl.errors import RunFolderError
from secure_fl.report import card as cards
from secure_fl.report.card import CARD, PAGE, write_card
from secure_fl.report.tables import epsilon

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
SHIPPED = Path(cards.__file__).with_name("privacy-card.schema.json")


def made(folder: Path, place: Path) -> tuple[dict[str, Any], str]:
    """A run's card, as JSON and as a page."""
    write_card(folder, place)
    card: dict[str, Any] = json.loads((place / CARD).read_text())
    return card, (place / PAGE).read_text(encoding="utf-8")


def test_the_schema_in_the_package_is_that_of_the_records() -> None:
    assert json.loads(SHIPPED.read_text()) == json.loads(json.dumps(cards.card_schema())), (
        "write json.dumps(card_schema(), indent=1) into it"
    )


@pytest.mark.parametrize("name", ["pools", "private"])
def test_a_card_is_valid_and_what_is_none_is_not(
    copies: dict[str, Path], tmp_path: Path, name: str
) -> None:
    audited(copies[name])
    card, _ = made(copies[name], tmp_path)
    schema = json.loads(SHIPPED.read_text())
    assert card_schema.problems(card, schema) == []
    for wrong in (
        {**card, "more": 1},
        {**card, "run": {**card["run"], "seed": "0"}},
        {**card, "format": 2},
        {key: value for key, value in card.items() if key != "sums"},
    ):
        assert card_schema.problems(wrong, schema)


def test_every_number_is_the_folders(copies: dict[str, Path], tmp_path: Path) -> None:
    folder = copies["private"]
    audited(folder)
    card, page = made(folder, tmp_path)
    said, pools = summary(folder)["privacy"], summary(folder)["pools"]
    reader = Reader(page)
    for row, claim in zip(card["privacy"]["adversaries"], said["claims"], strict=True):
        assert row["epsilon"] == claim["epsilon"]
        shown = next(each for each in reader.rows if each[0] == claim["adversary"])
        assert shown[1:3] == [epsilon(claim["epsilon"]), f"{claim['delta']:g}"]
    for field in ("unit", "adjacency", "epsilon", "delta", "budget", "releases"):
        assert card["privacy"][field] == said[field]
    assert f"ε = {epsilon(said['epsilon'])} at δ = {said['delta']:g} for one example" in page
    assert card["accuracy"]["mean"] == pools["accuracy"]
    assert card["accuracy"]["worst"] == pools["accuracy_min"]
    assert f"{pools['accuracy']:.3f}, mean over clients" in page
    record, lines = card["record"], (folder / "transcript.jsonl").read_text().splitlines()
    assert (
        record["configuration"] == hashlib.sha256((folder / "config.toml").read_bytes()).hexdigest()
    )
    assert record["transcript"] == json.loads(lines[-1])["hash"]
    assert record["ledger"] == json.loads((folder / "ledger.json").read_text())["mark"]
    for digest in (record["configuration"], record["transcript"], record["ledger"]["head"]):
        assert digest in page
    data = card["data"]
    assert data == {
        "clients": 6,
        "examples": summary(folder)["examples"],
        "shape": [1, 8, 8],
        "classes": 3,
    }
    assert card["readers"] == summary(folder)["secrecy"]


def test_an_audit_is_named_with_all_its_checks(copies: dict[str, Path], tmp_path: Path) -> None:
    folder = copies["private"]
    audited(folder)
    card, page = made(folder, tmp_path)
    reader, claims = Reader(page), summary(folder)["privacy"]["claims"]
    claimed = epsilon(next(each["epsilon"] for each in claims if each["adversary"] == "server"))
    assert card["audit"]["bounds"][0]["epsilon"] == NOISE.bounds[0].epsilon
    assert card["audit"]["held"] == ["example-noise", "inversion"]
    assert card["audit"]["left_out"] == ["cohort"]
    assert card["audit"]["not_applicable"] == ["choices"]
    row = reader.row("example-noise: one-run f-DP")
    assert row == ["example-noise: one-run f-DP", "0.765", "1e-05", claimed, "95%"]
    assert "2 of 3 checks: held, at depth minutes" in page
    assert "0 broken; 2 held: example-noise, inversion; 1 left out: cohort; 1 do not" in page
    assert card["audit"]["made"] == MADE
    assert MADE in page
    assert "0.765" in page


def test_a_number_that_changes_in_the_folder_changes_on_the_card(
    copies: dict[str, Path], tmp_path: Path
) -> None:
    folder = copies["private"]

    def change(said: dict[str, Any]) -> None:
        said["privacy"]["epsilon"] = 12.3456
        said["pools"]["accuracy"] = 0.1234
        for claim in said["privacy"]["claims"]:
            claim["epsilon"] = None

    edit(folder / "summary.json", change)
    card, page = made(folder, tmp_path)
    assert card["privacy"]["epsilon"] == 12.3456
    assert {row["epsilon"] for row in card["privacy"]["adversaries"]} == {"no bound"}
    assert "ε = 12.35 at" in page
    assert "0.123, mean over clients" in page
    assert not card["record"]["fits"]
    assert "do not rely on this record" in page


def test_a_run_without_noise_claims_nothing(runs: dict[str, Path], tmp_path: Path) -> None:
    card, page = made(runs["pools"], tmp_path)
    assert card["privacy"] is None
    assert "audit" not in card
    assert "No differential privacy" in page
    assert "never audited" in page


def test_what_the_manifest_keeps_is_not_on_the_card(
    copies: dict[str, Path], tmp_path: Path
) -> None:
    """Even where the folder holds it."""
    folder = copies["private"]
    audited(folder)
    leave_out(folder)
    card, page = made(folder, tmp_path)
    assert not {"accuracy", "audit"} & set(card)
    accuracy = summary(folder)["pools"]["accuracy"]
    assert f"{accuracy:.3f}" not in page
    assert "0.765" not in page
    assert "not in this record" in page


def test_the_page_asks_for_nothing(copies: dict[str, Path], tmp_path: Path) -> None:
    hostile = "<img src=https://example.org/x>"
    edit(
        copies["private"] / "summary.json", lambda s: s.update(name=hostile, unprotected=[hostile])
    )
    _, page = made(copies["private"], tmp_path)
    tags = Reader(page).tags
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in tags}
    assert "default-src &#39;none&#39;" in page


def test_a_damaged_audit_is_refused(copies: dict[str, Path], tmp_path: Path) -> None:
    from secure_fl.errors import AuditError

    (copies["private"] / "audit.json").write_text("{}")
    with pytest.raises((AuditError, RunFolderError), match="damaged"):
        write_card(copies["private"], tmp_path)
