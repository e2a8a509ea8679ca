"""Live progress of a run: bars on a terminal and in a notebook, one line a round elsewhere; and,
before it begins, what it does not protect.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from secure_fl.callbacks.base import Callback
from secure_fl.errors import ConfigError
from secure_fl.federation.whole_run.alerts import alerts_of, kind_of
from secure_fl.quantities import clock, counted

if TYPE_CHECKING:
    from secure_fl.config import FederationConfig
    from secure_fl.federation.run_folder.metrics import RoundRecord

_LONGEST_NAME, _NARROW = 24, 80


@contextmanager
def shown(progress: object, config: FederationConfig) -> Iterator[list[Callback]]:
    """The progress that a run asks for, on stderr, after what it does not protect has been said.
    Raises ConfigError: `progress` is something else.

    Args:
        progress: True shows bars, or lines where there is no terminal; False nothing; None bars on
            a terminal or in a notebook, else nothing.
    """
    if progress is not None and not isinstance(progress, bool):
        problem = "is neither True, False nor None"
        remedy = "pass True, False, or None for a bar where somebody looks"
        raise ConfigError(problem, "progress", type(progress).__name__, remedy)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    live = console.is_terminal or console.is_jupyter
    if progress is False or (progress is None and not live):
        yield []
        return
    warn(console, config)
    if not live:
        yield [PlainProgress(console)]
        return
    with LiveProgress(console) as bar:
        yield [bar]


def warn(console: Console, config: FederationConfig) -> None:
    """What a run does not protect, in red, a line each."""
    from secure_fl.finished.summary import unprotected

    for line in unprotected(config):
        console.print(f"NOT PROTECTED: {line}", style="bold red", markup=False)


class PlainProgress(Callback):
    """`pretrain 3/10  loss -1.21  16 clients  2.4 s  left 0:17`, one line a round."""

    def __init__(self, console: Console) -> None:
        self._console, self._began, self._rounds, self._done = console, 0.0, 0, 0
        self._last: tuple[str, int] | None = None
        self._alerts = _Alerts(console)

    def on_phase(self, name: str, rounds: int, done: int) -> None:
        if self._last is not None and self._last[1] < self._rounds:
            self._console.print(
                f"{self._last[0]} has settled after {self._last[1]} of at "
                f"most {counted(self._rounds, 'round')}",
                markup=False,
            )
        self._began, self._rounds, self._done, self._last = time.monotonic(), rounds, done, None

    def on_round(self, record: RoundRecord) -> None:
        self._last = record.phase, record.round
        made = record.round - self._done
        left = (time.monotonic() - self._began) / made * (self._rounds - record.round)
        took = [] if record.seconds is None else [f"{record.seconds:.1f} s"]
        parts = [f"{record.phase} {record.round}/{self._rounds}", *facts(record), *took]
        if self._rounds > 1:
            parts.append(f"left {clock(left)}")
        self._console.print("  ".join(parts), markup=False)
        self._alerts.show(record)


class LiveProgress(Callback):
    """A bar for each phase and, under it, one for the clients of the round."""

    def __init__(self, console: Console) -> None:
        name, count = (
            TextColumn("{task.description:<10}"),
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=5)),
        )
        if console.width < _NARROW:  # numbers before pictures
            columns: tuple[ProgressColumn, ...] = (
                name,
                count,
                TextColumn("{task.fields[facts]}", table_column=Column(overflow="fold")),
            )
        else:
            columns = (
                name,
                BarColumn(bar_width=24),
                count,
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[facts]}"),
            )
        self._progress = Progress(*columns, console=console)
        self._phase: TaskID | None = None
        self._clients: TaskID | None = None
        self._alerts = _Alerts(console)
        self._last = ""

    def __enter__(self) -> LiveProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._drop_clients()
        self._progress.stop()

    def on_phase(self, name: str, rounds: int, done: int) -> None:
        self._drop_clients()
        self._phase = self._progress.add_task(name, total=rounds, completed=done, facts="")

    def on_reply(self, client: str) -> None:
        self._last = client if len(client) <= _LONGEST_NAME else client[: _LONGEST_NAME - 1] + "…"

    def on_client(self, done: int, total: int) -> None:
        if self._clients is None:
            self._clients = self._progress.add_task("  clients", total=total, facts="")
        self._progress.update(self._clients, completed=done, total=total, facts=escape(self._last))

    def on_round(self, record: RoundRecord) -> None:
        if self._phase is not None:
            self._progress.update(
                self._phase, completed=record.round, facts="  ".join(facts(record))
            )
        self._alerts.show(record)

    def _drop_clients(self) -> None:
        """The clients' bar belongs to one phase; a phase that ended early shows as complete."""
        if self._clients is not None:
            self._progress.remove_task(self._clients)
            self._clients = None
        if self._phase is not None:
            task = next(task for task in self._progress.tasks if task.id == self._phase)
            self._progress.update(self._phase, total=task.completed)


def facts(record: RoundRecord) -> list[str]:
    """What a reader wants of a round, in a few words each."""
    metrics, said = record.metrics, list[str]()
    if metrics.loss is not None:
        said.append(f"loss {metrics.loss:.3f}")
    if metrics.accuracy is not None:
        said.append(f"accuracy {metrics.accuracy:.3f}")
        beside = ("balanced", metrics.balanced_accuracy), ("majority", metrics.majority)
        said += [
            f"{name} {value:.3f}"
            for name, value in beside
            if value is not None and record.phase == "evaluate"
        ]
    if metrics.pools is not None:
        said.append("pools " + "/".join(map(str, metrics.pools.counts)))
    if metrics.counts is not None:
        said.append("groups " + "/".join(map(str, metrics.counts)))
    if metrics.initial and metrics.pretrained and "knn" in metrics.pretrained:
        said.append(f"kNN {metrics.initial['knn']:.3f} -> {metrics.pretrained['knn']:.3f}")
    if metrics.privacy is not None and metrics.privacy.epsilon is not None:
        said.append(f"ε {metrics.privacy.epsilon:.2f}")
    if record.clients:
        said.append(counted(record.clients, "client"))
    return said


class _Alerts:
    """Prints each kind of alert once a phase, and no line twice."""

    def __init__(self, console: Console) -> None:
        self._console, self._shown = console, set[str | tuple[str, str]]()

    def show(self, record: RoundRecord) -> None:
        for alert in alerts_of(record):
            known: set[str | tuple[str, str]] = {alert, (record.phase, kind_of(alert))}
            if not known & self._shown:
                self._console.print(f"warning: {alert}", style="yellow", markup=False)
            self._shown |= known
