"""Entry point: collects the commands, turns typed errors into a message and an exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from secure_fl import __version__
from secure_fl.cli.audit import HELP as AUDIT_HELP
from secure_fl.cli.audit import audit
from secure_fl.cli.bench import bench
from secure_fl.cli.check import check
from secure_fl.cli.common import command_group
from secure_fl.cli.compare import compare
from secure_fl.cli.console import err, out
from secure_fl.cli.data import data
from secure_fl.cli.doctor import doctor
from secure_fl.cli.federate import federate_app
from secure_fl.cli.kernels import kernels_app
from secure_fl.cli.keys import keys_app
from secure_fl.cli.models import assign, export
from secure_fl.cli.policy import policy_app
from secure_fl.cli.privacy import privacy_app
from secure_fl.cli.report import report
from secure_fl.cli.run import run
from secure_fl.cli.site import site_app
from secure_fl.cli.start import init
from secure_fl.cli.verify import verify
from secure_fl.errors import SecureFLError
from secure_fl.files import file_error
from secure_fl.terminal import prepare

FAILED = 2

_TOUR = """\
Privacy-hardened federated learning of encoders: pre-train without labels, then form cluster pools.

\b
A first hour:
  secure-fl doctor                               what works on this machine
  secure-fl init my.toml                         a commented configuration
  secure-fl data my.toml                         what each client would hold
  secure-fl check my.toml                        whether it would run, and what it would take
  secure-fl run my.toml --out runs/mine          pre-train, cluster, evaluate
  secure-fl report runs/mine                     one HTML page with plots, and a privacy card
  secure-fl compare runs/mine runs/other         side by side: what rounds and bytes bought
  secure-fl verify runs/mine                     the record against itself: signatures, ε, digests
  secure-fl audit runs/mine                      tries to break its claims; says what held
  secure-fl assign runs/mine new_client.npz      the right pool for a newcomer
  secure-fl privacy plan my.toml                 what a private run would spend, before it does
  secure-fl privacy verify runs/mine             every ε again, from the ledger's events
  secure-fl keys new hospital-3                  an identity, for a federation over a network
  secure-fl federate                             several machines: the coordinator and the server
  secure-fl site                                 a site of them, with data and keys of its own
  secure-fl policy init                          what this site accepts of such a federation
  secure-fl kernels check                        the kernels' own proof on this machine

\b
Any setting can be changed on the way:
  secure-fl run my.toml --set pools.count=3 --set pools.start=pretrained

\b
A finished run can be made longer:
  secure-fl run --resume runs/mine --set pools.rounds=20
"""

app = command_group(_TOUR, add_completion=False, pretty_exceptions_enable=False)
for _command in (run, check, report, compare, verify, data, init, export, assign, doctor):
    app.command()(_command)
app.command(help=AUDIT_HELP)(audit)
app.add_typer(kernels_app, name="kernels")
app.add_typer(bench, name="bench")
app.add_typer(privacy_app, name="privacy")
app.add_typer(keys_app, name="keys")
app.add_typer(policy_app, name="policy")
app.add_typer(federate_app, name="federate")
app.add_typer(site_app, name="site")


def _version(value: bool) -> None:
    if value:
        out.print(f"secure-fl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. Exit codes: 0 done, 2 refused, 130 interrupted (by typer)."""
    prepare()
    try:
        app()
    except SecureFLError as error:
        err.print(str(error), style="red")
        sys.exit(FAILED)
    except OSError as error:
        err.print(str(file_error(error, Path(str(error.filename)), "used")), style="red")
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
