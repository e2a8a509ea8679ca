"""Starting, following and stopping a federation that Flower launches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from secure_fl.deployment.flower.running import RUN
from secure_fl.deployment.presence import where_it_is
from secure_fl.deployment.progress import Progress
from secure_fl.deployment.running import alone, stop_direct
from secure_fl.deployment.server_folder import ServerFolder
from secure_fl.deployment.serving import INTERRUPTED
from secure_fl.engines.flower.launching import SuperLink
from secure_fl.errors import DeploymentError, EngineError
from secure_fl.files import PUBLIC, is_file, make_folder, read_json, write_atomically, write_json
from secure_fl.quantities import counted

_SUPERLINK, _SUBMITTED = "superlink", "submitted.json"
_GLANCE, _PATIENCE = 1.0, 30.0
_REMEDY = "start another run: `secure-fl federate resume`"


def superlink_of(folder: ServerFolder) -> SuperLink:
    """The SuperLink of a server's folder."""
    listens: Any = folder.settings.superlink
    return SuperLink(folder.path / _SUPERLINK, listens, folder.tls)


def start_flower(folder: ServerFolder, say: Callable[[str], None]) -> str:
    """Start the SuperLink where it does not run, enrol the sites' nodes, and submit a run; its
    number. The SuperLink goes on when the run is over.

    Args:
        folder: of the server.
        say: is told in lines what happens.

    Raises:
        DeploymentError: a run is under way, or somebody else has the folder.
        DependencyError: Flower is not installed.
        EngineError: the SuperLink does not come up, or does not answer.
    """
    link = superlink_of(folder)
    with alone(folder):
        running = link.running
        link.start()
        say("the SuperLink runs already" if running else f"the SuperLink is up, log {link.log}")
        before = _submitted(folder)
        if before and not _state(link, before).startswith("finished"):
            remedy = "look at it with `secure-fl federate status`, end it with `federate stop`"
            raise DeploymentError("a run is under way", "federation", before, remedy)
        _enrol(folder, link)
        folder.begin()
        run = link.submit()
        write_json(folder.path / _SUPERLINK / _SUBMITTED, {"run": run})
    say(f"submitted as Flower's run {run}")
    return run


def follow_flower(
    folder: ServerFolder, say: Callable[[str], None], until: Callable[[], bool]
) -> str:
    """Say how the submitted run gets on until it is over; as `serving.serve`, but a run that is
    interrupted here goes on.

    Raises:
        EngineError: the SuperLink does not answer any more.
    """
    link, run = superlink_of(folder), _submitted(folder)
    told: Progress | None = None
    while not until():
        state = _state(link, run)
        found = folder.progress()
        if found is not None and _shown(found) != _shown(told):
            told = found
            say(_line(found, folder.program.names))
        if state.startswith("finished"):
            return _outcome(folder, run, state)
        time.sleep(_GLANCE)
    return INTERRUPTED


def stop_flower(folder: ServerFolder) -> bool:
    """End the run, the server in it, and the SuperLink, if it was started here; whether it ran.

    Raises:
        DeploymentError: the server does not end.
    """
    link, run = superlink_of(folder), _submitted(folder)
    if not link.running:
        return False
    if run:
        try:
            if not link.state(run).startswith("finished"):
                link.halt(run)
        except EngineError:
            pass  # one that does not answer is ended all the same
    link.stop()
    stop_direct(folder)
    return True


def _enrol(folder: ServerFolder, link: SuperLink) -> None:
    """Every site's node, and none of a site that was revoked."""
    nodes = folder.path / _SUPERLINK / "nodes"
    make_folder(nodes)
    for site, seat in folder.seats().items():
        path = nodes / f"{site}.pub"
        write_atomically(path, seat.node, mode=PUBLIC)
        if seat.revoked:
            link.unregister(path)
        else:
            link.register(path)


def _submitted(folder: ServerFolder) -> str:
    """Flower's number of the last run; empty where there is none."""
    path = folder.path / _SUPERLINK / _SUBMITTED
    found = read_json(path, dict[str, str], "remove it") if is_file(path) else {}
    return found.get("run", "")


def _state(link: SuperLink, run: str) -> str:
    """How a run is; it is asked again for a while, since a SuperLink may be busy. Raises
    EngineError: no answer.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return link.state(run)
        except EngineError as error:
            if time.monotonic() > until or not link.running:
                raise EngineError(error.problem, error.field, error.value, _REMEDY) from None
            time.sleep(_GLANCE)


def _outcome(folder: ServerFolder, run: str, state: str) -> str:
    """What our own record says of a run that Flower says is over."""
    path = folder.path / RUN
    ended: dict[str, Any] = read_json(path, dict[str, str], "remove it") if is_file(path) else {}
    progress = folder.progress()
    if progress is not None and progress.over:
        return progress.failed
    word = ended.get("word", "") if ended.get("run") == run else ""
    return str(word or state)


def _shown(progress: Progress | None) -> tuple[object, ...]:
    return () if progress is None else (progress.over, progress.place, progress.number)


def _line(progress: Progress, names: tuple[str, ...]) -> str:
    at = (names, progress.place, progress.number)
    where = "over" if progress.over else where_it_is(*at)
    return f"{where}, {counted(len(progress.members), 'member')}"
