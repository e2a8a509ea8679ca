"""`secure-fl init`: a configuration to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_fl.cli.common import write_new
from secure_fl.cli.console import out
from secure_fl.errors import ConfigError

_Data = Annotated[
    Path | None,
    typer.Option(help="Your file or folder: write what is in it, in place of every setting."),
]
_Label = Annotated[
    str | None,
    typer.Option(
        help="With --data: the column or array of labels, where its name does not say it."
    ),
]
_Client = Annotated[
    str | None,
    typer.Option(help="With --data: the column or array that says who holds an example."),
]
_Schema = Annotated[
    bool,
    typer.Option("--schema", help="Also write PATH with the suffix .schema.json, for editors."),
]


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("secure-fl.toml"),
    data: _Data = None,
    label: _Label = None,
    client: _Client = None,
    schema: _Schema = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a configuration: every setting with its default and what it means; or, with --data, a
    small one for a file of your own.

    For example: secure-fl init my.toml --data records.csv --label diagnosis --client hospital
    """
    from secure_fl.config_file import config_schema, starter_config

    if data is None and (label or client):
        problem, field = "says what is in a file, and there is none", "--label, --client"
        remedy = "pass --data FILE too"
        raise ConfigError(problem, field=field, value=label or client, remedy=remedy)
    written = starter_config() if data is None else _for_file(data, label, client, path)
    write_new(path, written, force=force)
    out.print(
        f"wrote {path}; look at its clients with `secure-fl data {path}`, "
        f"run it with `secure-fl run {path}`"
    )
    if schema:
        beside = path.with_suffix(".schema.json")
        write_new(beside, config_schema(), force=True)
        out.print(f"wrote {beside}")


def _for_file(data: Path, label: str | None, client: str | None, path: Path) -> str:
    """The configuration for a file of the user's own; says how its examples were read."""
    from secure_fl.cli.guess import guessed, unsaid

    written, read = guessed(data, label, client)
    out.print(f"read as {read.reading}")
    for note in read.notes:
        out.print(note)
    if missing := unsaid(read):
        named = " and ".join(f"--{role} NAME" for role in missing)
        out.print(
            f"nothing says which is the {' and the '.join(missing)}: pass "
            f"{named}, or name it in {path}",
            style="yellow",
        )
    return written
