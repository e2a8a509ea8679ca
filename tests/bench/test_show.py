"""The targets, the plots, the page and the command."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from bench.kernels import bar, command, html, page, plots, registry
from bench.kernels.bar import Bar
from bench.kernels.case import NAIVE, REDUCED, TILES, Case
from bench.kernels.measure import Timing
from bench.kernels.run import CSV, Measured, Options, limits_of
from secure_fl.errors import DependencyError

with warnings.catch_warnings():
    # typer imports names that click has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from typer.testing import CliRunner

    from secure_fl.cli import bench as cli

ROOT = Path(__file__).parents[2]
CASE = Case(64, 8)
COLUMNS = [
    "kernel", "provider", "setting", "mode", "rows", "dimension", "dtype", "device", "threads",
    "samples", "y20", "y50", "y80", "peak_mib", "value_error", "gradient_error", "oracle",
    "floor_share", "limits", "times_naive", "skipped", "load", "date", "machine", "versions",
    "commit",
]  # fmt: skip


def write(folder: Path, *rows: dict[str, object]) -> None:
    usual = {
        "kernel": "ntxent",
        "provider": TILES,
        "mode": "forward+backward",
        "dimension": 128,
        "dtype": "float32",
        "device": "cpu",
        "threads": 1,
    }
    with (folder / CSV).open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows({**usual, **row} for row in rows)


def timed(rows: int, seconds: float, **others: object) -> dict[str, object]:
    return {
        "rows": rows,
        "y20": seconds * 0.9,
        "y50": seconds,
        "y80": seconds * 1.2,
        "peak_mib": rows / 100,
        **others,
    }


def test_columns_are_those_of_the_program(tmp_path: Path) -> None:
    command.main(
        [
            "clip",
            "--rows",
            "4",
            "--dimension",
            "100",
            "--rounds",
            "3",
            "--no-memory",
            "--out",
            str(tmp_path),
        ]
    )
    assert (tmp_path / CSV).read_text().splitlines()[0].split(",") == COLUMNS


def test_a_target_is_met_from_the_right_side() -> None:
    assert Bar("fast", CASE, 5, 5.0).met
    assert Bar("fast", CASE, 5, 4.9).met is False
    assert Bar("small", CASE, 24, 17.0, most=True).met
    assert Bar("small", CASE, 24, 24.1, most=True).met is False
    assert Bar("other", CASE, 10, None, note="no AMX").verdict == "not applicable"
    assert "NOT MET" in str(Bar("fast", CASE, 5, 4.9))
    assert Bar("ratio", CASE, None, 4.9).verdict == "reported"
    assert Bar("ratio", CASE, None, 4.9).met is None
    assert "target" not in str(Bar("ratio", CASE, None, 4.9))


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """One slow round slows both sides: the ratio of medians would be 100/3."""
    timings = {("a", ""): Timing([10.0, 100.0, 200.0]), ("b", ""): Timing([2.0, 20.0, 3.0])}
    floors = {"highest products": [1.0, 10.0, 1.5], "highest exponentials": [0.2, 2.0, 0.3]}
    found = Measured(timings, {("c", ""): "no AMX"}, floors, {}, "")
    assert bar._times(found, ("a", ""), ("b", ""), "x", CASE, 5).figure == pytest.approx(5)
    missing = bar._times(found, ("a", ""), ("c", ""), "x", CASE, 5)
    assert missing.figure is None
    assert missing.note == "no AMX"
    timings[TILES, ""] = timings["b", ""]
    judged, reported = bar._floor_shares(found, "x", CASE)
    assert (judged.figure, judged.target) == (pytest.approx(0.5), 0.8)
    assert (reported.figure, reported.target) == (pytest.approx(0.6), None)
    shares = limits_of(found, registry.kernel("ntxent").provider(TILES), 3.0)
    assert shares == {"products": pytest.approx(0.5), "exponentials": pytest.approx(0.1)}


def test_bars_are_measured_and_recorded(tmp_path: Path) -> None:
    said: list[str] = []
    found = bar.measure_bar(
        Case(600, 16), (2, 10_000), Options(rounds=3, budget=1), tmp_path, said.append
    )
    assert [b.target for b in found] == [None, 0.8, None, 0.8, None, None]
    assert all(b.figure is not None and b.verdict != "not applicable" for b in found[:-1])
    assert "processors" in found[-1].note
    with (tmp_path / bar.CSV).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == [b.verdict for b in found]
    assert float(rows[0]["y20"]) <= float(rows[0]["figure"]) <= float(rows[0]["y80"])
    assert [row["threads"] for row in rows] == [*["2"] * 5, "10000"]
    assert all(line in "\n".join(said) for line in ("load", "times naive torch", "not applicable"))


def test_every_target_of_the_contrastive_loss_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar, "peak_mib", lambda _, __, case, ___: case.rows / 1000)
    bars = list(bar._nt_xent(Case(600, 16), Options(rounds=3, budget=1)))
    assert [b.target for b in bars] == [None, None, None, 0.8, None, 1e-6, 2e-4, 24, 80]
    assert bars[5].met
    assert [b.case.rows for b in bars[-2:]] == [600, 2400]
    reduced = registry.kernel("ntxent").provider(REDUCED).missing(CASE)
    assert bars[1].note == reduced


def test_plots_are_drawn_of_two_sizes_or_more(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    others = [
        timed(256, 2.0, provider=NAIVE),
        timed(1024, 9.0, provider=NAIVE),
        {"rows": 1024, "provider": "lightly", "skipped": "missing"},
    ]
    write(tmp_path, timed(256, 1.0), timed(1024, 4.0), *others, timed(256, 1.0, threads=2))
    (path,) = plots.draw_all(tmp_path)
    assert path == tmp_path / "kernels-ntxent-d128-t1.svg"
    text = path.read_text()
    for part in (TILES, NAIVE, "seconds", "peak extra memory, MiB", "1024"):
        assert part in text
    assert "lightly" not in text
    assert plots.draw_all(tmp_path)[0].read_text() == text


def test_one_page_has_every_picture_and_the_figures_it_was_drawn_from(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write(
        tmp_path,
        timed(256, 1.25, machine="Some CPU, AVX2", floor_share=0.5, limits="products 50%"),
        timed(1024, 4.5, machine="Some CPU, AVX2", floor_share=0.75),
        timed(64, 0.375, kernel="clip", provider="<two> reads"),
    )
    text = html.write_html(tmp_path, tmp_path / "page.html").read_text()
    assert text.count("data:image/svg+xml;base64,") == 1
    for part in ("1.25", "4.5", "0.75", "0.375", "products 50%", "Some CPU, AVX2"):
        assert part in text
    assert "&lt;two&gt; reads" in text
    assert 'src="http' not in text
    again = html.write_html(tmp_path, tmp_path / "again.html").read_text()
    assert again == text


def test_the_committed_pictures_page_has_the_committed_figures() -> None:
    text = html.HTML.read_text(encoding="utf-8")
    for record in plots.measured(plots.newest(plots.read_rows(CSV, ROOT / "bench" / "results"))):
        assert f"<td>{record['y50']}</td>" in text, "run: python -m bench.kernels page"


def test_the_newest_row_counts(tmp_path: Path) -> None:
    write(tmp_path, timed(256, 1.0), timed(256, 7.0))
    (record,) = plots.newest(plots.read_rows(CSV, tmp_path))
    assert record["y50"] == "7.0"
    text = page.table("ntxent", tmp_path)
    assert "| 256 | 128 | 1 | tiles | 7.0 (" in text
    assert "1.0 (" not in text


def test_the_page_is_filled_between_its_marks(tmp_path: Path) -> None:
    write(
        tmp_path,
        timed(256, 1.0),
        {"rows": 512, "provider": "lightly", "skipped": "No module"},
        {"rows": 1024, "provider": "lightly", "skipped": "No module"},
    )
    target = tmp_path / "page.md"
    target.write_text("Before.\n<!-- table: ntxent -->\nold\n<!-- end -->\nAfter.\n")
    page.write_page(tmp_path, target)
    text = target.read_text()
    assert text.startswith("Before.\n<!-- table: ntxent -->\n")
    assert text.endswith("<!-- end -->\nAfter.\n")
    assert "old" not in text
    assert "- Left out at 512, 1024 rows: lightly; No module." in text
    page.write_page(tmp_path, target)
    assert target.read_text() == text
    with pytest.raises(KeyError, match="no table"):
        page.table("nonsense", tmp_path)


def test_the_committed_page_is_that_of_the_committed_rows(tmp_path: Path) -> None:
    copy = tmp_path / "kernel-speed.md"
    copy.write_text(page.PAGE.read_text())
    page.write_page(ROOT / "bench" / "results", copy)
    assert copy.read_text() == page.PAGE.read_text(), "run: python -m bench.kernels page"


def test_the_page_has_every_kernel() -> None:
    assert set(re.findall(r"<!-- table: (\S+) -->", page.PAGE.read_text())) == {
        "bar",
        "provenance",
        *registry.NAMES,
    }


@pytest.mark.parametrize(
    "typed",
    [
        ["kernels"],
        [
            "kernels",
            "--kernel",
            "ntxent",
            "--kernel",
            "clip",
            "--rows",
            "256",
            "--rows",
            "512",
            "--threads",
            "2",
            "--dtype",
            "float32",
            "--full",
            "--plot",
        ],
        [
            "kernels",
            "--no-memory",
            "--limit",
            "2.5",
            "--rounds",
            "3",
            "--device",
            "cpu",
            "--dimension",
            "64",
        ],
        ["bar", "--rows", "512", "--dimension", "16", "--threads", "1", "--strict"],
        ["plot"],
    ],
)
def test_the_command_says_what_the_program_understands(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def record(arguments: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(arguments)
        return subprocess.CompletedProcess(arguments, 3)

    monkeypatch.setattr(cli.subprocess, "run", record)
    done = CliRunner().invoke(cli.bench, [*typed, "--out", str(tmp_path)])
    assert done.exit_code == 3, done.output
    assert ran[0][:3] == [sys.executable, "-m", "bench.kernels"]
    options = command.parser().parse_args(ran[0][3:])
    assert options.out == tmp_path
    assert options.what == {"bar": ["bar"], "plot": ["plot"]}.get(
        typed[0], ["ntxent", "clip"] if "clip" in typed else ["all"]
    )
    assert options.memory == ("--no-memory" not in typed)
    assert options.full == ("--full" in typed)
    assert options.rows == ([256, 512] if "256" in typed else [512] if "512" in typed else None)


def test_the_checkout_is_found_from_within_and_from_the_editable_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT / "docs")
    assert cli.checkout() == ROOT
    monkeypatch.chdir(tmp_path)
    assert cli.checkout() == ROOT


def test_without_a_checkout_the_error_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        cli, "__file__", str(tmp_path / "site-packages" / "secure_fl" / "cli" / "bench.py")
    )
    with pytest.raises(DependencyError, match="git clone"):
        cli.checkout()


def test_sizes_asked_for_are_the_sizes_measured() -> None:
    kernel = registry.kernel("ntxent")
    options = command.parser().parse_args(["ntxent", "--rows", "256", "512", "--threads", "1", "2"])
    assert command.cases_of(kernel, options) == [
        Case(n, 128, t) for n in (256, 512) for t in (1, 2)
    ]
    full = command.cases_of(kernel, command.parser().parse_args(["ntxent", "--full"]))
    assert {case.rows for case in full} >= {256, 65536}
    assert {case.dimension for case in full} >= {64, 1024}


def test_one_seed_gives_one_input() -> None:
    for name in registry.NAMES:
        kernel = registry.kernel(name)
        first, second = (kernel.inputs(Case(8, 4)) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
