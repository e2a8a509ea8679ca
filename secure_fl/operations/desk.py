"""Everything that operators see of one process, set up and taken down."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from secure_fl.engines.session.tls import TlsFiles
from secure_fl.errors import FileError
from secure_fl.operations import logs
from secure_fl.operations.lines import Lines
from secure_fl.operations.probes import Health, Probes
from secure_fl.operations.settings import OperationsSettings
from secure_fl.operations.view import Observer
from secure_fl.operations.watching import Watching, watch_of

if TYPE_CHECKING:
    from secure_fl.operations.status_page import StatusPage

PAGE = "status.html"


@contextmanager
def observed(
    folder: Path,
    record: Path | None = None,
    *,
    role: str,
    name: str,
    tls: TlsFiles | None = None,
    settings: OperationsSettings | None = None,
) -> Iterator[Watching]:
    """The watch for a driver, while it runs.

    Args:
        folder: of the server or the site; its `operations.toml` says what is shown.
        record: folder with the transcript; None where `Watching.follow` will say it.
        role: `server` or `site`.
        name: of it.
        tls: of this end, whose certificates' days are shown.
        settings: in the place of that file.

    Raises:
        ConfigError: the file is not of this kind.
        DependencyError: what it asks for needs an extra that is not installed.
        FileError: the log or the page cannot be written, or the port is taken.
    """
    shown = settings or OperationsSettings.of(folder)
    with ExitStack() as stack:
        path = folder / shown.log if shown.log else None
        stack.callback(logs.configure(shown.logs == "json", path, shown.level))
        watch, health = watch_of(record, role=role, name=name), Health(shown.quiet)
        found: list[Observer] = [Lines(tls), health]
        found += _traced(stack, shown, watch)
        found += _paged(stack, shown, watch, folder, tls)
        found += _served(stack, shown, watch, health, tls)
        watch.observers = tuple(found)
        logs.say("began", role=role, site=name)
        yield watch


def _traced(stack: ExitStack, shown: OperationsSettings, watch: Watching) -> Iterator[Observer]:
    """Traces, where there is somewhere to send them."""
    if shown.traces:
        from secure_fl.operations.traces import Traces

        traces = Traces(shown.traces, watch.view.role, watch.view.name)
        stack.callback(traces.close)
        yield traces


def _paged(
    stack: ExitStack,
    shown: OperationsSettings,
    watch: Watching,
    folder: Path,
    tls: TlsFiles | None,
) -> Iterator[Observer]:
    """The status page, where it is asked for or can be had."""
    if shown.page == "on" or (shown.page == "auto" and find_spec("jinja2")):
        from secure_fl.operations.status_page import StatusPage

        page = StatusPage(folder / PAGE, watch.view, tls)
        stack.callback(_last_page, page, watch)
        yield page


def _last_page(page: StatusPage, watch: Watching) -> None:
    try:
        page.write(watch.view, ends=True)
    except FileError as error:
        logs.failed("page-not-written", error)


def _served(
    stack: ExitStack,
    shown: OperationsSettings,
    watch: Watching,
    health: Health,
    tls: TlsFiles | None,
) -> Iterator[Observer]:
    """The port of metrics and probes, where one is named; probes alone where prometheus-client is
    not installed.
    """
    if not shown.port:
        return
    page = None
    if find_spec("prometheus_client"):
        from secure_fl.operations.metrics import Metrics

        metrics = Metrics(watch.view, tls=tls, age=lambda: health.age)
        page = metrics.page
        yield metrics
    else:
        logs.say("no-metrics", logging.WARNING, reason="prometheus-client-missing")
    probes = Probes(health, page, host=shown.host, port=shown.port)
    stack.callback(probes.close)
