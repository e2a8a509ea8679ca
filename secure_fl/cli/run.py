"""`secure-fl run`: a whole federation in this process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secure_fl.cli.check import folder_of, planned_line, quick_checks
from secure_fl.cli.common import Settings, said_budget
from secure_fl.cli.console import Sheet, err, out
from secure_fl.errors import ConfigError
from secure_fl.quantities import clock, counted, size

if TYPE_CHECKING:
    from secure_fl.callbacks import Callback
    from secure_fl.config import FederationConfig
    from secure_fl.estimate import Estimate
    from secure_fl.federation.run_folder.summary import (
        Cost,
        FinalPools,
        Privacy,
        SketchPrivacy,
        Summary,
    )

_Config = Annotated[
    Path | None, typer.Argument(help="Configuration, as `secure-fl init` writes it.")
]
_Out = Annotated[
    Path | None, typer.Option("--out", help="Run folder to make; runs/NAME when not given.")
]
_Resume = Annotated[
    Path | None,
    typer.Option(help="Continue the run in this folder; with --set pools.rounds=N make it longer."),
]


def run(
    config: _Config = None,
    out_dir: _Out = None,
    resume: _Resume = None,
    settings: Settings = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Pre-train an encoder, form cluster pools, evaluate, leave a run folder.

    After Ctrl-C, or a crash, `secure-fl run --resume FOLDER` goes on and ends with the numbers of
    an uninterrupted run.

    A finished run can be made longer: `secure-fl run --resume FOLDER --set pools.rounds=20`,
    and likewise pretrain.rounds where no pools have begun from the encoder. Nothing else may
    change, noise stays as it was made, and the budget holds: rounds beyond it are refused
    before they begin.
    """
    from secure_fl.federation.run_folder.folder import RunFolder
    from secure_fl.run import Federation

    chosen, folder = _chosen(config, out_dir, resume, settings or [])
    with _progress(quiet) as progress:
        federation = Federation(chosen, callbacks=[progress] if progress is not None else [])
        taken = None if resume is not None else quick_checks(federation, folder)
        if not quiet:
            _announce(federation)
        planned = planned_line(federation) if resume is None else ""
        if not quiet:
            _expect(planned, taken)
        try:
            federation.run(folder, resume=resume is not None, progress=False)
        except KeyboardInterrupt:
            go_on = f"secure-fl run --resume {folder}"
            said = f"stopped after the last checkpoint; go on with: {go_on}"
            err.print(said, style="yellow")
            raise
    if not quiet:
        show_summary(RunFolder.open(folder).read_summary(), folder)


def _expect(planned: str, taken: Estimate | None) -> None:
    """Say what the run will spend and take."""
    from secure_fl.report.costs import short

    if planned:
        out.print(f"planned: {planned}")
    if taken is not None:
        out.print(short(taken))


def _chosen(
    config: Path | None, out_dir: Path | None, resume: Path | None, settings: Sequence[str]
) -> tuple[FederationConfig, Path]:
    """Configuration and folder, new or resumed."""
    from secure_fl.config_file import load_config
    from secure_fl.federation.run_folder.folder import RunFolder

    if resume is not None:
        if config is not None or out_dir is not None:
            problem = "a resumed run takes no other configuration or folder"
            remedy = "give --resume alone, or with --set pools.rounds=N: the folder has the rest"
            raise ConfigError(problem, field="--resume", value=str(resume), remedy=remedy)
        return RunFolder.open(resume).read_config(settings), resume
    if config is None:
        remedy = "`secure-fl init my.toml` writes one; or pass --resume FOLDER"
        raise ConfigError("no configuration given", field="CONFIG", value=None, remedy=remedy)
    loaded = load_config(config, settings)
    return loaded, folder_of(loaded, out_dir)


def _progress(quiet: bool) -> AbstractContextManager[Callback | None]:
    from secure_fl.callbacks.progress import LiveProgress, PlainProgress

    if quiet:
        return nullcontext()
    return LiveProgress(out) if out.is_terminal else nullcontext(PlainProgress(out))


def _announce(federation: Any) -> None:
    from secure_fl.callbacks.progress import warn
    from secure_fl.finished.summary import encoder_made

    kind, shape = federation.config.partition.kind, federation.factory.facts.shape
    out.print(
        f"{federation.config.name}: {counted(len(federation.clients), 'client')} "
        f"({kind}), examples of shape {shape}"
    )
    privacy = federation.config.privacy
    if privacy.unit != "none":
        out.print(f"privacy budget: {said_budget(privacy)}; the noise is calibrated first")
    if said := encoder_made(federation.config):
        out.print(said)
    warn(out, federation.config)


def _privacy_line(privacy: Privacy) -> str:
    known = privacy.epsilon is not None
    spent = f"ε = {privacy.epsilon:.2f} of {privacy.budget:g}" if known else "no bound"
    kind = (
        f"δ = {privacy.delta:g}, {privacy.unit} level, {privacy.adjacency}, the largest of any "
        "client"
    )
    against = ", ".join(
        f"{claim.adversary} {'no bound' if claim.epsilon is None else format(claim.epsilon, '.2f')}"
        for claim in privacy.claims
        if claim.unit == privacy.unit
    )
    return (
        f"privacy spent: {spent} ({kind}); {counted(privacy.releases, 'release')} in ledger.json\n"
        f"ε against: {against}"
    )


def _sketch_line(sketches: SketchPrivacy) -> str:
    kind = f"δ = {sketches.delta:g}, {sketches.unit} level, {sketches.adjacency}"
    return (
        f"sketches: ε = {sketches.epsilon:.2f} ({kind}), for the sketches alone; updates and "
        "models have no differential privacy"
    )


def show_summary(summary: Summary, folder: Path) -> None:
    """A run in a few lines, as its record tells it: representation, pools, costs, folder."""
    if measured := summary.representation:
        initial = measured.initial or {}
        rows = [[name, initial[name], value] for name, value in (measured.pretrained or {}).items()]
        out.print(Sheet("encoder", ["metric", "random", "pre-trained"], rows))
    if summary.pools is not None:
        out.print(_pools_line(summary.pools))
    first = {found.alert: found for found in reversed(summary.alerts or ())}
    for found in reversed(first.values()):
        said = f"warning ({found.phase}, round {found.round}): {found.alert}"
        out.print(said, style="yellow")
    told = [row for row in summary.secrecy if row.holds]
    for row in told:
        out.print(f"{row.adversary}: cannot read {row.holds}", style="dim")
    if told:
        said = "what each of them does read is on the page and in summary.json"
        out.print(said, style="dim")
    if summary.privacy is not None:
        out.print(_privacy_line(summary.privacy))
    if summary.sketches is not None:
        out.print(_sketch_line(summary.sketches))
    out.print(_costs_line(list(summary.costs.values())))
    out.print(f"wrote {folder}; see it with `secure-fl report {folder}`")


def _pools_line(pools: FinalPools) -> str:
    ari = "" if pools.ari is None else f", ARI {pools.ari:.2f} against the known groups"
    accuracy = "unknown"
    if pools.accuracy is not None:
        accuracy = f"{pools.accuracy:.3f} ± {pools.accuracy_std:.3f} over clients"
    there = {"balanced": pools.balanced_accuracy, "majority class": pools.majority}
    beside = "".join(f", {said} {value:.3f}" for said, value in there.items() if value is not None)
    used = f"{pools.active} of {len(pools.counts)} pools in use"
    return f"accuracy {accuracy}{beside}; {used}{ari}"


def _costs_line(costs: Sequence[Cost]) -> str:
    down, up = sum(cost.bytes_down for cost in costs), sum(cost.bytes_up for cost in costs)
    times = [cost.seconds for cost in costs if cost.seconds is not None]
    took = f"{clock(sum(times))}, " if len(times) == len(costs) else ""
    return f"{took}{size(down)} to the clients, {size(up)} to the server"
