"""Two result files side by side: what is named a regression, and what is not."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from statistics import quantiles

import pytest

from bench.kernels.command import main
from bench.kernels.compare import compare, lines

MACHINE = "Some CPU, 2 processors, AVX2, L1d 32 KiB, L2 512 KiB, L3 16384 KiB, Linux"
KERNELS = ("ntxent", "uniformity", "ssd")
SIZES = (256, 1024, 4096, 8192)


def rows(
    seed: int, samples: int = 7, noise: float = 0.03, slower: tuple[str, float] = ("", 1.0)
) -> list[dict[str, object]]:
    """Quantiles of random seconds, one kernel of which is slower."""
    source, found = random.Random(seed), []
    for kernel in KERNELS:
        factor = slower[1] if kernel == slower[0] else 1.0
        for provider, base in (("tiles", 1.0), ("naive torch", 5.0)):
            for size in SIZES:
                middle = base * factor * size**2 * 1e-8
                drawn = [middle * source.lognormvariate(0, noise) for _ in range(samples)]
                median = sorted(drawn)[samples // 2]
                low, *_, high = quantiles(drawn, n=5, method="inclusive")
                found.append(
                    {"kernel": kernel, "provider": provider, "setting": "", "mode": "both",
                     "rows": size, "dimension": 128, "dtype": "float32", "device": "cpu",
                     "threads": 1, "samples": samples, "y20": low, "y50": median,
                     "y80": high, "load": 0.1, "skipped": "", "machine": MACHINE}
                )  # fmt: skip
    return found


def written(path: Path, found: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    return path


@pytest.mark.parametrize("samples", [5, 7, 15])
def test_a_kernel_that_became_a_fifth_slower_is_named(tmp_path: Path, samples: int) -> None:
    before = written(tmp_path / "a.csv", rows(1, samples, 0.01))
    after = written(tmp_path / "b.csv", rows(2, samples, 0.01, ("uniformity", 1.2)))
    found = compare(before, after)
    named = {change.cell[:2] for change in found.changes if change.regression}
    assert named == {("uniformity", "tiles")}
    assert found.regressed
    assert any(line.startswith("REGRESSION: uniformity, tiles") for line in lines(found))
    assert not compare(after, before).regressed
    assert any(change.verdict == "faster" for change in compare(after, before).changes)


@pytest.mark.parametrize("samples", [3, 7, 15])
@pytest.mark.parametrize("noise", [0.01, 0.2])
def test_equal_files_are_called_different_once_in_twenty_times(
    tmp_path: Path, samples: int, noise: float
) -> None:
    """A cell is judged at 0.05 over the number of cells; of 100 comparisons 12 or more are wrong
    with a chance of 0.4 %.
    """
    alarms = 0
    for seed in range(100):
        before = written(tmp_path / "a.csv", rows(2 * seed, samples, noise))
        after = written(tmp_path / "b.csv", rows(2 * seed + 1, samples, noise))
        alarms += any(c.verdict != "no difference" for c in compare(before, after).changes)
    assert alarms < 12


def test_other_peoples_programs_are_no_regression_of_ours(tmp_path: Path) -> None:
    peers = [row for row in rows(1, noise=0.01) if row["provider"] == "naive torch"]
    slower = [
        {**row, **{name: 1.5 * float(str(row[name])) for name in ("y20", "y50", "y80")}}
        for row in peers
    ]
    found = compare(written(tmp_path / "a.csv", peers), written(tmp_path / "b.csv", slower))
    assert {change.verdict for change in found.changes} == {"slower"}
    assert not found.regressed
    assert not any("REGRESSION" in line for line in lines(found))


def test_across_processors_nothing_is_asserted(tmp_path: Path) -> None:
    before = written(tmp_path / "a.csv", rows(1, noise=0.01))
    slower = rows(2, noise=0.01, slower=("ssd", 2.0))
    other = [{**row, "machine": MACHINE.replace("AVX2", "AVX512")} for row in slower]
    found = compare(before, written(tmp_path / "b.csv", other))
    assert not found.same
    assert not found.regressed
    told = lines(found)
    assert any("different hardware" in line for line in told)
    assert not any(word in line for line in told for word in ("REGRESSION", "slower", "faster"))
    older = [{**row, "machine": "Some CPU, 2 processors, Linux"} for row in slower]
    assert compare(before, written(tmp_path / "c.csv", older)).regressed


def test_the_command_ends_with_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(tmp_path / "a.csv", rows(1, noise=0.01))
    after = written(tmp_path / "b.csv", rows(2, noise=0.01, slower=("ntxent", 1.2)))
    empty = tmp_path / "empty.csv"
    empty.write_text("kernel,y50\n")
    codes = {}
    for name, pair in {
        "slower": (before, after),
        "equal": (before, before),
        "missing": (before, tmp_path / "none.csv"),
        "empty": (before, empty),
    }.items():
        with pytest.raises(SystemExit) as ended:
            main(["--compare", *map(str, pair)])
        codes[name] = ended.value.code
    assert codes == {"slower": 1, "equal": 0, "missing": 2, "empty": 2}
    assert "REGRESSION: ntxent, tiles [256 rows" in capsys.readouterr().out
