"""A user's own tables, the paths of files, and settings that say how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.own_files import picture, read, refused, table
from helpers import tiny_config

from secure_fl import Federation
from secure_fl.config import DataConfig, SourceConfig
from secure_fl.data.sources import load_source, load_sources
from secure_fl.data.sources.npz import npz
from secure_fl.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def test_a_table_of_numbers_text_and_roles(tmp_path: Path) -> None:
    lines = ["age,colour,client,label,split"]
    lines += [
        f"{20 + i},blue,08,well,test" if i % 2 else f"{20 + i},red,007,ill,train" for i in range(6)
    ]
    data = read("csv", table(tmp_path / "t.csv", "\n".join(lines)))
    assert data.columns == ("age", "colour=blue", "colour=red")
    assert data.x.tolist() == [[20 + i, i % 2, 1 - i % 2] for i in range(6)]
    assert (data.class_names, data.client_names) == (("ill", "well"), ("007", "08"))
    assert data.split is not None
    assert data.split.tolist() == [0, 2] * 3
    assert data.reading == "3 columns: age, colour=blue, colour=red"
    assert any("client as client" in note for note in data.notes)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_delimiters_are_found_in_the_header(tmp_path: Path, delimiter: str) -> None:
    data = read(
        "csv",
        table(
            tmp_path / "t.csv",
            "\ufeff"
            + delimiter.join(("a", "b", "y"))
            + "\n"
            + delimiter.join(("1", "2", "0"))
            + "\n",
        ),
    )
    assert data.columns == ("a", "b")
    assert data.x.tolist() == [[1, 2]]


def test_columns_by_name(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "a,b,site,what,person\n1,2,x,5,p\n3,4,y,7,q\n5,6,y,7,q\n")
    data = read("csv", path, label="what", client="site", group="person", features=("b",))
    assert data.x.tolist() == [[2], [4], [6]]
    assert data.class_names == ("5", "7")
    assert data.client_names == ("x", "y")
    assert data.group is not None
    assert data.group.tolist() == [0, 1, 1]
    (absent := refused("csv", path, label="wat"))
    assert (absent.value, absent.field) == ("wat", "t.csv.label")
    assert "what" in absent.remedy
    assert refused("csv", path, features=("b", "c")).value == "c"
    assert "two meanings" in refused("csv", path, label="site", client="site").problem


@pytest.mark.parametrize(
    ("text", "column", "problem"),
    [
        ("a,b,y\n1,,0\n2,3,1\n", "b", "missing"),
        ("a,b,y\n1,red,0\n2,,1\n", "b", "missing"),
        ("a,b,y\n1,NA,0\n2,3,1\n", "b", "missing"),
        ("a,b,y\n1,2,\n2,3,1\n", "y", "missing"),
        ("a,client,y\n1,,0\n2,n,1\n", "client", "missing"),
        ("a,split,y\n1,train,0\n2,later,1\n", "split", "neither training"),
        ("a,b,y\n1,2020-01-01,0\n2,2020-01-02,1\n", "b", "neither numbers nor categories"),
        ("a,y\n1,0.5\n2,1\n", "y", "not integers"),
        ("a,b,y\n" + "".join(f"{i},name{i},0\n" for i in range(80)), "b", "no category"),
    ],
)
def test_a_column_is_refused_by_its_name(
    tmp_path: Path, text: str, column: str, problem: str
) -> None:
    error = refused("csv", table(tmp_path / "t.csv", text))
    assert error.field == f"t.csv.{column}"
    assert problem in error.problem
    assert "name7" not in str(error)


def test_tables_that_are_none(tmp_path: Path) -> None:
    assert "no such file" in refused("csv", tmp_path / "absent.csv").problem
    assert "no such file" in refused("parquet", tmp_path / "absent.parquet").problem
    for name, content in {
        "empty": b"",
        "torn": b"a,b\n1,2\n8765\n",
        "latin": "a,b\nÄ,8765\n".encode("latin-1"),
        "zero": b"a,\xff\n",
    }.items():
        (tmp_path / f"{name}.csv").write_bytes(content)
        assert "8765" not in str(refused("csv", tmp_path / f"{name}.csv"))
        assert "readable" in str(refused("parquet", tmp_path / f"{name}.csv"))
    assert "two columns" in refused("csv", table(tmp_path / "twice.csv", "a,a,y\n1,2,0\n")).problem
    assert "no row" in refused("csv", table(tmp_path / "head.csv", "a,b,y\n")).problem


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds = pyarrow.array(["b", "a", "b"]).dictionary_encode()
    columns = {
        "a": [1, 2, 3],
        "kind": kinds,
        "ok": [True, False, True],
        "client": ["n", "s", "s"],
        "y": [10, 30, 10],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    data = read("parquet", tmp_path / "t.parquet")
    assert data.columns == ("a", "kind=a", "kind=b", "ok")
    assert data.x.tolist() == [[1, 0, 1, 1], [2, 1, 0, 0], [3, 0, 1, 1]]
    assert (data.class_names, data.y.tolist()) == (("10", "30"), [0, 1, 0])
    parquet.write_table(
        pyarrow.table({"a": [1, None, 3], "y": [0, 1, 0]}), tmp_path / "holes.parquet"
    )
    assert refused("parquet", tmp_path / "holes.parquet").field == "holes.parquet.a"


def test_one_table_a_client_has_one_set_of_categories(tmp_path: Path) -> None:
    table(tmp_path / "north.csv", "a,colour,y\n1,red,cat\n2,red,cat\n")
    table(tmp_path / "south.csv", "a,colour,y\n3.5,blue,dog\n4,red,cat\n")
    for path in (tmp_path, tmp_path / "*.csv"):
        data = read("csv", path)
        assert data.columns == ("a", "colour=blue", "colour=red")
        assert (data.client_names, data.class_names) == (("north", "south"), ("cat", "dog"))
        assert data.client is not None
        assert data.client.tolist() == [0, 0, 1, 1]
    table(tmp_path / "west.csv", "a,shade,y\n1,red,cat\n")
    assert "shade" in str(refused("csv", tmp_path))
    table(tmp_path / "west.csv", "a,colour,y\n1,7,cat\n")
    assert refused("csv", tmp_path).field.endswith(".colour")


# Paths


def test_the_home_folder_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "mine.npz", x=np.zeros((4, 1, 8, 8), np.float32))
    assert len(npz(SourceConfig(name="npz", path="~/mine.npz"))) == 4
    config = tiny_config(
        pretrain={
            "mode": "load",
            "load_from": "~/run",
            "source": {"name": "npz", "path": "~/mine.npz"},
        }
    )
    assert config.pretrain.load_from == str(tmp_path / "run")
    assert config.pretrain.source is not None
    assert load_source(config.pretrain.source, DataConfig(), 0)[0].shape == (1, 8, 8)


def test_a_home_folder_that_is_not_known_is_named() -> None:
    with pytest.raises(ConfigError, match="home folder") as caught:
        SourceConfig(name="npz", path="~nobody-of-this-name/mine.npz")
    assert caught.value.field == "data.sources.path"


def test_no_home_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    def unknown(_uid: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ConfigError, match="set HOME"):
        SourceConfig(name="npz", path="~/mine.npz")


# Categories, headers, settings


def test_declared_categories_make_the_columns(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "a,colour,size,y\n1,red,2,0\n2,blue,1,1\n")
    categories = {"colour": ("green", "red", "blue"), "size": ("1", "2")}
    data = read("csv", path, categories=categories)
    assert data.columns == ("a", "colour=green", "colour=red", "colour=blue", "size=1", "size=2")
    assert data.x.tolist() == [[1, 0, 1, 0, 0, 1], [2, 0, 0, 1, 1, 0]]
    assert data.columns_declared
    assert not read("csv", path).columns_declared
    assert refused("csv", path, categories={"colour": ("red",)}).field == "t.csv.colour"
    assert refused("csv", path, categories={"shade": ("red",)}).value == "shade"


def test_private_runs_want_categories_declared(tmp_path: Path) -> None:
    lines = ["a,colour,y"] + [f"{i},{('red', 'blue')[i % 2]},{i % 3}" for i in range(60)]
    path = table(tmp_path / "t.csv", "\n".join(lines))
    source = {"name": "csv", "path": str(path)}
    tables: dict[str, Any] = {"privacy": {"unit": "example"}, "model": {"encoder": "mlp"}}
    with pytest.raises(DataError, match="read off private examples") as caught:
        Federation(tiny_config(data={"sources": [source], "classes": 3}, **tables))
    assert caught.value.field == "data.sources.categories"
    from secure_fl.config_file import dump_config, load_config

    declared = source | {"categories": {"colour": ["red", "blue"]}}
    assert tiny_config(data={"sources": [declared]}).data.sources[0].categories == {
        "colour": ("red", "blue")
    }
    config = tiny_config(data={"sources": [declared], "class_names": ["0", "1", "2"]})
    assert load_config(table(tmp_path / "run.toml", dump_config(config))) == config


def test_two_columns_that_could_be_the_label(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "a,label,y\n1,0,1\n2,1,0\n")
    assert refused("csv", path).value == ["label", "y"]
    assert read("csv", path, label="y", features=("a",)).y.tolist() == [1, 0]


@pytest.mark.parametrize("first", ["1.5,2,0", "a,,y", "a,7,y"])
def test_a_table_without_names_is_refused(tmp_path: Path, first: str) -> None:
    assert "does not name" in refused("csv", table(tmp_path / "t.csv", f"{first}\n1,2,0\n")).problem


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("digits", {"label": "y"}),
        ("images", {"layout": "channels_last"}),
        ("npz", {"features": ("a",)}),
        ("csv", {"kind": "image"}),
    ],
)
def test_settings_that_a_source_does_not_read_are_refused(
    name: str, setting: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="means nothing") as caught:
        SourceConfig(name=name, **setting)
    assert caught.value.field == f"data.sources.{next(iter(setting))}"


def test_columns_of_two_sources_must_agree(tmp_path: Path) -> None:
    first = table(tmp_path / "a.csv", "a,colour,y\n1,red,0\n2,blue,1\n")
    second = table(tmp_path / "b.csv", "a,colour,y\n1,red,0\n2,grey,1\n")
    sources = tuple(SourceConfig(name="csv", path=str(path)) for path in (first, second))
    with pytest.raises(DataError, match="columns differ") as caught:
        load_sources(DataConfig(sources=sources), 0)
    assert "grey" not in str(caught.value)


@pytest.mark.parametrize("name", ["npz", "npy", "images", "csv", "parquet"])
def test_damage_anywhere_is_a_typed_error_or_none(tmp_path: Path, name: str) -> None:
    import pyarrow
    from pyarrow import parquet

    from secure_fl.errors import SecureFLError

    path = tmp_path / f"t.{name}"
    x, y = RNG.random((6, 4)).astype(np.float32), np.arange(6) % 2
    if name == "npz":
        np.savez_compressed(path, x=x, y=y)
    elif name == "npy":
        np.save(path, x)
    elif name == "images":
        path = tmp_path / "pictures" / "a" / "0.png"
        picture(path, "RGB")
    elif name == "csv":
        table(
            path,
            "a,b,y\n"
            + "".join(f"{row[0]},{row[1]},{label}\n" for row, label in zip(x, y, strict=True)),
        )
    else:
        parquet.write_table(pyarrow.table({"a": x[:, 0], "y": y}), path)
    whole, rng, typed = path.read_bytes(), np.random.default_rng(1), 0
    for attempt in range(60):
        torn = bytearray(whole)
        at = int(rng.integers(len(torn)))
        if attempt % 3 == 0:
            torn = torn[:at]
        else:
            torn[at : at + 4] = rng.bytes(4)
        path.write_bytes(torn)
        try:
            read(name, tmp_path / "pictures" if name == "images" else path)
        except SecureFLError:
            typed += 1
    assert typed > 5
