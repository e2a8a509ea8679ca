"""The page: complete, self-contained, and safe against what runs are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import tiny_config

from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Dataset
from secure_fl.errors import DependencyError, RunFolderError
from secure_fl.quantities import clock, duration, size
from secure_fl.run import Federation

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


def finished(folder: Path, data: Dataset, config: FederationConfig) -> Path:
    Federation(config, data=data).run(folder)
    return folder


def test_several_runs_are_compared_whatever_phases_they_had(
    tmp_path: Path, images: Dataset
) -> None:
    from secure_fl.report.page import write_report

    only_encoder = tiny_config(pools={"enabled": False}).model_copy(
        update={"name": "encoder <only>"}
    )
    only_pools = tiny_config(pretrain={"mode": "none"}).model_copy(
        update={"name": "pools & nothing"}
    )
    both = tiny_config(evaluate={"fine_tune": [0.5, 1.0], "fine_tune_epochs": 1})
    folders = [
        finished(tmp_path / str(i), images, config)
        for i, config in enumerate((only_encoder, only_pools, both))
    ]
    write_report(folders, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "encoder &lt;only&gt;" in page
    assert "pools &amp; nothing" in page
    assert "fine tune 0.5" in page
    assert "fine tune 1" in page
    assert page.count("Heat map: training examples of 3 labels at each of 4 clients") == 3
    write_report(folders[:1], tmp_path / "one.html")


def test_unlabelled_runs_have_a_page_too(tmp_path: Path, images: Dataset) -> None:
    from secure_fl.report.page import write_report

    config = tiny_config(pools={"task": "self_supervised"})
    write_report([finished(tmp_path / "run", images.unlabelled(), config)], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Stacked bars: clients in each pool" in page
    assert "pools were trained without labels" in page


def test_a_record_without_the_experimenters_fields_has_a_page_too(
    tmp_path: Path, images: Dataset
) -> None:
    """Alone, and beside a run that was measured."""
    from secure_fl.report.page import write_report

    quiet = finished(tmp_path / "quiet", images, tiny_config(evaluate={"enabled": False}))
    measured = finished(tmp_path / "measured", images, tiny_config())
    write_report([quiet], tmp_path / "one.html")
    page = (tmp_path / "one.html").read_text()
    assert "<img" not in page
    assert "accuracy, mean" not in page
    assert page.count("not in this record") >= 3
    assert "to server" in page
    write_report([measured, quiet], tmp_path / "two.html")
    assert (tmp_path / "two.html").read_text().count("Heat map:") == 1


def test_unfinished_runs_have_none(tmp_path: Path, images: Dataset) -> None:
    from secure_fl.report.page import write_report

    folder = finished(tmp_path / "run", images, tiny_config())
    (folder / "summary.json").unlink()
    with pytest.raises(RunFolderError, match="--resume"):
        write_report([folder], tmp_path / "page.html")


def test_equal_runs_draw_equal_pictures(tmp_path: Path, images: Dataset) -> None:
    from secure_fl.data.summary import summarise
    from secure_fl.report.plots import partition_plot

    made = Federation(tiny_config(), data=images)
    assert partition_plot(summarise(made.clients)) == partition_plot(summarise(made.clients))


def test_missing_packages_are_named(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from secure_fl.report.page import write_report

    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(DependencyError, match=r"secure-fl\[report\]"):
        write_report([tmp_path], tmp_path / "page.html")


def test_units() -> None:
    assert [size(n) for n in (0, 999, 1200, 53_100_000, 2e9, 3e12)] == [
        "0 B",
        "999 B",
        "1.2 kB",
        "53.1 MB",
        "2.0 GB",
        "3.0 TB",
    ]
    assert [clock(s) for s in (0.4, 61, 3723)] == ["0:00", "1:01", "1:02:03"]
    assert [duration(s) for s in (0.4, 12.3, 61, 3723, 7200)] == [
        "0 s",
        "12 s",
        "1 min 1 s",
        "1 h 2 min",
        "2 h",
    ]
