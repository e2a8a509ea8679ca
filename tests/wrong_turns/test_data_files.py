"""Files that are missing, damaged, or of another kind; no message shows what they hold."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wrong_turns.records import CSV, HELD, SECRET, WHO, X, Y
from wrong_turns.turns import Turn, named

from secure_fl import Federation
from secure_fl.errors import DependencyError


def file(name: str, content: bytes | str, source: str, **more: Any) -> Callable[[Path], Any]:
    """Write a file, and read it as a source."""

    def do(folder: Path) -> Any:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return path(name, source, **more)(folder)

    return do


def arrays(name: str, **content: Any) -> Callable[[Path], Any]:
    def do(folder: Path) -> Any:
        np.savez(folder / name, **content)
        return path(name, "npz")(folder)

    return do


def path(name: str, source: str, **more: Any) -> Callable[[Path], Any]:
    tables = {"security": {"protection": "plain"}, "pools": {"count": 1}}
    return lambda folder: Federation(
        {"data": {"sources": [{"name": source, "path": str(folder / name), **more}]}, **tables}
    )


FILES = [
    Turn(
        "no path",
        lambda _: Federation({"data": {"sources": [{"name": "csv"}]}}),
        "data.sources.path",
        "None",
        r"set data\.sources\.0\.path to a \.csv",
    ),
    Turn(
        "no such file",
        path("absent.csv", "csv"),
        "data.sources.path",
        "absent.csv",
        "check the path",
    ),
    Turn(
        "no such arrays",
        path("absent.npz", "npz"),
        "data.sources.path",
        "absent.npz",
        "check the path",
    ),
    Turn("a folder without tables", path("", "csv"), "data.sources.path", "FOLDER", "put .csv"),
    Turn(
        "a folder without pictures",
        path("", "images"),
        "data.sources.path",
        "FOLDER",
        "put pictures there",
    ),
    Turn(
        "an empty table",
        file("e.csv", "", "csv"),
        "e.csv",
        "e.csv",
        "a line that names each column",
        mended=file("e.csv", CSV, "csv"),
    ),
    Turn(
        "a header alone", file("h.csv", "a,b,label\n", "csv"), "h.csv", "h.csv", "a row an example"
    ),
    Turn(
        "no header",
        file("n.csv", CSV.partition("\n")[2], "csv"),
        "n.csv",
        "n.csv",
        "names each column",
        HELD,
        file("n.csv", CSV, "csv"),
    ),
    Turn(
        "no such column",
        file("l.csv", CSV, "csv", label="diagnosis"),
        "l.csv.label",
        "diagnosis",
        "one of: age, sex, site, label",
    ),
    Turn(
        "no such client column",
        file("c.csv", CSV, "csv", client="ward"),
        "c.csv.client",
        "ward",
        "one of: age, sex, site, label",
    ),
    Turn(
        "a missing value",
        file("m.csv", CSV.replace("\n7,1", "\n,1"), "csv"),
        "m.csv.age",
        "not shown",
        "fill them in",
        HELD,
    ),
    Turn(
        "UTF-16",
        file("u.csv", CSV.encode("utf-16"), "csv"),
        "u.csv",
        "u.csv",
        "save the table as UTF-8",
        HELD,
        file("u.csv", CSV, "csv"),
    ),
    Turn(
        "Latin-1",
        file("a.csv", CSV.replace("s1", "sé").encode("latin-1"), "csv"),
        "a.csv",
        "a.csv",
        "save the table as UTF-8",
        ("sé",),
    ),
    Turn(
        "a picture for a table",
        file("p.csv", b"\x89PNG\r\n\x1a\n\0\0" * 20, "csv"),
        "p.csv",
        "p.csv",
        "save the table as UTF-8",
    ),
    Turn(
        "more values than names",
        file("r.csv", f"{CSV}\n1,2,3,4,{SECRET}", "csv"),
        "r.csv",
        "r.csv",
        "as many values in each line",
        HELD,
    ),
    Turn("no arrays", file("g.npz", "hello", "npz"), "g.npz", "g.npz", r"numpy\.savez"),
    Turn(
        "no x",
        arrays("x.npz", data=X),
        "x.npz",
        "['data']",
        r"savez\(path, x=",
        mended=arrays("x.npz", x=X, y=Y, client=WHO),
    ),
    Turn(
        "objects",
        arrays("o.npz", x=np.array([{}, 1], dtype=object)),
        "o.npz",
        "o.npz",
        "plain numeric arrays only",
    ),
    Turn(
        "arrays that differ in length",
        arrays("y.npz", x=X, y=Y[:7]),
        "y.npz.y",
        "another length",
        r"the shape \(N,\)",
        HELD,
    ),
    Turn(
        "not a table at all",
        file("t.parquet", "hello", "parquet"),
        "t.parquet",
        "t.parquet",
        "write the file again",
    ),
]


@pytest.mark.parametrize(**named(FILES))
def test_files(turn: Turn, tmp_path: Path) -> None:
    turn.taken(tmp_path)


def test_a_reader_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    remedy = r"pip install 'secure-fl\[tables\]'"
    error = Turn("", file("r.csv", CSV, "csv"), "data.sources.name", "csv", remedy).taken(tmp_path)
    assert isinstance(error, DependencyError)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", "r.csv")

    monkeypatch.setattr("secure_fl.data.sources.tabular.open_file", refused)
    Turn("", file("r.csv", CSV, "csv"), "data.sources.path", "r.csv", "check the path").taken(
        tmp_path
    )
