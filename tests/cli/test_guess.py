"""`secure-fl init --data`: what is written for a file is read back as it was, and runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from secure_fl.cli.guess import guessed, unsaid
from secure_fl.config_file import load_config
from secure_fl.data.partitions import partition
from secure_fl.data.sources import load_sources
from secure_fl.errors import DataError

pytest.importorskip("pyarrow")


def table(folder: Path, clients: int = 9) -> Path:
    rows = [
        f"{i % 7},{i % 5},{'yes' if i % 2 else 'no'},ward {i % clients}"
        for i in range(12 * clients)
    ]
    path = folder / "visits.csv"
    path.write_text("\n".join(["age,stay,cured,ward", *rows]) + "\n")
    return path


def uncommented(text: str) -> str:
    """The file of somebody who takes the marks away."""
    marked = ("# class_names", "# column_", "# [privacy]", "# unit", "# epsilon")
    lines = [
        line.removeprefix("# ") if line.startswith(marked) else line for line in text.splitlines()
    ]
    return "\n".join(lines).replace("[...]", "[3.0, 2.0]") + "\n"


def test_a_table_with_named_columns(tmp_path: Path) -> None:
    written, data = guessed(table(tmp_path), "cured", "ward")
    (tmp_path / "my.toml").write_text(written)
    config = load_config(tmp_path / "my.toml")
    clients = partition(load_sources(config.data, 0), config)
    assert [client.name for client in clients] == [f"ward {i}" for i in range(9)]
    assert config.pools.count == 3
    assert unsaid(data) == []


def test_what_a_private_run_needs_is_there_to_be_declared(tmp_path: Path) -> None:
    written, _ = guessed(table(tmp_path), "cured", "ward")
    (tmp_path / "private.toml").write_text(uncommented(written))
    config = load_config(tmp_path / "private.toml")
    assert (config.privacy.unit, config.data.class_names, config.data.column_means) == (
        "example",
        ("no", "yes"),
        (3.0, 2.0),
    )


def test_columns_that_nobody_named_are_asked_for(tmp_path: Path) -> None:
    written, data = guessed(table(tmp_path), None, None)
    assert unsaid(data) == ["label", "client"]
    assert "There are: age, stay, cured, ward." in written
    (tmp_path / "my.toml").write_text(written)
    assert load_config(tmp_path / "my.toml").pools.task == "self_supervised"


def test_pictures_of_several_sizes_get_one(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for number in range(12):
        folder = tmp_path / "scans" / f"site {number % 3}" / ("ill" if number % 2 else "well")
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray(np.full((8 + number, 9, 3), 20 * number, np.uint8)).save(
            folder / f"{number}.png"
        )
    written, data = guessed(tmp_path / "scans", None, None)
    (tmp_path / "my.toml").write_text(written)
    config = load_config(tmp_path / "my.toml")
    assert config.data.image_size is not None
    assert (
        load_sources(config.data, 0)[0][0].client_names
        == ("site 0", "site 1", "site 2")
        == data.client_names
    )


@pytest.mark.parametrize("name", ["absent.csv", "notes.docx", "mixed"])
def test_what_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.docx").write_bytes(b"x")
    (tmp_path / "mixed").mkdir()
    for other in ("a.csv", "b.npz"):
        (tmp_path / "mixed" / other).write_bytes(b"x")
    with pytest.raises(DataError, match=r"no such file|of no kind"):
        guessed(tmp_path / name, None, None)


def test_columns_that_cannot_be_learnt_from_are_left_out_with_the_reason(tmp_path: Path) -> None:
    rows = [
        f"{i},p{i},{'' if i % 9 == 0 else i % 4},{i % 5} mm,{i % 2},site {i % 3}"
        for i in range(120)
    ]
    path = tmp_path / "visits.csv"
    path.write_text("\n".join(["age,tag,gaps,rain,cured,site", *rows]) + "\n")
    written, data = guessed(path, "cured", "site")
    assert data.columns == ("age",)
    assert "# left out: tag, text of more than 64 kinds is no category" in written
    assert "# left out: gaps, missing values" in written
    assert "# left out: rain, holds text where numbers are expected" in written
    (tmp_path / "my.toml").write_text(written)
    config = load_config(tmp_path / "my.toml")
    assert load_sources(config.data, 0)[0][0].columns == ("age",)
