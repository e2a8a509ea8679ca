"""`secure-fl privacy`: what a run would spend, and whether a ledger says the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_fl.cli.common import Settings, command_group, said_budget
from secure_fl.cli.console import Sheet, err, out
from secure_fl.errors import ConfigError, RunFolderError
from secure_fl.quantities import counted

if TYPE_CHECKING:
    from secure_fl.federation.factory.client_plan import ClientPlan
    from secure_fl.federation.run_folder.folder import RunFolder
    from secure_fl.privacy.ledger import PrivacyLedger
    from secure_fl.run import Federation

FAILED = 1

privacy_app = command_group("Plan a privacy budget, and check one that was spent.")


@privacy_app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="Configuration with a [privacy] table.")],
    settings: Settings = None,
) -> None:
    """Say which noise keeps the run within its budget, what it spends, how many rounds fit."""
    from secure_fl.config_file import load_config
    from secure_fl.run import Federation

    chosen = load_config(config, settings or [])
    if chosen.privacy.unit == "none":
        problem = "the run has no differential privacy to plan"
        remedy = 'set it to "example" or "client"'
        raise ConfigError(problem, field="privacy.unit", value="none", remedy=remedy)
    federation = Federation(chosen)
    if federation.factory.client_plan is not None:
        _show_clients(federation, federation.factory.client_plan)
    else:
        _show_examples(federation)


@privacy_app.command()
def verify(folder: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Recompute every ε of a run from the events in its ledger, and hold the ledger against the
    run's records.

    Exits with 1 where a stated ε differs, the budget was passed, or the ledger has lost releases
    that a checkpoint, a round or the summary counts; and where one of these is gone from a
    finished run.
    """
    from secure_fl.federation.releases.privacy_record import SKETCHES_ONLY
    from secure_fl.federation.run_folder.folder import RunFolder
    from secure_fl.privacy.ledger import PrivacyLedger

    run = RunFolder.open(folder)
    _check_ledger(run)
    ledger = PrivacyLedger.load(run.ledger)
    found = ledger.verify(marks := run.marks())
    problems = [*found.problems, *_contradictions(run, ledger, {where for where, _ in marks})]
    names, budget = _names(run), ledger.budget
    rows = [
        [names.get(row.subject) or f"client {row.subject}", row.epsilon] for row in found.recomputed
    ]
    kind = (
        "" if budget is None else f"δ = {budget.delta:g}, {budget.unit} level, {budget.adjacency}"
    )
    title = f"recomputed from {counted(len(ledger.releases), 'release')} ({kind})"
    out.print(Sheet(title, ["subject", "ε"], rows))
    out.print(
        f"{len(found.derived)} releases follow from the protocol, {len(found.declared)} rest on a "
        "client's word for its rate and steps"
    )
    if run.read_config().privacy.unit == "none":
        out.print(f"this is for the sketches alone; not covered: {SKETCHES_ONLY}")
    for problem in problems:
        err.print(problem, style="red")
    if problems:
        raise typer.Exit(FAILED)


def _check_ledger(run: RunFolder) -> None:
    """Refuse a run without a ledger that released nothing with noise."""
    from secure_fl.files import is_file

    if is_file(run.ledger):
        return
    config = run.read_config()
    if not config.noises_sketches and config.privacy.unit == "none":
        problem = "the run released nothing with noise, so it has no ledger"
        remedy = 'run it with privacy.unit = "example" or "client" for a run that has a ledger'
        raise RunFolderError(problem, field="folder", value=str(run.path), remedy=remedy)


def _contradictions(run: RunFolder, ledger: PrivacyLedger, counted: set[str]) -> list[str]:
    """What a finished run's records say otherwise than its ledger; `counted` count it."""
    from secure_fl.federation.releases.privacy_record import differences
    from secure_fl.federation.run_folder.folder import MARKED
    from secure_fl.files import is_file

    if not is_file(run.summary):
        return []
    silent = [
        f"{where} does not count the ledger's releases: it is not what the run wrote"
        for where in sorted(set(MARKED) - counted)
    ]
    return [*silent, *differences(run.read_summary(), ledger)]


def _show_examples(federation: Federation) -> None:
    from secure_fl.cli.common import steps
    from secure_fl.estimate.planning import client_plans
    from secure_fl.privacy.accounting import epsilon
    from secure_fl.privacy.adjacency import Adjacency

    privacy, rows = federation.config.privacy, []
    at = Adjacency(privacy.adjacency)
    for row in steps(
        "calibrating the noise, client by client", client_plans(federation), len(federation.clients)
    ):
        rate = row.plan.pretrain or row.plan.pools
        fits = row.rounds_that_fit()
        name = federation.clients[row.client].name or row.client
        figures = ["-" if rate is None else rate.rate, row.plan.noise, row.epsilon]
        rows.append([name, row.examples, *figures, "-" if fits is None else str(fits)])
    columns = ["client", "examples", "rate", "noise", "ε planned", "pre-training rounds that fit"]
    out.print(Sheet(_claim(federation), columns, rows))
    if federation.config.noises_moments:
        moments = federation.factory.view_moments
        certain = moments.moments.event().parties
        out.print(
            f"view moments: two sums, ε = {epsilon(moments.events(), privacy.delta, at):.2f} of it "
            f"together; noise multipliers {moments.centre.noise_multiplier:.3g} and "
            f"{moments.moments.noise_multiplier:.3g}, in shares of which {certain} are certain"
        )
    if privacy.noise is None:
        out.print(
            "the noise is made for the rounds that are set, and at most 0.3 % above the least "
            "that keeps to the budget"
        )


def _show_clients(federation: Federation, plan: ClientPlan) -> None:
    from secure_fl.privacy.accounting import epsilon
    from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
    from secure_fl.privacy.calibration import rounds_within
    from secure_fl.privacy.ledger import Budget

    privacy, rows = federation.config.privacy, []
    budget = Budget(
        privacy.epsilon, privacy.delta, PrivacyUnit.CLIENT, Adjacency(privacy.adjacency)
    )
    for name, event in plan.by_phase().items():
        level = plan.of(name)
        others = [other for phase, other in plan.by_phase().items() if phase != name]
        fits = rounds_within(budget, [level.event(1)], already=others, most=10_000)
        noise = [level.noise_multiplier, level.levels, level.false_pass]
        rows.append([name, event.releases, *noise, level.n_min, fits])
    columns = ["phase", "rounds", "noise", "grid steps in the bound", "pool of one passes"]
    columns += ["fewest clients", "rounds that fit"]
    out.print(Sheet(_claim(federation), columns, rows))
    out.print(
        f"the run would spend ε = {epsilon(plan.events(), privacy.delta, budget.adjacency):.2f}"
    )


def _names(run: RunFolder) -> dict[int, str]:
    """Clients by their numbers, where the record has names."""
    from secure_fl.data.summary import PartitionSummary
    from secure_fl.files import is_file, read_json

    if not is_file(run.partition):
        return {}
    clients = read_json(
        run.partition, PartitionSummary, "restore the file that the run wrote"
    ).clients
    return {client.client: client.name for client in clients if client.name}


def _claim(federation: Federation) -> str:
    return f"budget {said_budget(federation.config.privacy)}"
