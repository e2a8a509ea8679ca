"""CSV and Parquet tables: one row an example, columns for label, client, split and group beside its
values. Read by pyarrow.

Several files are one table; where it has no client column, each file is a client.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from secure_fl.config import SourceConfig
from secure_fl.data.columns import Declared
from secure_fl.data.dataset import Dataset
from secure_fl.data.tables import Roles, from_columns, roles_like
from secure_fl.errors import DataError, need
from secure_fl.files import open_file

_BLOCK = 1 << 24
_DELIMITERS = ",;\t|"


def tables(
    source: SourceConfig,
    declared: Declared,
    files: Mapping[str, Path],
    name: str,
    like: Sequence[str] = (),
) -> Dataset:
    """The rows of all files, which are by client's name; `like` are the columns that are to come
    out, where these are not the source's.

    Raises:
        DependencyError: pyarrow is missing.
        DataError: a file is missing or damaged, files differ in their columns, or a column is
            refused, by its name.
    """
    named = (source.label, source.client, source.split, source.group, source.features)
    roles = Roles(*named, categories=source.categories or {})
    csv = source.name == "csv"
    read = {who: _csv(each, roles) if csv else _parquet(each) for who, each in files.items()}
    _check_columns(read, files)
    columns = _all_rows(read, roles, name)
    if like:
        roles = roles_like(like, list(columns), roles, name)
    return from_columns(columns, roles, declared, name)


def _check_columns(read: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    """Refuse a file without rows, with a column's name twice, or other columns than the first."""
    first = next(iter(read))
    for called, table in read.items():
        names, file = table.column_names, files[called]
        if twice := next((column for column, count in Counter(names).items() if count > 1), None):
            remedy = "name each column once"
            raise DataError(
                "two columns have one name", field=file.name, value=twice, remedy=remedy
            )
        if other := sorted(set(names) ^ set(read[first].column_names)):
            problem = f"columns differ from those of {files[first].name}"
            remedy = "give all files the same columns"
            raise DataError(problem, field=file.name, value=other[:12], remedy=remedy)
        if table.num_rows == 0:
            remedy = "give it a row an example, or leave the file out"
            raise DataError.of_file("holds no row", file, remedy)


def _all_rows(read: Mapping[str, Any], roles: Roles, name: str) -> dict[str, Any]:
    """The columns of all files; each file is a client where no column says who is."""
    parts = list(read.values())
    columns = {
        column: _joined([table.column(column) for table in parts], column, name)
        for column in parts[0].column_names
    }
    if len(parts) > 1 and roles.found(list(columns), name)["client"] is None:
        rows = [table.num_rows for table in parts]
        columns["client"] = np.repeat(np.asarray(list(read)), rows)
    return columns


def column_names(source: SourceConfig) -> tuple[list[str], list[str]]:
    """Columns of a table: those that examples could be made of, and those that say something
    about them.

    Raises:
        DependencyError: pyarrow is missing.
        DataError: the file is missing or damaged, or a column that was asked for is not there.
    """
    path = Path(source.path or "")
    names = _header(path)[1] if source.name == "csv" else _parquet(path).column_names
    roles = Roles(source.label, source.client, source.split, source.group)
    taken = list(_roles_of(names, roles, path))
    return [column for column in names if column not in taken], taken


def _csv(path: Path, roles: Roles) -> Any:
    """A table of a file with a header; names of clients and groups stay text."""
    arrow = _arrow()
    from pyarrow import csv

    delimiter, header = _header(path)
    named = ("client", "group", "split")
    text = [column for column, role in _roles_of(header, roles, path).items() if role in named]
    try:
        with open_file(path) as file:
            reading = csv.ReadOptions(block_size=_BLOCK)
            parsing = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
            types = dict.fromkeys(text, arrow.string())
            converting = csv.ConvertOptions(strings_can_be_null=True, column_types=types)
            table = csv.read_csv(file, reading, parsing, converting)
    except OSError as error:
        raise _unreadable(error, path) from None
    except arrow.ArrowException as error:
        remedy = "write it as UTF-8 with a header line, and as many values in each line"
        # Its class alone: the message quotes lines of the file.
        problem = f"not a readable table: {type(error).__name__}"
        raise DataError.of_file(problem, path, remedy) from None
    # which is how pyarrow reads text that is no UTF-8
    if any(arrow.types.is_binary(kind) for kind in table.schema.types):
        raise _no_text(path)
    return table


def _no_text(path: Path) -> DataError:
    remedy = "save the table as UTF-8 (spreadsheets: CSV UTF-8; pandas: to_csv(path, index=False))"
    return DataError.of_file("not text in UTF-8", path, remedy)


def _roles_of(header: Sequence[str], roles: Roles, path: Path) -> dict[str, str]:
    found = roles.found(header, path.name).items()
    return {column: role for role, column in found if column is not None}


def _header(path: Path) -> tuple[str, list[str]]:
    """The delimiter, which is the commonest in the first line, and the names of the columns."""
    import csv

    try:
        with open_file(path) as file:
            line = file.readline(_BLOCK).decode("utf-8-sig").rstrip("\r\n")
    except OSError as error:
        raise _unreadable(error, path) from None
    except UnicodeDecodeError:
        raise _no_text(path) from None
    if not line.strip():
        remedy = "begin the file with a line that names each column, and give it a row an example"
        raise DataError.of_file("its first line is empty", path, remedy)
    delimiter = max(_DELIMITERS, key=line.count)
    try:
        names = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        remedy = "begin the file with one line that names each column"
        raise DataError.of_file("its first line cannot be read", path, remedy) from None
    if any(not name.strip() for name in names) or any(_is_number(name) for name in names):
        remedy = (
            "begin the file with a line that names each column (pandas: to_csv(path, index=False))"
        )
        # What stands there may be an example, so it is not shown.
        raise DataError.of_file("its first line does not name the columns", path, remedy)
    return delimiter, names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parquet(path: Path) -> Any:
    arrow = _arrow()
    from pyarrow import parquet

    try:
        with open_file(path) as file:
            return parquet.ParquetFile(file).read()
    except OSError as error:
        if isinstance(error, arrow.ArrowException) or error.errno is None:
            raise _damaged(error, path) from None
        raise _unreadable(error, path) from None
    except arrow.ArrowException as error:
        raise _damaged(error, path) from None


def _joined(parts: Sequence[Any], column: str, name: str) -> np.ndarray:
    """A column of all files as numpy holds it: numbers, text, or objects where some are missing."""
    arrow = _arrow()
    try:
        parts = [
            part.cast(part.type.value_type) if arrow.types.is_dictionary(part.type) else part
            for part in parts
        ]
        kinds = [arrow.schema([(column, part.type)]) for part in parts]
        kind = arrow.unify_schemas(kinds, promote_options="permissive").field(0).type
        whole = arrow.chunked_array(
            [chunk for part in parts for chunk in part.cast(kind).chunks], type=kind
        )
    except arrow.ArrowException:
        remedy = "write the column alike in all files"
        raise DataError.unshown(
            "differs in kind between files", f"{name}.{column}", remedy
        ) from None
    array: np.ndarray = whole.to_numpy()
    return array


def _arrow() -> Any:
    need("pyarrow", "tables", "data.sources.name", "csv or parquet")
    import pyarrow

    return pyarrow


def _unreadable(error: OSError, path: Path) -> DataError:
    problem = f"cannot be read: {error.strerror or type(error).__name__}"
    if isinstance(error, FileNotFoundError):
        problem = "no such file"
    return DataError.of_source(problem, path, "check the path")


def _damaged(error: Exception, path: Path) -> DataError:
    return DataError.of_file(
        f"not a readable table: {type(error).__name__}", path, "write the file again"
    )
