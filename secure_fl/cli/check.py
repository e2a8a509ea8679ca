"""`secure-fl check`: whether a run would come to its end, and what it would take, before it begins."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from secure_fl.cli.console import err, out
from secure_fl.report.units import clock, size

if TYPE_CHECKING:
    from secure_fl.estimate import Estimate, PhaseCost
    from secure_fl.run import Federation

_WIDEST, _NARROW, _NARROWEST = 100, 66, 20


def check(
    config: Annotated[Path, typer.Argument(help="Configuration, as `secure-fl init` writes it.")],
    out_dir: Annotated[Path | None, typer.Option("--out", help="Run folder that the run would make; runs/NAME when not given.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="a.b=c", help="Change a setting; may be repeated.")] = None,
) -> None:
    """Check a run without training: settings against each other and the data, folder, packages, budget; and what it would take.

    Bytes follow from what is sent. Time is an estimate: a few batches of noise and a few sums are timed and scaled; memory likewise. ε is what the
    accountant gives for the noise that the run would use, never less than what it will spend. Exits with 2 where the run would be refused.
    """
    from secure_fl.config_file import load_config
    from secure_fl.estimate import estimate
    from secure_fl.run import Federation

    chosen = load_config(config, settings or [])
    folder = out_dir if out_dir is not None else Path("runs") / chosen.name.replace("/", "-")
    federation = Federation(chosen)
    quick_checks(federation, folder)
    spent = planned_line(federation)
    with err.status("timing a few batches and sums") if err.is_terminal else _Nothing():
        taken = estimate(federation)
    width = page_width(out)
    for line in lines(taken, width):
        print(line)
    if spent:
        print(textwrap.fill(spent, width))
    print(textwrap.fill(f"ok: `secure-fl run {config} --out {folder}` can begin", width, break_long_words=False, break_on_hyphens=False))


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def quick_checks(federation: Federation, folder: Path) -> Estimate:
    """All that takes no time: refuse what would fail later, say what does less than it says; returns bytes and space without time.

    Raises:
        SecureFLError: the run would fail.
    """
    from secure_fl.estimate import estimate
    from secure_fl.preflight import check_folder, check_loaded, check_packages, warnings

    check_packages(federation.config)
    check_loaded(federation)
    taken = estimate(federation, timed=False)
    check_folder(folder, taken.disk, private=federation.config.privacy.unit != "none" or federation.config.noises_sketches)
    for warning in warnings(federation):
        err.print(f"note: {warning}", style="yellow", markup=False)
    return taken


def planned_line(federation: Federation) -> str:
    """What a private run would spend; empty without privacy. Calibrates the noise, which the run then finds done."""
    from secure_fl.cli.progress import steps
    from secure_fl.planning import client_plans
    from secure_fl.privacy.accounting import Charge, planned_epsilon
    from secure_fl.privacy.units import Adjacency

    privacy = federation.config.privacy
    if privacy.unit == "none":
        return ""
    if (plan := federation.blueprint.client_plan) is not None:
        epsilon = planned_epsilon([Charge(event, Adjacency(privacy.adjacency)) for event in plan.events()], privacy.delta)
        noises = [level.noise_multiplier for level in (plan.pretrain, plan.pools) if level is not None]
    else:
        rows = list(steps("calibrating the noise, client by client", client_plans(federation), len(federation.clients)))
        epsilon, noises = max(row.epsilon for row in rows), [row.plan.noise for row in rows]
    least, most = min(noises), max(noises)
    noise = f"noise multiplier {least:.3g}" + (f" to {most:.3g}" if most > least * 1.005 else "")
    over = "; THE BUDGET WOULD BE PASSED" if epsilon > privacy.epsilon else ""
    return f"ε = {epsilon:.2f} of {privacy.epsilon:g} at δ = {privacy.delta:g} ({privacy.unit} level), {noise}{over}"


def short(taken: Estimate) -> str:
    """An estimate in a line."""
    rounds = ", ".join(f"{phase.rounds} x {phase.name}" for phase in taken.phases if phase.name in ("pretrain", "cluster"))
    return f"about to send {size(taken.bytes)} in all ({rounds}); `secure-fl check` estimates time too"


def page_width(console: Console) -> int:
    """Columns to print in: the terminal's, `COLUMNS`, or 80 in a log."""
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else console.width if console.is_terminal else 80
    return max(_NARROWEST, min(_WIDEST, width))


def lines(taken: Estimate, width: int) -> list[str]:
    """An estimate as a table no wider than `width`; on a narrow page as a paragraph for each phase."""
    seconds = taken.seconds
    total = f"in all {size(taken.bytes)}, about {clock(seconds or 0)} here, memory about {size(taken.memory)}"
    notes = ["time and memory are estimates; bytes follow from what is sent, where all clients answer and all pools open"]
    if any(phase.most for phase in taken.phases):
        notes.append("sketch rounds end when the groups have settled")
    made = _table(taken) if width >= _NARROW else [part for phase in taken.phases for part in _paragraph(phase)]
    return [*made, "", *textwrap.wrap(total, width), *(line for note in notes for line in textwrap.wrap(note, width))]


def _table(taken: Estimate) -> list[str]:
    head = f"{'phase':<10}{'rounds':>8}{'clients':>9}{'a client sends':>16}{'all bytes':>11}{'time':>10}"
    return [head, *(_row(phase) for phase in taken.phases)]


def _row(phase: PhaseCost) -> str:
    each = size(phase.up / phase.clients) if phase.clients else "-"
    whole = size(phase.bytes) if phase.clients else "-"
    return f"{phase.name:<10}{_rounds(phase):>8}{phase.clients or '-':>9}{each:>16}{whole:>11}{clock(phase.rounds * (phase.seconds or 0)):>10}"


def _paragraph(phase: PhaseCost) -> list[str]:
    sent = [f"  {phase.clients} clients, each sends", f"  {size(phase.up / phase.clients)} a round; all {size(phase.bytes)}"] if phase.clients else []
    return [f"{phase.name}: {_rounds(phase)} rounds, {clock(phase.rounds * (phase.seconds or 0))}", *sent]


def _rounds(phase: PhaseCost) -> str:
    return str(phase.rounds) if phase.most is None else f"{phase.rounds} (≤{phase.most})"
