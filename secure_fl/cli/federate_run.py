"""`secure-fl federate start`, `resume`, `close`, `stop`, `status`: the server's machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_fl.cli.console import Sheet, err, out
from secure_fl.cli.exits import FAILED, INTERRUPTED, UNREACHABLE, refusing
from secure_fl.cli.signals import noted_signals
from secure_fl.quantities import counted

if TYPE_CHECKING:
    from secure_fl.deployment.server_folder import ServerFolder
    from secure_fl.deployment.status import Status

_Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="The federation's folder, or its folder `server`.")
]
_Detach = Annotated[bool, typer.Option("--detach", help="Go on in the background; `stop` ends it.")]


def start(
    folder: _Folder,
    anew: Annotated[
        bool, typer.Option("--new", help="Leave one that is under way under an older plan.")
    ] = False,
    detach: _Detach = False,
) -> None:
    """Run the server until the federation is over; its outcome is the exit code.

    It begins the newest plan that was signed, or goes on where this plan's federation is. With
    launch = "direct" the server runs in this process and sites dial it; with "flower" Flower's
    SuperLink is started where it does not run, sites' nodes are enrolled, and a run is submitted
    and followed. A line is printed for every round.

    Exits with 0 where the federation came to its end, 1 where there is nothing to start or another
    server runs, 2 where something cannot be used, 3 where the federation failed (the reason is
    printed), 130 where it was interrupted (`resume` goes on).

    For example: secure-fl federate start fl
    """
    from secure_fl.deployment.running import to_start

    with refusing():
        chosen = to_start(server_of(folder), anew=anew)
        arguments = ["federate", "start", str(folder.resolve()), *(["--new"] if anew else [])]
        _run(chosen, arguments, detach=detach)


def resume(
    folder: _Folder,
    late: Annotated[
        bool, typer.Option("--late", help="Answer late sites, though it is over.")
    ] = False,
    detach: _Detach = False,
) -> None:
    """Go on with the federation that is under way: after a kill, a power cut, a stop.

    It goes on in the same round, under the plan that it began with. One that is over is refused,
    with its outcome. Exit codes are those of `start`.

    For example: secure-fl federate resume fl
    """
    from secure_fl.deployment.running import to_resume

    with refusing():
        chosen = to_resume(server_of(folder), late=late)
        arguments = ["federate", "resume", str(folder.resolve()), *(["--late"] if late else [])]
        _run(chosen, arguments, detach=detach)


def close(folder: _Folder) -> None:
    """End the federation at the end of the round that runs, so that another goes on from there.

    For a site that joins between rounds: when the server has ended, `secure-fl federate sign DIR
    CARD --after RECORD` signs the plan that goes on, of all sites. A round that others cannot join
    in, since its answers stand still, is not the last; one that fails ends the federation as ever.
    Exits with 1 where none is under way.

    For example: secure-fl federate close fl
    """
    from secure_fl.deployment.running import to_resume

    with refusing():
        opened = to_resume(server_of(folder))
        opened.close()
    out.print("it ends with the round that runs, or as soon after it as others can join")
    out.print(_to_sign(opened.record))


def stop(folder: _Folder) -> None:
    """End the server that runs, and with Flower the SuperLink that `start` started; nothing else.

    Everything it needs to go on is on the disk. Exits with 4 where nothing runs.

    For example: secure-fl federate stop fl
    """
    from secure_fl.deployment.running import stop_direct
    from secure_fl.deployment.server_folder import ServerFolder

    with refusing():
        opened = ServerFolder.open(server_of(folder))
        if opened.settings.launch == "flower":
            from secure_fl.deployment.flower_run import stop_flower

            ended = stop_flower(opened)
        else:
            ended = stop_direct(opened)
    if not ended:
        err.print("nothing runs", style="yellow")
        raise typer.Exit(UNREACHABLE)
    progress = opened.progress()
    over = progress is not None and progress.over
    out.print("stopped" if over else "stopped; `secure-fl federate resume` goes on")


def status(
    folder: _Folder,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Say how far the federation is, who is there, and when certificates end.

    What it spends of privacy is each site's own to say (`secure-fl site status`). Exits with 0,
    with 3 where the federation failed, with 4 where one is under way and no server runs.

    For example: secure-fl federate status fl --json
    """
    from secure_fl.deployment.server_folder import ServerFolder
    from secure_fl.deployment.status import Status

    with refusing():
        found = Status.of(ServerFolder.open(server_of(folder)))
    if as_json:
        typer.echo(json.dumps(found.document(), indent=1))
    else:
        _show(found)
    if found.outcome not in ("", "done"):
        raise typer.Exit(FAILED)
    if found.under_way and found.server is None:
        raise typer.Exit(UNREACHABLE)


def server_of(folder: Path) -> Path:
    """The server's folder: the one named, or `server` in it. Raises DeploymentError: it was copied
    into the one that was there, which has the record of what was done.
    """
    from secure_fl.deployment.server_folder import SETTINGS
    from secure_fl.errors import DeploymentError
    from secure_fl.files import is_file

    inside = folder / "server"
    if inside.is_dir() and is_file(folder / SETTINGS):
        remedy = f"move what is in it to {folder}, file by file, and remove it"
        raise DeploymentError("was copied into another server's folder", "DIR", str(inside), remedy)
    return inside if inside.is_dir() else folder


def _to_sign(record: Path) -> str:
    """What comes after a federation that was closed."""
    return f"then: `secure-fl federate sign DIR CARD... --after {record}`"


def _run(folder: ServerFolder, arguments: list[str], *, detach: bool) -> None:
    from secure_fl.deployment import running

    if folder.settings.launch == "flower":
        from secure_fl.deployment.flower_run import follow_flower, start_flower

        start_flower(folder, _say)
        if detach:
            out.print("submitted; `secure-fl federate status` says how far it is")
            return
        with _stopping() as stopped:
            word = follow_flower(folder, _say, stopped)
    elif detach:
        process = running.detach(folder, arguments)
        out.print(
            f"the server runs in the background, process {process}; its log is "
            f"{folder.path / running.LOG}"
        )
        return
    else:
        with _stopping() as stopped:
            word = running.run_direct(folder, _say, stopped)
    _end_with(word)
    if folder.rounds_left:
        out.print(f"the federation was closed, and rounds are left; {_to_sign(folder.record)}")
    else:
        out.print("the federation is done", style="green")


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Gives what tells whether somebody asked this process to end, by a signal."""
    with noted_signals(lambda _: KeyboardInterrupt()) as asked:
        yield lambda: bool(asked)


def _end_with(word: str) -> None:
    """End a command that ran a federation: with its outcome. Raises typer.Exit."""
    from secure_fl.deployment.serving import INTERRUPTED as STOPPED

    if word == STOPPED:
        err.print("interrupted: `secure-fl federate resume` goes on", style="yellow")
        raise typer.Exit(INTERRUPTED)
    if word:
        err.print(f"the federation failed: {word}", style="red")
        raise typer.Exit(FAILED)


_say: Callable[[str], None] = out.print


def _show(found: Status) -> None:
    from secure_fl.report.tables import some

    told = found.document()
    state = "runs" if told["running"] else "does not run"
    out.print(f"{told['federation']}: roster revision {told['revision']}, plan {told['plan']}")
    if not told["begun"]:
        out.print("not begun: `secure-fl federate start`")
    elif told["outcome"]:
        closed = ", closed before its last round" if told["rounds_left"] else ""
        style = "red" if told["outcome"] != "done" else "green"
        out.print(f"over: {told['outcome']}{closed}", style=style)
    else:
        where = (
            f"{told['step'] or 'begins'}, {counted(told['rounds_done'], 'round')} of this step done"
        )
        stage = told["stage"] or "begins"
        out.print(f"under way: {where}, waits for {stage}; the server {state}")
    for phase, wait in told["waits"].items():
        out.print(f"waits since {wait['since']} for {phase} of {some(wait['parties'])}")
    for word in ("members", "silent", "declined"):
        if told[word]:
            out.print(f"{word}: {', '.join(told[word])}")
    rows = [
        [site, len(each["parties"]), _state(each), each["certificate_ends"]]
        for site, each in sorted(told["sites"].items())
    ]
    out.print(Sheet("sites", ["site", "parties", "state", "certificate ends"], rows))
    ends = [[who, each["ends"], each["days"]] for who, each in told["certificates"].items()]
    out.print(Sheet("the server's certificates", ["of", "ends", "days left"], ends))
    for each in told["refusals"]:
        out.print(
            f"refused: {each['phase']} of {each['sender']}, by {each['by']}: {each['reason']}"
        )


def _state(site: dict[str, object]) -> str:
    if site["revoked"]:
        return "revoked"
    return "connected" if site["connected"] else "not connected"
