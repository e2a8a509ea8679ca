"""Folders of a user's own pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from data.own_files import picture, read, refused

from secure_fl.errors import DependencyError


def test_a_folder_of_labels(tmp_path: Path) -> None:
    for number, label in enumerate(("cat", "dog", "ant")):
        for i in range(3):
            picture(tmp_path / label / f"{i}.png", value=50 * (number + 1))
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    data = read("images", tmp_path)
    assert data.shape == (1, 8, 9)
    assert data.class_names == ("ant", "cat", "dog")
    assert data.y.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    torch.testing.assert_close(
        data.x[:, 0, 0, 0], torch.tensor([150] * 3 + [50] * 3 + [100] * 3) / 255
    )
    assert data.client is None
    assert data.reading == "images of 8 x 9 pixels, 1 channel"


def test_a_folder_of_clients_of_labels_below_splits(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for client in ("north", "east"):
            for label in ("0", "1"):
                picture(tmp_path / split / client / label / "a.png", "RGB")
    data = read("images", tmp_path)
    assert data.shape == (3, 8, 9)
    assert (data.client_names, data.class_names, data.classes) == (("east", "north"), (), 2)
    assert data.split is not None
    assert data.split.tolist() == [2] * 4 + [0] * 4 + [1] * 4


def test_pictures_of_several_sizes_and_modes_want_a_size(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "0.png", "L", (9, 8))
    picture(tmp_path / "a" / "1.png", "RGB", (12, 8))
    picture(tmp_path / "b" / "0.png", "RGBA", (9, 8))
    assert refused("images", tmp_path).field == "data.image_size"
    data = read("images", tmp_path, {"image_size": 16})
    assert data.shape == (3, 16, 16)
    torch.testing.assert_close(data.x, torch.full_like(data.x, 100 / 255), atol=1e-3, rtol=0)


def test_deep_grey_and_transparent_pictures_keep_their_values(tmp_path: Path) -> None:
    picture(tmp_path / "deep" / "0.png", "I;16", value=32768)
    assert read("images", tmp_path / "deep").x[0, 0, 0, 0] == pytest.approx(0.5, abs=1e-4)
    picture(tmp_path / "clear" / "0.png", "RGBA")
    assert read("images", tmp_path / "clear").shape == (4, 8, 9)


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such folder" in refused("images", tmp_path / "absent").problem
    (tmp_path / "empty").mkdir()
    assert "no picture" in refused("images", tmp_path / "empty").problem
    picture(tmp_path / "deep" / "a" / "b" / "c" / "0.png")
    assert "too deep" in refused("images", tmp_path / "deep").problem
    picture(tmp_path / "mixed" / "a" / "0.png")
    picture(tmp_path / "mixed" / "1.png")
    assert "several depths" in refused("images", tmp_path / "mixed").problem
    picture(tmp_path / "torn" / "a" / "0.png", size=(64, 64))
    whole = (tmp_path / "torn" / "a" / "0.png").read_bytes()
    (tmp_path / "torn" / "a" / "1.png").write_bytes(whole[:60])
    (error := refused("images", tmp_path / "torn"))
    assert error.value == "a/1.png"


def test_a_picture_beyond_measure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    picture(tmp_path / "a" / "0.png", size=(64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    assert "DecompressionBomb" in refused("images", tmp_path).problem


@pytest.mark.parametrize(
    ("name", "package"), [("images", "PIL"), ("csv", "pyarrow"), ("parquet", "pyarrow")]
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    picture(tmp_path / "a" / "0.png")
    (tmp_path / "t.csv").write_text("a,y\n1,0\n")
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(DependencyError, match=r"secure-fl\[(images|tables)\]"):
        read(name, tmp_path if name == "images" else tmp_path / "t.csv")
