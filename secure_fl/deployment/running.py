"""Starting, stopping and looking at the server of a folder, without Flower."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from secure_fl.deployment.presence import Lines, present
from secure_fl.deployment.server_folder import ServerFolder
from secure_fl.deployment.serving import observed_server, serve, session_of
from secure_fl.engines.flower.processes import started
from secure_fl.engines.session.link import Watches
from secure_fl.errors import DeploymentError, RunFolderError
from secure_fl.files import held, is_file
from secure_fl.operations.settings import FILE, OperationsSettings
from secure_fl.operations.watching import Watching

LOG = "server.log"
_GLANCE = 0.1


def to_start(path: Path, *, anew: bool = False) -> ServerFolder:
    """The folder, of the federation that `start` begins or goes on with.

    Args:
        path: the server's folder.
        anew: leave one that is under way under an older plan.

    Raises:
        DeploymentError: it is over and there is no newer plan, or another is under way.
        SecureFLError: as of `ServerFolder.open`.
    """
    newest = ServerFolder.open(path, newest=True)
    under_way = ServerFolder.open(path)
    if not under_way.begun:
        return newest
    progress = under_way.progress()
    outcome = "" if progress is None else progress.outcome
    same = under_way.opened.digest == newest.opened.digest
    if same and outcome:
        remedy = (
            "sign another plan (`secure-fl federate sign DIR --again`; `--after RECORD` where one "
            "was closed and goes on), copy it here, and start again"
        )
        raise DeploymentError(f"is over: {outcome}", "federation", _named(newest), remedy)
    if not same and not outcome and not anew:
        problem = "one is under way under an older plan"
        remedy = "go on with `secure-fl federate resume`, or leave it with `start --new`"
        raise DeploymentError(problem, "federation", _named(under_way), remedy)
    return newest


def to_resume(path: Path, *, late: bool = False) -> ServerFolder:
    """The folder, of the federation that is under way.

    Args:
        path: the server's folder.
        late: also one that is over, for sites that have not heard of its end.

    Raises:
        DeploymentError: none was begun, or it is over.
        SecureFLError: as of `ServerFolder.open`.
    """
    folder = ServerFolder.open(path)
    progress = folder.progress() if folder.begun else None
    if not folder.begun:
        remedy = "begin it: `secure-fl federate start`"
        raise DeploymentError("none was begun", "federation", _named(folder), remedy)
    if progress is not None and progress.over and not late:
        remedy = (
            "begin another: `federate sign DIR --again`, then `start`; or answer late sites: "
            "`federate resume DIR --late`"
        )
        raise DeploymentError(f"is over: {progress.outcome}", "federation", _named(folder), remedy)
    return folder


def run_direct(folder: ServerFolder, say: Callable[[str], None], until: Callable[[], bool]) -> str:
    """Run the server in this process until its federation is over; as `serve`.

    Args:
        folder: of the server.
        say: is told in lines how far it is.
        until: whether to stop.

    Raises:
        DeploymentError: another server has the folder.
        ConfigError: its address cannot be listened on.
        SecureFLError: as of `serve`.
    """
    with alone(folder), _observed(folder) as watch:
        link = session_of(folder)
        try:
            say(f"listens on {folder.settings.server.bind}, port {link.port}")
            lines = Lines(say, folder.program.names)
            return serve(folder, link, Watches(watch, lines), until=until)
        finally:
            link.close()


def _observed(folder: ServerFolder) -> AbstractContextManager[Watching]:
    """What operators see; without an `operations.toml` lines are for people, and say less."""
    told = is_file(folder.path / FILE)
    return observed_server(folder, None if told else OperationsSettings(level="warning"))


@contextmanager
def alone(folder: ServerFolder) -> Iterator[None]:
    """Hold the folder. Raises DeploymentError: somebody else does."""
    with ExitStack() as stack:
        try:
            stack.enter_context(held(folder.path))
        except RunFolderError as error:
            remedy = "look at it with `secure-fl federate status`, end it with `federate stop`"
            raise DeploymentError(error.problem, "server", str(folder.path), remedy) from None
        yield


def detach(folder: ServerFolder, arguments: Sequence[str], seconds: float = 180.0) -> int:
    """Run a command of this software in the background; the number of its process, once a server
    runs there.

    Args:
        folder: of the server.
        arguments: of `secure-fl`, which runs it in the foreground.
        seconds: to wait for that.

    Raises:
        DeploymentError: it ended before that; its log says why.
    """
    log = folder.path / LOG
    child = started([sys.executable, "-m", "secure_fl.cli.main", *arguments], log)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = present(folder.path, folder.record)
        if found is not None and found.process == child.pid:
            return child.pid
        if child.poll() is not None:
            break
        time.sleep(_GLANCE)
    remedy = f"read the end of {log}"
    raise DeploymentError("no server came up", "federate start", child.poll(), remedy)


def stop_direct(folder: ServerFolder, seconds: float = 30.0) -> bool:
    """End the server that runs in this folder, and wait until it has; whether one did.

    Raises:
        DeploymentError: it runs on another machine, is another user's, or does not end.
    """
    found = present(folder.path, folder.record)
    if found is None:
        return False
    where = f"process {found.process} on {found.host}"
    if found.host != socket.gethostname():
        remedy = "stop it there"
        raise DeploymentError("runs on another machine", "server", where, remedy)
    try:
        os.kill(found.process, signal.SIGTERM)
    except ProcessLookupError:
        return False
    except PermissionError:
        remedy = f"stop it as {found.user}"
        raise DeploymentError("is another user's", "server", where, remedy) from None
    until = time.monotonic() + seconds
    while present(folder.path, folder.record) is not None:
        if time.monotonic() > until:
            remedy = "wait until it has written its state, or kill it: it goes on from its folder"
            raise DeploymentError("does not end", "server", where, remedy)
        time.sleep(_GLANCE)
    return True


def _named(folder: ServerFolder) -> str:
    return f"{folder.roster.federation}, plan {folder.opened.digest.hex()[:16]}"
