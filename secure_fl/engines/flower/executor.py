"""Stands in front of all that Flower's SuperLink and SuperNode start, so that what is shipped to a
machine is checked before any of it runs.

Flower finds the programs it starts by PATH. `write_commands` fills a folder with one of each name,
which is put in front there; each comes to `main`.

Guarantee: a bundle whose SHA-256 is not the pinned one is neither unpacked nor imported; at a site
nothing of any bundle is, for the app that is run there is the installed one. Programs for which
the federation has no use (agents, models, connectors) do not run. A site's error leaves it as a
number and a word. A SuperLink takes orders (to start and stop runs, to enrol nodes, to launch apps)
from its own machine alone; from elsewhere it serves nodes, which it knows by their keys, and keeps
no more of what one address sends than `MOST_BODIES`.
Assumes: Flower 1.42, whose names are replaced here; another version does not start.
Not covered: other users of the same machine, who can disturb a run, but read and sign nothing.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from importlib import import_module
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from secure_fl.engines.flower.processes import keep_short
from secure_fl.errors import DependencyError
from secure_fl.files import make_folder, write_atomically

VERSION = "1.42"
REFUSED_APP = "refused-app"
PROGRAMS = (
    "flwr-agentapp",
    "flwr-clientapp",
    "flwr-connector",
    "flwr-model",
    "flwr-serverapp",
    "flwr-simulation",
)
"""All that Flower starts for a task."""
MOST_BODIES = 1 << 28
"""Bytes that one address sends a SuperLink at a time; a node sends large messages in small pieces.
"""
_SITE = {"flwr-clientapp": "client", "flwr-agentapp": "client", "flower-superexec": "superexec"}
_SERVER = {"flwr-serverapp": "server", "flower-superexec": "superexec"}
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


class RefusedAppError(Exception):
    """A bundle that is not the pinned one."""


def command(kind: str, app: str) -> list[str]:
    """What starts a program; a script adds its arguments."""
    return [sys.executable, "-P", "-m", __name__, kind, app]


def write_commands(folder: Path, app: str, *, site: bool) -> None:
    """Programs for PATH. Raises FileError: one cannot be written.

    Args:
        folder: for them alone.
        app: SHA-256 in hex of the bundle that may run.
        site: whether for a site's node, else for the SuperLink.
    """
    make_folder(folder, tighten=True)
    kinds = dict.fromkeys(PROGRAMS, "refuse") | (_SITE if site else _SERVER)
    for name, kind in kinds.items():
        line = shlex.join(command(kind, app))
        write_atomically(folder / name, f'#!/bin/sh\nexec {line} "$@"\n', mode=0o700)


def check_version() -> None:
    """Raises DependencyError: this Flower is not the one whose programs are guarded here."""
    found = version("flwr")
    if found.rpartition(".")[0] != VERSION:
        remedy = "pip install 'secure-fl[flower]'"
        raise DependencyError(f"needs flwr {VERSION}", "flwr", found, remedy)


def main(arguments: Sequence[str]) -> None:
    """Run one program of Flower's, guarded.

    Args:
        arguments: its kind, the pinned SHA-256, and the arguments that Flower gave.
    """
    kind, app, *rest = arguments
    check_version()
    sys.argv = [kind, *rest]
    runs: dict[str, Callable[[str], None]] = {
        "client": _client,
        "server": _server,
        "superexec": lambda _: import_module("flwr.supercore.cli").flower_superexec(),
        "superlink": _superlink,
        "supernode": lambda _: import_module("flwr.supernode.cli").flower_supernode(),
    }
    if kind not in runs:
        sys.exit("this program is not part of a federation")
    if kind in ("superlink", "supernode"):
        keep_short(kind)
    runs[kind](app)


def _client(app: str) -> None:
    """The installed client app, for a run of the pinned bundle."""
    module = import_module("flwr.supernode.runtime.run_clientapp")

    def load(*_: object, **__: object) -> Callable[..., object]:
        return lambda *_: import_module("secure_fl.deployment.flower.client_app").app

    error = module.Error

    def word(code: int, reason: str | None = None) -> object:
        return error(code, REFUSED_APP if REFUSED_APP in (reason or "") else "failed")

    _replace(module, "install_from_fab", lambda data, **_: check_app(data, app))
    _replace(module, "get_load_client_app_fn", load)
    _replace(module, "Error", word)
    import_module("flwr.supernode.cli").flwr_clientapp()


def _server(app: str) -> None:
    """The server app of the pinned bundle."""
    module = import_module("flwr.superlink.runtime.run_serverapp")
    install = module.install_from_fab

    def checked(data: bytes, **options: object) -> object:
        check_app(data, app)
        return install(data, **options)

    _replace(module, "install_from_fab", checked)
    import_module("flwr.superlink.cli").flwr_serverapp()


def _superlink(_: str) -> None:
    """A SuperLink that takes orders from its own machine."""
    middleware = import_module("starlette.middleware").Middleware
    module = import_module("flwr.superlink.extensions")
    _replace(module, "get_middleware", lambda: (middleware(OwnMachine),))
    import_module("flwr.superlink.cli").flower_superlink()


def check_app(data: bytes, app: str) -> None:
    """Raises RefusedAppError: a bundle is not the pinned one."""
    if hashlib.sha256(data).hexdigest() != app:
        raise RefusedAppError(REFUSED_APP)


def _replace(module: Any, name: str, value: object) -> None:
    """Put ours in place of a name that must be there."""
    getattr(module, name)
    setattr(module, name, value)


class OwnMachine:
    """Lets through to a SuperLink what nodes ask, and everything from its own machine. Of any other
    address no more is read at a time than `MOST_BODIES`: Flower keeps all of what is sent before it
    looks who sends.

    Args:
        app: what answers.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app, self._taken = app, Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or is_here(scope):
            await self._app(scope, receive, send)
        elif may_ask(scope):
            await self._bounded(scope, receive, send)
        else:
            await _say(send, 403, b"from the server's own machine only")

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        who, taken, answered, full = scope["client"][0], 0, False, False

        async def counted() -> Scope:
            nonlocal taken, full
            message = await receive()
            size = len(message.get("body", b""))
            taken, self._taken[who] = taken + size, self._taken[who] + size
            full = full or self._taken[who] > MOST_BODIES
            return {"type": "http.disconnect"} if full else message

        async def noted(message: Scope) -> None:
            nonlocal answered
            if answered or not full:  # what is made of half a request is no answer
                answered = True
                await send(message)

        try:
            await self._app(scope, counted, noted)
        except Exception:
            if not full:
                raise
        finally:
            self._taken[who] -= taken
            self._taken += Counter()  # without those that have nothing
        if full and not answered:
            await _say(send, 413, b"too much at a time")


async def _say(send: Send, status: int, why: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": why})


def may_ask(scope: Scope) -> bool:
    """Whether a request is a node's, or from this machine."""
    return scope["path"] == "/health" or scope["path"].startswith("/v1/fleet/") or is_here(scope)


def is_here(scope: Scope) -> bool:
    """Whether a request is from this machine."""
    client, server = scope["client"][0], scope["server"][0]
    return bool(client == server or ip_address(client).is_loopback)


if __name__ == "__main__":
    main(sys.argv[1:])
