"""`secure-fl kernels tune`: what it prints, keeps and refuses; timings are planted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from secure_fl_kernels import tuner, tuning
from secure_fl_kernels.processor import processor

with warnings.catch_warnings():
    # typer imports names that click has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from typer.testing import CliRunner

    from secure_fl.cli.main import app


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(tuning.VARIABLE, str(tmp_path))
    bench = tuner.Bench(
        str(processor()),
        [tuning.Class(f"tiles/{name}", [(256, 0), (384, 2)]) for name in ("few", "many")],
        lambda name, choice: 0.5 if choice == (384, 2) and name == "tiles/many" else 1.0,
    )
    monkeypatch.setattr(tuner, "bench_of", lambda _: bench)
    tuning.forget()
    yield tmp_path
    tuning.forget()


def test_it_tells_what_it_keeps_and_doctor_shows_it(place: Path) -> None:
    done = CliRunner().invoke(app, ["kernels", "tune", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "tiles/few: 256, 0; as shipped" in done.output
    assert "tiles/many: 384, 2; 0.50 times the shipped tile's seconds" in done.output
    (path,) = place.glob("*.json")
    shown = CliRunner().invoke(app, ["doctor"]).output.replace("\n", "")
    assert f"processor: {processor()}" in shown
    assert f"2 classes, {path}" in shown
    again = CliRunner().invoke(app, ["kernels", "tune", "--device", "cpu"])
    assert "2 classes were measured before; --again measures them anew" in again.output


def test_without_minutes_it_names_no_file(place: Path) -> None:
    done = CliRunner().invoke(app, ["kernels", "tune", "--device", "cpu", "--minutes", "0"])
    assert done.exit_code == 0, done.output
    assert "2 classes are left" in done.output
    assert "nothing was measured, no file written" in done.output
    assert not list(place.iterdir())


def test_a_stale_file_is_named_by_doctor(place: Path) -> None:
    CliRunner().invoke(app, ["kernels", "tune", "--device", "cpu"])
    (path,) = place.glob("*.json")
    path.write_text(path.read_text().replace("384", "385"))
    shown = CliRunner().invoke(app, ["doctor"]).output.replace("\n", "")
    assert f"shipped; REFUSED: {path} is damaged" in shown


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(app, ["kernels", "tune", "--device", "tpu"])
    assert done.exit_code != 0
    assert "no such device here" in str(done.exception)
    monkeypatch.setenv(tuning.VARIABLE, tuning.SHIPPED)
    done = CliRunner().invoke(app, ["kernels", "tune", "--device", "cpu"])
    assert done.exit_code != 0
    assert "no measured tile would be read" in str(done.exception)
