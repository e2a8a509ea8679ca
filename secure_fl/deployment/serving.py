"""Runs the server of a folder to the end of its federation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from secure_fl.deployment.presence import Presence
from secure_fl.deployment.seats import Seats
from secure_fl.deployment.server_folder import SEATS, ServerFolder
from secure_fl.deployment.sizes import largest_of
from secure_fl.engines.session.driver import Driver
from secure_fl.engines.session.link import Link, Watch, Watches
from secure_fl.federation.parties.party import failure_word
from secure_fl.operations.desk import observed
from secure_fl.operations.settings import OperationsSettings
from secure_fl.operations.watching import Watching

if TYPE_CHECKING:
    from secure_fl.engines.session.serving import SessionServer

INTERRUPTED = "interrupted"


def serve(
    folder: ServerFolder, link: Link, watch: Watch, *, until: Callable[[], bool] = lambda: False
) -> str:
    """Run the server until its federation is over, and late sites have had time to hear of it.

    Args:
        folder: the server's.
        link: to the sites; whoever made it closes it.
        watch: is told what happens.
        until: asked now and then: whether to stop before that.

    Returns:
        Empty where the federation came to its end; `INTERRUPTED` where `until` said so before; else
        in one word why it failed.

    Raises:
        RunFolderError: another server has the folder, or it is damaged.
        SecureFLError: as of `ServerFolder.party`, and of a server that cannot write its record.
    """
    party = folder.party()
    party.revoked, party.closing = Seats(folder.path / SEATS).away, folder.closing
    presence = Presence(folder.path)
    try:
        driver = Driver([party], link, watch=Watches(watch, presence))
        driver.run(until=until, linger=folder.settings.deadlines.linger)
        return failure_word(party.failed) if party.over else INTERRUPTED
    finally:
        presence.close()
        party.folder.close()


def observed_server(
    folder: ServerFolder, settings: OperationsSettings | None = None
) -> AbstractContextManager[Watching]:
    """What operators see of the server, while it runs.

    Args:
        settings: in the place of the folder's `operations.toml`.
    """
    return observed(
        folder.path,
        folder.record,
        role="server",
        name=folder.identity.name,
        tls=folder.tls,
        settings=settings,
    )


def session_of(folder: ServerFolder) -> SessionServer:
    """The server's end of a session, which listens where its settings say; whoever made it closes
    it. Raises ConfigError: it cannot; FileError, SecureSumError: as of `TlsFiles.read`.
    """
    from secure_fl.engines.session.serving import SessionServer

    settings = folder.settings
    return SessionServer(
        settings.server.bind,
        settings.server.port,
        folder.tls,
        folder.admitted,
        most=largest_message(folder),
        federation=settings.name,
    )


def largest_message(folder: ServerFolder) -> int:
    """Bytes that no message of this federation is longer than, rounded up to MiB."""
    return largest_of(folder.opened, folder.plan, folder.roster, folder.program)
