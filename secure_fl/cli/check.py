"""`secure-fl check`: whether a run would come to its end, and what it would take."""

from __future__ import annotations

import os
import textwrap
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from secure_fl.cli.common import Settings
from secure_fl.cli.console import err, out
from secure_fl.errors import PrivacyError

if TYPE_CHECKING:
    from secure_fl.config import FederationConfig, OptimiserConfig
    from secure_fl.estimate import Estimate
    from secure_fl.run import Federation

_WIDEST, _NARROWEST = 100, 20
_DOUBT = 1.003
"""Factor by which a plan's ε may be above the finely computed one, which decides."""


def check(
    config: Annotated[Path, typer.Argument(help="Configuration, as `secure-fl init` writes it.")],
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", help="Run folder that the run would make; runs/NAME when not given."),
    ] = None,
    settings: Settings = None,
) -> None:
    """Check a run without training: settings against each other and the data, folder, packages,
    budget; and what it would take.

    Bytes follow from what is sent. Time is an estimate: a few batches of noise and a few sums are
    timed and scaled; memory likewise. ε is what the accountant gives for the noise that the run
    would use, never less than what it will spend. Exits with 2 where the run would be refused.
    """
    from secure_fl.config_file import load_config
    from secure_fl.estimate import estimate
    from secure_fl.finished.summary import encoder_made
    from secure_fl.report.costs import lines
    from secure_fl.run import Federation

    chosen = load_config(config, settings or [])
    folder = folder_of(chosen, out_dir)
    federation = Federation(chosen)
    quick_checks(federation, folder)
    spent = planned_line(federation)
    with err.status("timing a few batches and sums") if err.is_terminal else nullcontext():
        taken = estimate(federation)
    width = page_width(out)
    for line in lines(taken, width):
        print(line)
    for said in filter(None, (spent, encoder_made(federation.config))):
        print(textwrap.fill(said, width))
    ok = f"ok: `secure-fl run {config} --out {folder}` can begin"
    print(textwrap.fill(ok, width, break_long_words=False, break_on_hyphens=False))


def folder_of(config: FederationConfig, out_dir: Path | None) -> Path:
    """The run folder that is asked for, else runs/NAME."""
    return out_dir if out_dir is not None else Path("runs") / config.name.replace("/", "-")


def quick_checks(federation: Federation, folder: Path) -> Estimate:
    """All that takes no time: refuse what would fail later, say what does less than it says;
    returns bytes and space without time.

    Raises:
        SecureFLError: the run would fail.
    """
    from secure_fl.estimate import estimate
    from secure_fl.estimate.preflight import check_folder, check_loaded, check_packages, warnings

    check_packages(federation.config)
    check_loaded(federation)
    taken = estimate(federation, timed=False)
    config = federation.config
    private = config.privacy.unit != "none" or config.noises_sketches
    check_folder(folder, taken.disk, private=private)
    for warning in warnings(federation):
        err.print(f"note: {warning}", style="yellow")
    return taken


def planned_line(federation: Federation) -> str:
    """What a private run would spend; empty without privacy. Calibrates the noise, which the run
    then finds done.

    Raises:
        PrivacyError: no noise keeps to the budget, or the noise that is set does not.
    """
    privacy = federation.config.privacy
    if privacy.unit == "none":
        return ""
    epsilon, noises = _planned(federation)
    if _is_certain(federation.config) and epsilon > privacy.epsilon * _DOUBT:
        remedy = (
            "leave privacy.noise out, which calibrates it, raise it, or take fewer rounds: "
            "`secure-fl privacy plan` says how many fit"
        )
        problem = f"the run would spend ε = {epsilon:.4g}, and stop at {privacy.epsilon:g}"
        raise PrivacyError(problem, field="privacy.noise", value=privacy.noise, remedy=remedy)
    least, most = min(noises), max(noises)
    noise = f"noise multiplier {least:.3g}" + (f" to {most:.3g}" if most > least * 1.005 else "")
    over = "; it could pass the budget, and the round that would is not begun"
    return (
        f"ε = {epsilon:.2f} of {privacy.epsilon:g} at δ = {privacy.delta:g} ({privacy.unit} "
        f"level), {noise}{over if epsilon > privacy.epsilon else ''}"
    )


def _planned(federation: Federation) -> tuple[float, list[float]]:
    """The largest ε of any client, and every noise multiplier."""
    from secure_fl.cli.common import steps
    from secure_fl.estimate.planning import client_plans
    from secure_fl.privacy.accounting import Charge, planned_epsilon
    from secure_fl.privacy.adjacency import Adjacency

    privacy, plan = federation.config.privacy, federation.factory.client_plan
    if plan is not None:
        charges = [Charge(event, Adjacency(privacy.adjacency)) for event in plan.events()]
        levels = [level for level in (plan.pretrain, plan.pools) if level is not None]
        noises = [level.noise_multiplier for level in levels]
        return planned_epsilon(charges, privacy.delta), noises
    title, plans = "calibrating the noise, client by client", client_plans(federation)
    rows = list(steps(title, plans, len(federation.clients)))
    return max(row.epsilon for row in rows), [row.plan.noise for row in rows]


def _is_certain(config: FederationConfig) -> bool:
    """Whether every planned release is made: all clients are called, no warm-up leaves one out."""
    phases: list[OptimiserConfig] = [config.pretrain] if config.pretrain.mode == "federated" else []
    phases += [config.pools] if config.pools.enabled else []
    sketched = config.pools.enabled and config.pools.start == "sketch"
    warms_up = sketched and config.privacy.chooses_by_loss("sketch")
    return not warms_up and all(phase.participation == 1 for phase in phases)


def page_width(console: Console) -> int:
    """Columns to print in: the terminal's, `COLUMNS`, or 80 in a log."""
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else console.width if console.is_terminal else 80
    return max(_NARROWEST, min(_WIDEST, width))
