"""The page says what was audited, by whom it was held against, and what the record proves."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from math import e
from pathlib import Path

import pytest
from report.audits import GUESS, LOW, NOISE, RATES, attack, audited, broken, png
from report.pages import edit, read, summary

from secure_fl.audit.outcome import Figure, Picture
from secure_fl.errors import AuditError, RunFolderError, SecureFLError
from secure_fl.report.audited import OUTDATED, Audit, bound_table, outcome_table, pictures
from secure_fl.report.card import write_card
from secure_fl.report.comparison import compare
from secure_fl.report.findings import right_at_most
from secure_fl.report.runs import read_runs
from secure_fl.report.tables import NONE, confidence, epsilon

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

FAKE = base64.b64encode(b"\x89PNG\r\n\x1a\n<svg onload=alert(1)>").decode()
GIANT = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes([0, 0, 0xEA, 0x60] * 2) + bytes(9)
).decode()
HOSTILE = '<script>alert("x")</script>'


def test_a_run_that_was_never_audited_says_so_with_the_command(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    page, reader = read([runs["private"]], tmp_path / "page.html")
    assert "This run was never audited" in page
    assert "secure-fl audit private" in page
    assert "never audited" in reader.tiles[1]
    assert "What the record proves" in page
    assert "Everything in the folder fits" in page


def test_every_number_of_an_audit_stands_on_the_page(
    copies: dict[str, Path], tmp_path: Path
) -> None:
    audited(copies["private"])
    page, reader = read([copies["private"]], tmp_path / "page.html")
    claim = max(each["epsilon"] for each in summary(copies["private"])["privacy"]["claims"])
    row = reader.row("example-noise: one-run f-DP")
    assert row[1:3] == ["ε ≥ 0.765", epsilon(claim)], "a lower bound is never rounded up"
    assert reader.row("example-noise: one-shot")[1] == "ε ≈ 1.250"
    rates = [row for row in reader.rows if row and row[0] == "inversion: images found"]
    assert [row[1] for row in rates] == [rate.setting for rate in RATES]
    assert [row[2] for row in rates] == ["0.875", "0.013"]
    assert rates[1][3:] == ["0.000 to 0.030", "0.010", "0.040"]
    for text in (
        NOISE.tried,
        NOISE.said,
        "there is one pool",
        "Left out by whoever audited, though they apply (1)",
        "cohort",
    ):
        assert text in page
    assert "audit, depth minutes: 2 of 3 checks: held" in reader.tiles[1]
    assert "2 checks: 2 held, 0 broken, 0 not tried, 1 more left out by whoever audited" in page
    assert page.count('src="data:image/png;base64,') == 1


def test_a_number_that_changes_in_the_file_changes_on_the_page(
    copies: dict[str, Path], tmp_path: Path
) -> None:
    low, *others = NOISE.bounds
    changed = replace(NOISE, bounds=(replace(low, epsilon=0.4321), *others))
    audited(copies["private"], [changed, attack()])
    _, reader = read([copies["private"]], tmp_path / "page.html")
    assert reader.row("example-noise: one-run f-DP")[1] == "ε ≥ 0.432"


def test_bounds_and_attacks_are_drawn_beside_what_they_are_held_to(
    copies: dict[str, Path],
) -> None:
    from secure_fl.report.audit_plots import attacks_plot, bounds_plot

    audited(copies["private"])
    found = Audit.of(read_runs([copies["private"]])[0])
    assert found is not None
    bounds, attacks = bounds_plot(found), attacks_plot(found)
    assert bounds is not None
    assert attacks is not None
    claim = epsilon(found.claimed(NOISE, LOW))
    assert f"one-run f-DP at least 0.765, claimed {claim}" in bounds.alt
    assert "defence off 0.875, chance 0.010" in attacks.alt
    assert "example-noise: one-run f-DP" in bounds.svg
    assert found.claimed(NOISE, replace(LOW, details={"claimed": 0.5})) == 0.5


@pytest.mark.parametrize("value", [1e3, float("inf")])
def test_what_is_broken_is_red_wherever_it_is_named(
    copies: dict[str, Path], tmp_path: Path, value: float
) -> None:
    audited(copies["private"], [broken(epsilon=value), attack()])
    page, reader = read([copies["private"]], tmp_path / "page.html")
    assert '<span class="badge bad">audit, depth minutes: 2 of 3 checks: broken</span>' in page
    assert "audit, depth minutes: 2 of 3 checks: broken" in reader.tiles[1]
    shown = reader.row("example-noise: one-run f-DP")[1]
    assert shown == ("ε ≥ 1000.000" if value == 1e3 else "ε ≥ every finite ε")
    assert 'class="bad"><div>ε ≥' in page


def test_an_audit_of_another_state_of_the_folder_and_damage_are_said(
    copies: dict[str, Path], tmp_path: Path
) -> None:
    folder = copies["private"]
    audited(folder)
    assert "not what was audited any more" not in read([folder], tmp_path / "page.html")[0]
    edit(folder / "summary.json", lambda s: s["privacy"].update(epsilon=0.5))
    page, reader = read([folder], tmp_path / "page.html")
    assert "not what was audited any more" in page
    assert OUTDATED in reader.tiles[1]
    assert f'<span class="badge bad">audit, depth minutes: {OUTDATED}' in page
    assert "things in the folder do not fit" in page
    assert "summary.json: " in page


def test_an_audit_is_the_experimenters(copies: dict[str, Path], tmp_path: Path) -> None:
    folder = copies["private"]
    audited(folder)
    leave_out(folder)
    page, _ = read([folder], tmp_path / "page.html")
    assert "leaves out what only its experimenter knows" in page
    assert NOISE.said not in page
    assert "image/png" not in page


def leave_out(folder: Path) -> None:
    """As if the run had left out what only its experimenter knows."""
    config = (folder / "config.toml").read_text().split("[evaluate]\n")
    config[1] = "enabled = false\n" + config[1].replace("enabled = true\n", "", 1)
    (folder / "config.toml").write_text("[evaluate]\n".join(config))


def test_what_an_audit_says_turns_into_nothing(copies: dict[str, Path], tmp_path: Path) -> None:
    named = replace(NOISE, check=HOSTILE, tried=HOSTILE, said=HOSTILE, against=HOSTILE)
    audited(copies["private"], [named, replace(attack(), said=HOSTILE)])
    page, reader = read([copies["private"]], tmp_path / "page.html")
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    assert "alert(&#34;x&#34;)" in page


@pytest.mark.parametrize("png", ["PHN2Zz4=", "%%%", FAKE, GIANT])
def test_what_is_no_png_is_no_picture(copies: dict[str, Path], tmp_path: Path, png: str) -> None:
    audited(copies["private"], [replace(attack(), pictures=(Picture("x", png),))])
    with pytest.raises(RunFolderError, match="does not write"):
        read([copies["private"]], tmp_path / "page.html")


def test_an_audit_of_another_run_does_not_speak_for_this_one(
    copies: dict[str, Path], tmp_path: Path
) -> None:
    audited(copies["global"])
    shutil.copy(copies["global"] / "audit.json", copies["private"] / "audit.json")
    page, reader = read([copies["private"]], tmp_path / "page.html")
    assert "audit, depth minutes: of another state of the folder" in reader.tiles[1]
    assert "checks: held" not in page
    runs = read_runs([copies["private"], copies["global"]])
    sides = compare(runs).runs
    assert [side.audit for side in sides] == [OUTDATED, "2 of 3 checks: held"]
    assert [side.alarming for side in sides] == [True, False]
    write_card(copies["private"], tmp_path)
    assert f"{OUTDATED}, and says nothing" in (tmp_path / "privacy-card.html").read_text()


def test_a_comparison_shows_no_audit_that_the_record_leaves_out(copies: dict[str, Path]) -> None:
    for name in ("private", "global"):
        audited(copies[name])
    leave_out(copies["private"])
    sides = compare(read_runs([copies["private"], copies["global"]])).runs
    assert [side.audit for side in sides] == ["", "2 of 3 checks: held"]


def test_checks_that_nobody_asked_for_stand_beside_the_verdict(
    copies: dict[str, Path], tmp_path: Path
) -> None:
    audited(copies["private"])
    page, reader = read([copies["private"]], tmp_path / "page.html")
    assert "audit, depth minutes: 2 of 3 checks: held" in reader.tiles[1]
    assert "1 more left out by whoever audited" in page
    write_card(copies["private"], tmp_path)
    assert json.loads((tmp_path / "privacy-card.json").read_text())["audit"]["left_out"] == [
        "cohort"
    ]
    assert "1 left out: cohort" in (tmp_path / "privacy-card.html").read_text()


def test_a_verdict_that_is_not_its_outcomes_is_damage(
    copies: dict[str, Path], tmp_path: Path
) -> None:
    audited(copies["private"], [broken(), attack()])
    edit(copies["private"] / "audit.json", lambda d: d.update(verdict="held"))
    with pytest.raises(AuditError, match="is not that of its outcomes"):
        read([copies["private"]], tmp_path / "page.html")
    audited(copies["private"], [NOISE, NOISE])
    with pytest.raises(AuditError, match="twice"):
        read([copies["private"]], tmp_path / "page.html")


def test_no_text_of_an_audit_turns_or_hides_what_stands_beside_it(copies: dict[str, Path]) -> None:
    turned = "dleh \u202e\x1b[2J\x00" + "a" * 9000
    seen = (Picture(turned, png()),)
    named = replace(NOISE, check=turned, said=turned, bounds=(replace(LOW, method=turned),))
    audited(copies["private"], [named, replace(attack(), pictures=seen)])
    found = Audit.of(read_runs([copies["private"]])[0])
    assert found is not None
    texts = [each.text for row in outcome_table(found).rows for each in row]
    bounds = bound_table(found)
    assert bounds is not None
    texts += [each.text for row in bounds.rows for each in row] + [pictures(found)[0].said]
    for text in texts:
        assert not set("\u202e\x1b\x00") & set(text)
        assert len(text) < 5000
    assert any(text.startswith("dleh ") for text in texts)


def test_a_claim_without_a_bound_is_none(copies: dict[str, Path], tmp_path: Path) -> None:
    low = replace(LOW, details={"claimed": float("inf")})
    audited(copies["private"], [replace(NOISE, bounds=(low,))])
    _, reader = read([copies["private"]], tmp_path / "page.html")
    assert reader.row("example-noise: one-run f-DP")[2] == NONE


def test_an_audit_too_large_for_a_page_is_refused(copies: dict[str, Path], tmp_path: Path) -> None:
    audited(copies["private"], [replace(NOISE, said="a" * (1 << 24))])
    with pytest.raises(SecureFLError, match=r"audit\.json"):
        read([copies["private"]], tmp_path / "page.html")


def test_what_is_not_certain_is_not_shown_as_100_percent() -> None:
    shown = {0.95: "95%", 0.999: "99.9%", 0.99996: "99.996%", 1 - 1e-9: "99.9999999%", 1.0: "100%"}
    assert {value: confidence(value) for value in shown} == shown


def test_an_epsilon_in_words_is_the_share_that_the_best_guesser_reaches() -> None:
    def best(value: float, delta: float) -> float:
        """By the trade-off curve, point by point."""
        return max(
            (1 + min(1, e**value * false + delta, 1 - (1 - false - delta) / e**value) - false) / 2
            for false in (each / 10_000 for each in range(10_001))
        )

    for value, delta in ((0.1, 0.0), (1.0, 1e-5), (8.0, 1e-5), (0.5, 0.1)):
        said = float(right_at_most(value, delta).removesuffix(" %")) / 100
        assert said == pytest.approx(best(value, delta), abs=2e-4)
        assert said >= best(value, delta) - 1e-12


def test_figures_are_neither_rounded_to_nothing_nor_padded(
    copies: dict[str, Path], tmp_path: Path
) -> None:
    figures = Figure("moved", 1.8e-6), Figure("files read", 12.0, limit=12.0)
    audited(copies["private"], [replace(NOISE, figures=figures)])
    _, reader = read([copies["private"]], tmp_path / "page.html")
    assert reader.row("example-noise: moved")[2] == "1.8e-06"
    assert reader.row("example-noise: files read")[2:] == ["12", "–", "–", "12"]


def test_the_bound_that_came_nearest_to_its_claim_is_named(
    copies: dict[str, Path], tmp_path: Path
) -> None:
    near = replace(LOW, method="near", epsilon=0.4, details={"claimed": 0.5})
    far = replace(LOW, method="far", epsilon=1.0, details={"claimed": 9.0})
    audited(copies["private"], [replace(NOISE, bounds=(far, near, GUESS))])
    page, _ = read([copies["private"]], tmp_path / "page.html")
    assert "Nearest to its claim came example-noise (near): ε ≥ 0.400, where 0.50 is" in page
