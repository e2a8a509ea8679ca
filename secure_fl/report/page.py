"""The page: what was run, what came out, what it cost, what is not protected."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secure_fl.data.summary import PartitionSummary
from secure_fl.errors import DependencyError, RunFolderError
from secure_fl.federation.folder import RunFolder
from secure_fl.files import is_file, read_bytes, read_json, write_atomically
from secure_fl.report import plots
from secure_fl.units import clock, size

_TEMPLATE = "run.html.j2"
_REMEDY = "restore the file that the run wrote"


@dataclass(frozen=True)
class Run:
    """One run as the page needs it; None where the record leaves the experimenter's files out."""

    name: str
    summary: dict[str, Any]
    rounds: list[dict[str, Any]]
    partition: PartitionSummary | None
    embedding: dict[str, Any] | None
    config: str


def write_report(folders: Sequence[Path], path: Path) -> None:
    """Write the page for one run, or for several side by side.

    Raises:
        RunFolderError: a folder holds no finished run, or a damaged one.
        DependencyError: jinja2 or matplotlib is missing.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError
    except ImportError:
        raise DependencyError("the page needs jinja2", field="report", value=None, remedy="pip install 'secure-fl[report]'") from None
    runs = [_read(folder) for folder in folders]
    loader = PackageLoader("secure_fl.report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"bytes": size, "clock": clock}
    try:
        page = environment.get_template(_TEMPLATE).render(
            title=" · ".join(run.name for run in runs),
            rows=[_row(run) for run in runs],
            details=[_details(run) for run in runs],
            compared=_compared(runs),
        )
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, UndefinedError) as error:
        problem, remedy = f"holds a record that this version does not write: {type(error).__name__}", "restore the files that the run wrote"
        raise RunFolderError(problem, field="run folder", value=[str(folder) for folder in folders], remedy=remedy) from None
    write_atomically(path, page)


def _read(path: Path) -> Run:
    folder = RunFolder.open(path)
    folder.read_config()
    summary = folder.read_summary()
    partition = read_json(folder.partition, PartitionSummary, _REMEDY) if is_file(folder.partition) else None
    embedding = read_json(folder.embedding, dict[str, Any], _REMEDY) if is_file(folder.embedding) else None
    config = read_bytes(folder.config).decode(errors="replace")
    return Run(str(summary.get("name")), summary, folder.read_metrics(), partition, embedding, config)


def _row(run: Run) -> dict[str, Any]:
    """A run's line in the table of results."""
    pools, costs = run.summary.get("pools"), run.summary["costs"].values()
    row = {
        "name": run.name,
        "seconds": sum(cost["seconds"] for cost in costs) if all("seconds" in cost for cost in costs) else None,
        "down": sum(cost["bytes_down"] for cost in costs),
        "up": sum(cost["bytes_up"] for cost in costs),
        "pools": pools,
    }
    if pools:
        row["active"] = [sum(count > 0 for count in counts) for counts in pools["occupancy_per_round"]]
    return row


def _compared(runs: Sequence[Run]) -> dict[str, Any]:
    """Plots that several runs share."""
    clustered = [run for run in runs if "pools" in run.summary]
    courses = [(run.name, run.summary["pools"]["accuracy_per_round"]) for run in clustered]
    occupancies = [plots.occupancy_plot(run.summary["pools"]["occupancy_per_round"], run.name) for run in clustered]
    measured = any(value is not None for _, course in courses for value in course)
    return {"accuracy": _image(plots.accuracy_plot(courses)) if measured else None, "occupancy": [_image(svg) for svg in occupancies]}


def _details(run: Run) -> dict[str, Any]:
    """What one run alone has to show."""
    training = [line.get("metrics", {}) for line in run.rounds if line["phase"] == "pretrain"]
    told = bool(training) and all(metrics.get("loss") is not None for metrics in training)
    spent = [line["metrics"]["privacy"]["epsilon"] for line in run.rounds if "privacy" in line.get("metrics", {})]
    pictured = run.embedding if "representation" in run.summary else None
    coloured = [] if pictured is None else ["label", *(["group"] if any(group is not None for group in pictured["group"]) else [])]
    return {
        "run": run,
        "partition": None if run.partition is None else _image(plots.partition_plot(run.partition)),
        "loss": _image(plots.loss_plot([m["loss"] for m in training], [m["terms"] for m in training])) if told else None,
        "spent": _image(plots.spent_plot(spent, run.summary["privacy"]["budget"])) if spent else None,
        "embedding": [_image(plots.embedding_plot(pictured, by)) for by in coloured if pictured is not None],
    }


def _image(svg: str) -> str:
    """A data address for an <img>, so that the ids inside one plot cannot meet another's."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
