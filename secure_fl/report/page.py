"""The page: four answers first, then each run's pools, clients, protection, course and cost. One
file, which asks for no other.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secure_fl.errors import DependencyError, RunFolderError
from secure_fl.files import write_atomically
from secure_fl.finished.summary import encoder_made
from secure_fl.quantities import clock, size
from secure_fl.report import audited, plots, proved, sections, tiles
from secure_fl.report.audit_plots import attacks_plot, bounds_plot
from secure_fl.report.figures import Chart, pool_colour
from secure_fl.report.findings import alerts
from secure_fl.report.runs import Run, read_runs

if TYPE_CHECKING:
    from jinja2 import Environment

_SCRIPT = "sort.js"
_NOT_WRITTEN_SO = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What figures raise of a record that no run of this version writes."""


def write_report(folders: Sequence[Path], path: Path) -> None:
    """Write the page for one run, or for several side by side. Raises RunFolderError: a folder
    holds no finished run, or a damaged one; DependencyError: jinja2 or matplotlib is missing.
    """
    environment("report")
    runs = read_runs(folders)
    write_atomically(path, page_of("page.html.j2", lambda: _page(runs), folders))


def page_of(template: str, told: Callable[[], Mapping[str, Any]], folders: Sequence[Path]) -> bytes:
    """A page of runs, which asks for nothing and runs one script.

    Args:
        template: its name.
        told: makes what it tells.
        folders: of the runs, for the error.

    Raises:
        RunFolderError: a record is one that this version does not write.
        DependencyError: jinja2 or matplotlib is missing.
    """
    templates = environment("report")
    from jinja2 import UndefinedError

    script = templates.get_template(_SCRIPT).render()
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    # The one script that runs is known by its digest, and nothing is loaded from anywhere: what a
    # run is called cannot become either.
    allowed = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src "
        f"'sha256-{digest}'"
    )
    try:
        page = templates.get_template(template)
        return page.render(script=script, allowed=allowed, **told()).encode()
    except (*_NOT_WRITTEN_SO, UndefinedError) as error:
        problem = f"holds a record that this version does not write: {type(error).__name__}"
        found, remedy = list(map(str, folders)), "restore the files that the run wrote"
        raise RunFolderError(problem, "run folder", found, remedy) from None


def environment(*rooms: str) -> Environment:
    """What makes pages of templates. Raises DependencyError: jinja2 is not installed.

    Args:
        rooms: packages that have templates, the first that has one of a name gives it.
    """
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    except ImportError:
        remedy = "pip install 'secure-fl[report]'"
        raise DependencyError("the page needs jinja2", "report", None, remedy) from None
    made = Environment(
        loader=ChoiceLoader([PackageLoader(f"secure_fl.{room}") for room in rooms]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"bytes": size, "clock": clock, "image": _image}
    made.globals["pool_colour"] = pool_colour
    return made


def _page(runs: Sequence[Run]) -> dict[str, Any]:
    """What the page tells."""
    subject = tiles.subject(runs)
    return {
        "runs": [_told(run, runs) for run in runs],
        "subject": runs.index(subject) + 1,
        "comparison": sections.comparison(runs) if len(runs) > 1 else None,
        "charts": _compared(runs),
    }


def _told(run: Run, runs: Sequence[Run]) -> dict[str, Any]:
    """A run as the template tells it."""
    return {
        "run": run,
        "badges": sections.badges(run),
        "tiles": tiles.tiles(run, runs),
        "alerts": alerts(run),
        "pools": sections.pool_table(run),
        "pool_notes": sections.pool_notes(run),
        "clients": sections.client_table(run),
        "claims": sections.claim_table(run),
        "claim_notes": sections.claim_notes(run),
        "terms": sections.claim_terms(run),
        "secrecy": sections.secrecy_table(run),
        "audited": _audited(run),
        "encoder": sections.encoder_table(run),
        "encoder_made": encoder_made(run.config),
        "costs": sections.cost_table(run),
        "charts": _charts(run),
    }


def _audited(run: Run) -> dict[str, Any]:
    """What was claimed, what was tried, and what the record proves."""
    said = {
        "claims": audited.claim_lines(run),
        "command": audited.command(run, "audit"),
        "verify": audited.command(run, "verify"),
        "left_out": audited.LEFT_OUT if run.audit is not None else "",
        "verdict": proved.verdict(run),
        "findings": proved.findings(run),
        "checked": proved.checked_table(run),
        "uncovered": proved.uncovered(run),
        "not_shown": proved.NOT_SHOWN,
    }
    audit = audited.Audit.of(run)
    if audit is None:
        return {**said, "audit": None}
    charts = bounds_plot(audit), attacks_plot(audit)
    return {
        **said,
        "audit": audit,
        "told": f"{audit.told}.",
        "charts": [chart for chart in charts if chart is not None],
        "outcomes": audited.outcome_table(audit),
        "nearest": audit.nearest,
        "bounds": audited.bound_table(audit),
        "figures": audited.figure_table(audit),
        "pictures": audited.pictures(audit),
        "others": audited.others(audit),
    }


def _compared(runs: Sequence[Run]) -> list[Chart]:
    """Plots that several runs share."""
    courses = [(run.name, run.pools.accuracy_per_round) for run in runs if run.pools is not None]
    measured = [each for each in courses if any(value is not None for value in each[1])]
    return [plots.accuracy_plot(measured)] if len(measured) > 1 else []


def _charts(run: Run) -> dict[str, list[Chart]]:
    """What one run alone has to show, by the part of its section."""
    course = () if run.pools is None else run.pools.accuracy_per_round
    pools = []
    if any(value is not None for value in course):
        pools.append(plots.accuracy_plot([(run.name, course)]))
    if run.pools is not None:
        pools.append(plots.occupancy_plot(run.pools.occupancy_per_round, run.name))
    spent = [line.metrics.privacy.epsilon for line in run.rounds if line.metrics.privacy]
    known, privacy = [each for each in spent if each is not None], run.summary.privacy
    told = privacy is not None and known == spent != []
    return {
        "pools": pools,
        "clients": [] if run.partition is None else [plots.partition_plot(run.partition)],
        "privacy": [plots.spent_plot(known, privacy.budget)] if privacy and told else [],
        "encoder": [*_embeddings(run), *_losses(run), *_separation(run)],
    }


def _embeddings(run: Run) -> list[Chart]:
    """Test examples coloured by label, and by known group where there are any."""
    pictured = run.embedding if run.summary.representation else None
    if pictured is None:
        return []
    names = () if run.partition is None else run.partition.class_names
    charts = [plots.embedding_plot(pictured, "label", names)]
    if any(group is not None for group in pictured["group"]):
        charts.append(plots.embedding_plot(pictured, "group"))
    return charts


def _losses(run: Run) -> list[Chart]:
    """The course of pre-training, where every round says its loss."""
    training = [line.metrics for line in run.lines("pretrain")]
    known = [(m.loss, m.terms) for m in training if m.loss is not None and m.terms is not None]
    if not training or len(known) < len(training):
        return []
    return [plots.loss_plot([loss for loss, _ in known], [terms for _, terms in known])]


def _separation(run: Run) -> list[Chart]:
    """The weights of the separation, where they followed how far clients differ."""
    said = [line.metrics.separation for line in run.lines("pretrain")]
    known = [each for each in said if each is not None]
    return [plots.separation_plot(known)] if known else []


def _image(svg: str) -> str:
    """A data address for an <img>: ids inside one plot cannot meet another's, and nothing in
    it runs.
    """
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
