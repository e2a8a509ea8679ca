"""The server of a folder, in a run of Flower's."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from secure_fl.deployment.server_folder import ServerFolder
from secure_fl.deployment.serving import largest_message, observed_server, serve, session_of
from secure_fl.engines.session.link import Link
from secure_fl.errors import SecureFLError
from secure_fl.federation.parties.party import failure_word
from secure_fl.files import write_json
from secure_fl.operations import logs

RUN = "flower-run.json"
"""In the server's folder: the last run, and the word with which it ended."""
_MORE = 60.0


class FailedRunError(Exception):
    """A federation that failed, by its word: Flower marks the run as failed, and keeps the word."""


def run_server(grid: Any, path: Path, run: str) -> None:
    """Serve until the federation is over.

    Args:
        grid: Flower's.
        path: the server's folder.
        run: Flower's number of the run.

    Raises:
        FailedRunError: the federation failed, or this server could not go on.
    """
    word = "unexpected"
    try:
        word = _serve(grid, ServerFolder.open(path), run)
    except SecureFLError as error:
        word = failure_word(error)
        logs.failed("failed", error)
    except Exception as error:  # what it says is nobody's in Flower's database
        logs.failed("failed", error)
    finally:
        write_json(path / RUN, {"run": run, "word": word})
    if word:
        raise FailedRunError(word)


def _serve(grid: Any, folder: ServerFolder, run: str) -> str:
    with ExitStack() as stack:
        watch = stack.enter_context(observed_server(folder))
        return serve(folder, _link(grid, folder, run, stack), watch)


def _link(grid: Any, folder: ServerFolder, run: str, stack: ExitStack) -> Link:
    """By the federation's transport; `stack` closes it."""
    settings = folder.settings
    if settings.transport == "messages":
        from secure_fl.engines.flower.grid import GridLink

        ttl = max(settings.deadlines.train, settings.deadlines.answer) + _MORE
        word, most = f"{settings.name}-{run}", largest_message(folder)
        link: Link = GridLink(grid, folder.seats, word, ttl=ttl, most=most)
        stack.callback(link.close)
        return link
    from secure_fl.engines.flower.calling import Calls

    session = session_of(folder)
    stack.callback(session.close)
    stack.enter_context(Calls(grid, folder.seats, settings.name))
    return session
