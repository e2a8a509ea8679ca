"""`secure-fl export` and `secure-fl assign`: what a finished federation is used for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_fl.cli.console import out, table
from secure_fl.errors import RunFolderError


def export(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write the models to.")] = Path("exported"),
) -> None:
    """Copy the models out: safetensors by parameter name, with model.json (shape, scaling, classes) and config.toml.

    What only the experimenter may know, such as who uses which pool, stays behind.
    """
    from secure_fl.artifacts import load_card, model_files
    from secure_fl.federation.folder import RunFolder
    from secure_fl.files import listed, make_folder, read_bytes, write_atomically, write_json

    card, run, models = load_card(folder), RunFolder.open(folder), model_files(folder)
    if listed(to):
        raise RunFolderError("already holds something", field="--to", value=str(to), remedy="choose another folder or delete it")
    make_folder(to)
    write_json(to / "model.json", run.manifest.without_experiments().view("model/model.json", vars(card)))
    for name, data in {**models, run.config.name: read_bytes(run.config)}.items():
        write_atomically(to / name, data)
    for path in listed(to):
        out.print(str(path), markup=False)


def assign(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    file: Annotated[Path, typer.Argument(help=".npz with x, and y where there are labels.")],
    to: Annotated[Path | None, typer.Option("--to", help="Also write the answer as JSON.")] = None,
) -> None:
    """Find the right pool for a client that joins later, from its own examples; nothing is trained or sent.

    With labels the pool of lowest loss is chosen (as pools.select_by says); without, the nearest group of the sketch start,
    and where the run had none, the pool with the surest predictions.
    """
    from secure_fl.assign import assign_pool
    from secure_fl.files import write_json

    found = assign_pool(folder, file)
    rows = [[k, *("-" if value is None else value for value in row)] for k, row in enumerate(found.scores)]
    out.print(table("", ["pool", "loss", "accuracy", "entropy", "distance"], rows))
    out.print(f"pool {found.pool}, chosen by {found.by} over {found.examples} examples", markup=False)
    if to is not None:
        write_json(to, found.as_dict())
        out.print(f"wrote {to}", markup=False)
