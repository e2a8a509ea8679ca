"""Live progress of a run: bars on a terminal, one line a round elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, track

from secure_fl.report.units import clock
from secure_fl.run import Callback

if TYPE_CHECKING:
    from secure_fl.federation.phase import RoundRecord

Step = TypeVar("Step")
_LOG_SECONDS = 3.0


class PlainProgress(Callback):
    """`pretrain 3/10  loss -1.21  16 clients  2.4 s  left 0:17`, one line a round."""

    def __init__(self, console: Console) -> None:
        self._console, self._began, self._rounds, self._done = console, 0.0, 0, 0

    def on_phase(self, name: str, rounds: int, done: int) -> None:
        self._began, self._rounds, self._done = time.monotonic(), rounds, done

    def on_round(self, record: RoundRecord) -> None:
        made = record.round - self._done
        left = (time.monotonic() - self._began) / made * (self._rounds - record.round)
        took = [] if record.seconds is None else [f"{record.seconds:.1f} s"]
        parts = [f"{record.phase} {record.round}/{self._rounds}", *facts(record), *took]
        if self._rounds > 1:
            parts.append(f"left {clock(left)}")
        self._console.print("  ".join(parts), markup=False)
        _alert(self._console, record)


class LiveProgress(Callback):
    """A bar for each phase and, under it, one for the clients of the round."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[facts]}"),
        )
        self._progress = Progress(*columns, console=console)
        self._phase: TaskID | None = None
        self._clients: TaskID | None = None

    def __enter__(self) -> LiveProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._drop_clients()
        self._progress.stop()

    def on_phase(self, name: str, rounds: int, done: int) -> None:
        self._drop_clients()
        self._phase = self._progress.add_task(name, total=rounds, completed=done, facts="")

    def on_client(self, done: int, total: int) -> None:
        if self._clients is None:
            self._clients = self._progress.add_task("  clients", total=total, facts="")
        self._progress.update(self._clients, completed=done, total=total)

    def on_round(self, record: RoundRecord) -> None:
        if self._phase is not None:
            self._progress.update(self._phase, completed=record.round, facts="  ".join(facts(record)))
        _alert(self._progress.console, record)

    def _drop_clients(self) -> None:
        """The clients' bar belongs to one phase; a phase that ended early shows as complete."""
        if self._clients is not None:
            self._progress.remove_task(self._clients)
            self._clients = None
        if self._phase is not None:
            task = next(task for task in self._progress.tasks if task.id == self._phase)
            self._progress.update(self._phase, total=task.completed)


def steps(said: str, items: Iterable[Step], total: int) -> Iterator[Step]:
    """The items as they come, while a bar on the terminal, or a line now and then in a log, says how many there have been. On standard error."""
    from secure_fl.cli.console import err

    if err.is_terminal:
        yield from track(items, said, total=total, console=err, transient=True)
        return
    told = time.monotonic()
    for number, item in enumerate(items, 1):
        if time.monotonic() - told > _LOG_SECONDS:
            told = time.monotonic()
            err.print(f"{said}: {number} of {total}", markup=False)
        yield item


def facts(record: RoundRecord) -> list[str]:
    """What a reader wants of a round, in a few words each."""
    metrics: dict[str, Any] = record.metrics
    said = []
    if metrics.get("loss") is not None:
        said.append(f"loss {metrics['loss']:.3f}")
    if metrics.get("accuracy") is not None:
        said.append(f"accuracy {metrics['accuracy']:.3f}")
    if "pools" in metrics:
        said.append("pools " + "/".join(map(str, metrics["pools"]["counts"])))
    if "counts" in metrics:
        said.append("groups " + "/".join(map(str, metrics["counts"])))
    if "pretrained" in metrics and "knn" in metrics["pretrained"]:
        said.append(f"kNN {metrics['initial']['knn']:.3f} -> {metrics['pretrained']['knn']:.3f}")
    if "privacy" in metrics:
        said.append(f"ε {metrics['privacy']['epsilon']:.2f}")
    if record.clients:
        said.append(f"{record.clients} clients")
    return said


def _alert(console: Console, record: RoundRecord) -> None:
    alert = record.metrics.get("pools", {}).get("alert")
    if alert:
        console.print(f"warning: {alert}", style="yellow", markup=False)
