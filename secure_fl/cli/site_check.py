"""`secure-fl site check`: a table of what would be in the way, each line with its remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_fl.cli.console import Sheet, err, out
from secure_fl.cli.exits import REFUSED, refusing


def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.")],
    bandwidth: Annotated[
        float | None, typer.Option(min=0.001, help="Of the way, in Mbit/s; unset: measured.")
    ] = None,
    reach: Annotated[
        bool, typer.Option("--reach/--no-reach", help="Look for the other machines.")
    ] = True,
) -> None:
    """Check whether this site would take part in what it has joined, and to the end: policy and
    data against the plan, software, certificate, clock, network, time and space. Where the server
    is up and sites dial it, the way there is measured: at most 2 MB each way, of zeros, in at most
    ten seconds. Nothing else is sent. Exits with 1 where something fails.
    """
    from secure_fl.deployment.site.checking import check_site
    from secure_fl.deployment.site.folder import SiteFolder

    with refusing():
        site = SiteFolder.open(folder)
        bits = None if bandwidth is None else bandwidth * 1e6
        lines = list(check_site(site, bandwidth=bits, reach=reach))
        rows = [[line.what, line.state, line.said] for line in lines]
        out.print(Sheet(f"{site.name}", ["looked at", "", "found"], rows))
        for line in lines:
            if line.state != "ok":
                colour = "red" if line.state == "fail" else "yellow"
                err.print(f"{line.what}: {line.remedy}", style=colour)
        failed = sum(line.state == "fail" for line in lines)
        if failed:
            err.print(f"{failed} of {len(lines)} would be in the way", style="red")
            raise typer.Exit(REFUSED)
        out.print("ready: `secure-fl site run` can begin", style="green")
