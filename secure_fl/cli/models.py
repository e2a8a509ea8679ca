"""`secure-fl export` and `secure-fl assign`: what a finished federation is used for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_fl.cli.console import Sheet, out
from secure_fl.quantities import counted


def export(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write the models to.")] = Path(
        "exported"
    ),
    to: Annotated[Path | None, typer.Option("--to", hidden=True)] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="As ONNX: encoder.onnx, and a file a pool.")
    ] = False,
    hf: Annotated[
        bool,
        typer.Option(
            "--hf",
            help="As a Hugging Face folder: model.safetensors, config.json and a model card.",
        ),
    ] = False,
) -> None:
    """Copy the models out: safetensors by parameter name, with model.json (shape, scaling, classes)
    and config.toml; or in the forms asked for.

    What only the experimenter may know, such as who uses which pool, stays behind.
    """
    from secure_fl.export import Form
    from secure_fl.export import export as export_models

    asked: tuple[tuple[Form, bool], ...] = (("onnx", onnx), ("hf", hf))
    forms = [form for form, wanted in asked if wanted]
    for path in export_models(folder, to or out_dir, forms or ["safetensors"]):
        out.print(str(path))


def assign(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    file: Annotated[Path, typer.Argument(help=".npz with x, and y where there are labels.")],
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Also write the answer as JSON.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", hidden=True)] = None,
) -> None:
    """Find the right pool for a client that joins later, from its own examples; nothing is trained
    or sent.

    With labels the pool of lowest loss is chosen (as pools.select_by says); without, the nearest
    group of the sketch start, and where the run had none, the pool with the surest predictions.
    """
    from secure_fl.files import write_json
    from secure_fl.finished.assign import assign_pool

    found, target = assign_pool(folder, file), to or out_file
    rows = [
        [k, *("-" if value is None else value for value in row)]
        for k, row in enumerate(found.scores)
    ]
    out.print(Sheet("", ["pool", "loss", "accuracy", "entropy", "distance"], rows))
    out.print(f"pool {found.pool}, chosen by {found.by} over {counted(found.examples, 'example')}")
    if target is not None:
        write_json(target, found.as_dict())
        out.print(f"wrote {target}")
