"""`secure-fl verify`: a folder's record, checked from the folder alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from secure_fl.cli.console import Sheet, err, out

DIFFERS = 1


def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder, or one party's.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of tables.")
    ] = False,
) -> None:
    """Check a record without its models: chain, signatures, survivors, counts, every ε, digests.

    Exits with 1 where anything does not fit; each finding names the file and the place in it. What
    nothing is held against is listed too.
    """
    from secure_fl.federation.verify.check import verify as checked

    found = checked(folder)
    if as_json:
        findings = [asdict(each) for each in found.findings]
        document = {"ok": found.ok, "findings": findings, "checked": dict(found.checked)}
        out.print(json.dumps({**document, "not_covered": found.uncovered}), soft_wrap=True)
    else:
        out.print(Sheet("checked", ["what", "how"], found.checked))
        if found.uncovered:
            out.print(Sheet("not covered", ["file", "why"], list(found.uncovered.items())))
        for each in found.findings:
            err.print(f"{each.file}: {each.field}: {each.problem}", style="red")
        out.print("everything fits" if found.ok else f"{len(found.findings)} do not fit")
    if not found.ok:
        raise typer.Exit(DIFFERS)
