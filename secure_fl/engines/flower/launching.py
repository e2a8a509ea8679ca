"""Flower's two programs: the SuperLink, which enrols nodes and starts runs, and a site's SuperNode.

Each has a folder of its own (`superlink.log`; `superlink.json` with the process' number; `home/`
for Flower; `programs/`, see `executor`), is found again after a restart of who started it, and
ends only what it started.

Guarantee: nothing is asked of the internet (no telemetry, no news, no packages); what is shipped to
a machine is checked there before any of it runs. No exit status is believed: what became of a run
is what the SuperLink says of it.
Assumes: the server's certificate names the address on which the SuperLink listens, and 127.0.0.1
where that is every address.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from secure_fl.engines.flower.bundle import app_bytes, app_digest
from secure_fl.engines.flower.control import QUIET, Control
from secure_fl.engines.flower.executor import command, write_commands
from secure_fl.engines.flower.processes import Program
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.errors import EngineError, need
from secure_fl.files import make_folder

SERVER_FOLDER = "SECURE_FL_SERVER"
"""In the environment of the server app: the server's folder."""
_ANY = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 # compared with, not listened on
_UP, _GLANCE = 90.0, 0.2


class Listening(Protocol):
    """Where a SuperLink is, as in `SuperLinkSettings`."""

    host: str
    port: int
    bind: str


class SuperLink:
    """The server's side of Flower.

    Args:
        folder: its own; made when missing.
        settings: where it listens.
        tls: the server's certificate.
        server: the server's folder, in the server app's environment as `SECURE_FL_SERVER`; the one
            around `folder` where none is given.
        app: the bundle that runs; this version's where none is given.
    """

    def __init__(
        self,
        folder: Path,
        settings: Listening,
        tls: TlsFiles,
        *,
        server: Path | None = None,
        app: bytes | None = None,
    ) -> None:
        self._folder, self._settings, self._tls = folder.resolve(), settings, tls
        self._server = (server or folder.resolve().parent).resolve()
        self._program, self._app = Program(self._folder, "superlink"), app or app_bytes()
        own = _ANY.get(settings.bind, settings.bind)
        self._address = f"{own}:{settings.port}"
        remedy = f"see whether it runs, and what {self.log} says"
        self._control = Control(self._address, tls.authority, remedy)

    @property
    def log(self) -> Path:
        """What it says."""
        return self._program.log

    @property
    def running(self) -> bool:
        """Whether its process lives; see `healthy`."""
        return self._program.running

    @property
    def healthy(self) -> bool:
        """Whether it answers, within a few seconds."""
        return _answers(self._address, self._tls.authority, 5.0)

    def start(self, seconds: float = _UP) -> None:
        """Start it, unless it runs, and wait until it answers. Runs and enrolled nodes of an
        earlier one are in its database; runs that were under way have failed.

        Raises:
            DependencyError: Flower is not installed.
            EngineError: it does not come up.
            FileError: its folder cannot be written.
        """
        need("flwr", "flower", "launch", "flower")
        if not self.running:
            settings, tls = self._settings, self._tls
            arguments = {
                "--ssl-ca-certfile": tls.authority.resolve(),
                "--ssl-certfile": tls.certificate.resolve(),
                "--ssl-keyfile": tls.key.resolve(),
                "--host": settings.bind,
                "--port": settings.port,
                "--isolation": "subprocess",
                "--database": self._folder / "state.db",
            }
            digest = hashlib.sha256(self._app).hexdigest()
            line = [*command("superlink", digest), *_flat(arguments)]
            line += ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
            write_commands(self._folder / "programs", digest, site=False)
            more = {SERVER_FOLDER: str(self._server)}
            self._program.start(line, environment(self._folder) | more)
        _wait(self._program, lambda: self.healthy, seconds, "superlink", self._address)

    def stop(self) -> None:
        """End it, and the app that it started."""
        self._program.stop()

    def register(self, node_public_key: Path) -> None:
        """Enrol a site's node, by a file with its public key; nothing is done where it is. Raises
        EngineError: no answer, or a refusal.
        """
        self._control.enrol(node_public_key, let_in=True)

    def unregister(self, node_public_key: Path) -> None:
        """Strike a site's node off: it is no longer let in. Raises EngineError: as above."""
        self._control.enrol(node_public_key, let_in=False)

    def submit(self) -> str:
        """Start a run of the federation's app; its number. Raises EngineError: as above."""
        return self._control.submit(self._app)

    def state(self, run_id: str) -> str:
        """How a run is: `pending`, `starting`, `running`, or `finished:completed`,
        `finished:failed`, `finished:stopped`. Raises EngineError: no answer, or no such run.
        """
        return self._control.state(run_id)

    def halt(self, run_id: str) -> None:
        """End a run; its server goes on from its folder when another run is started. Raises
        EngineError: no answer, or no such run.
        """
        self._control.halt(run_id)


class SuperNode:
    """A site's side of Flower: it dials out to the SuperLink, and nobody dials in.

    Args:
        folder: its own; made when missing.
        superlink: name or address, and port.
        authority: certificates that are trusted, the federation's own alone.
        key: private key of this node, as OpenSSH writes it, of an elliptic curve.
        site: the site's folder, where the door of its process is.
        app: SHA-256 in hex of the app that may run here; this version's where none is given.
    """

    def __init__(
        self,
        folder: Path,
        superlink: str,
        authority: Path,
        key: Path,
        site: Path,
        *,
        app: str | None = None,
    ) -> None:
        self._folder, self._superlink = folder.resolve(), superlink
        self._authority, self._key, self._site = authority.resolve(), key.resolve(), site.resolve()
        self._app = app or app_digest()
        self._program = Program(self._folder, "supernode")

    @property
    def log(self) -> Path:
        """What it says."""
        return self._program.log

    @property
    def running(self) -> bool:
        """Whether its process lives; it dials for as long as it does."""
        return self._program.running

    def start(self, seconds: float = _UP) -> None:
        """Start it, unless it runs, and wait until its own port answers; whether it reaches the
        SuperLink its log tells, for it tries for ever.

        Raises:
            DependencyError: Flower is not installed.
            EngineError: it does not come up.
            FileError: its folder cannot be written.
        """
        need("flwr", "flower", "launch", "flower")
        if self.running:
            return
        if "'" in str(self._site):
            remedy = "move the site's folder to a path without it"
            raise EngineError("has a quotation mark", "site", str(self._site), remedy)
        port = free_port()
        arguments = {
            "--root-certificates": self._authority,
            "--superlink": self._superlink,
            "--auth-supernode-private-key": self._key,
            "--host": "127.0.0.1",
            "--port": port,
            "--isolation": "subprocess",
            "--node-config": f"site='{self._site}'",
        }
        line = [*command("supernode", self._app), *_flat(arguments)]
        write_commands(self._folder / "programs", self._app, site=True)
        self._program.start(line, environment(self._folder, proxies=True))
        _wait(self._program, lambda: _open(port), seconds, "supernode", f"127.0.0.1:{port}")

    def stop(self) -> None:
        """End it, and the app that it started; the site's own process goes on."""
        self._program.stop()


def environment(folder: Path, *, proxies: bool = False) -> dict[str, str]:
    """For Flower's programs: this process', but that they ask nobody outside.

    Args:
        folder: whose `home` is Flower's, and whose `programs` come first.
        proxies: keep the way out through a proxy; never used for this machine itself.
    """
    make_folder(folder / "home", tighten=True)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FLWR_") and (proxies or not name.lower().endswith("_proxy"))
    }
    path = os.pathsep.join((str(folder / "programs"), os.environ.get("PATH", os.defpath)))
    return {
        **kept,
        **QUIET,
        "PATH": path,
        "FLWR_HOME": str(folder / "home"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "UV_OFFLINE": "1",
        # whose word for who asks is taken: else strangers could say that they are this machine
        "FORWARDED_ALLOW_IPS": "127.0.0.1",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
    }


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _flat(arguments: Mapping[str, object]) -> list[str]:
    return [str(part) for pair in arguments.items() for part in pair]


def _wait(
    program: Program, ready: Callable[[], bool], seconds: float, name: str, address: str
) -> None:
    """Until a program answers. Raises EngineError: it has ended, or does not in time."""
    until = time.monotonic() + seconds
    while not (program.running and ready()):
        late = time.monotonic() > until
        if late or not program.running:
            problem = "does not answer in time" if late else "ended while it started"
            remedy = f"read the end of {program.log}; see that the port is free"
            raise EngineError(problem, name, address, remedy)
        time.sleep(_GLANCE)


def _answers(address: str, authority: Path, seconds: float) -> bool:
    """Whether a SuperLink says it is well. Raises EngineError: its certificate is not good."""
    context = ssl.create_default_context(cafile=str(authority))
    connection = http.client.HTTPSConnection(address, timeout=seconds, context=context)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except ssl.SSLCertVerificationError as error:
        remedy = "issue the server's certificate to this address too, or renew it"
        raise EngineError(error.verify_message, "certificate", address, remedy) from None
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _open(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0
