"""`secure-fl init`: a configuration to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_fl.cli.console import out
from secure_fl.errors import ConfigError


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("secure-fl.toml"),
    schema: Annotated[bool, typer.Option("--schema", help="Also write PATH with the suffix .schema.json, for editors.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented configuration with every setting at its default."""
    from secure_fl.config_file import config_schema, starter_config
    from secure_fl.files import PUBLIC, make_folder, write_atomically

    if path.exists() and not force:
        raise ConfigError("exists already", field="path", value=str(path), remedy="choose another name or pass --force")
    make_folder(path.parent)
    write_atomically(path, starter_config(), mode=PUBLIC)
    out.print(f"wrote {path}; look at its clients with `secure-fl data {path}`, run it with `secure-fl run {path}`", markup=False)
    if schema:
        beside = path.with_suffix(".schema.json")
        write_atomically(beside, config_schema(), mode=PUBLIC)
        out.print(f"wrote {beside}", markup=False)
