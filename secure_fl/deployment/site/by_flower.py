"""A site whose federation is launched by Flower: its SuperNode enrols the machine, and the app that
comes by it only says that it is time to begin.

Guarantee: no other app than the pinned one runs here; the app reaches this process by a door in the
site's folder, and holds neither data nor keys.
Assumes: what `SuperNode` and `Door` do.
Not covered: Flower's own programs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from secure_fl.deployment.flower.app import app_digest
from secure_fl.deployment.invitation import Invitation
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.site.ways import Outcome, session_link
from secure_fl.engines.flower.door import Door, DoorLink
from secure_fl.engines.flower.launching import SuperNode
from secure_fl.engines.session.link import Link
from secure_fl.errors import DeploymentError, EngineError
from secure_fl.operations import logs

_GLANCE, _UP, _AGAIN = 0.5, 30.0, 10.0
"""Seconds for a word of the app, for a SuperNode to come up, and until it is started again."""


class ByFlower:
    """See `Way`.

    Args:
        folder: of the site.
        invitation: that it has joined.
        names: of its parties.
        most: bytes of the longest message that the server may send.

    Raises:
        DeploymentError: the app of this installation is not the one that is pinned.
        EngineError: another process has the site's door.
    """

    def __init__(
        self, folder: SiteFolder, invitation: Invitation, names: tuple[str, ...], most: int
    ) -> None:
        self._most = most
        self._folder, self._settings, self._names = folder, invitation.settings, names
        pinned, here = folder.pins.app, app_digest()
        if pinned != here:
            remedy = "install the version of secure-fl that the coordinator names"
            problem = f"the app of this installation is {here[:16]}…, another one is pinned"
            raise DeploymentError(problem, "pins.toml app", pinned, remedy)
        where = invitation.settings.superlink
        self._door, self._next = Door(folder.path, most * len(names)), 0.0
        self._node = SuperNode(
            folder.path / "flower",
            f"{where.host}:{where.port}",
            folder.tls.authority,
            folder.node_key,
            folder.path,
            app=pinned,
        )

    def begin(self, stop: Callable[[], bool], *, at_once: bool) -> Link | None:
        """Start the SuperNode, and wait until the app asks to begin. Who is under way already dials
        at once: the server may wait.
        """
        self.tend()
        if self._settings.transport == "messages":
            return DoorLink(self._door)
        while not at_once and self._door.session(_GLANCE) is None:
            if stop():
                return None
            self.tend()
        return session_link(self._folder, self._settings, self._names, self._most)

    def tend(self) -> None:
        """Start the SuperNode where it does not run: it ends by itself where the SuperLink does not
        know its key yet, as before the coordinator has started.
        """
        now = time.monotonic()
        if self._node.running or now < self._next:
            return
        try:
            self._node.stop()
            self._node.start(_UP)
        except EngineError as error:
            logs.failed("supernode", error, logging.WARNING)
        self._next = time.monotonic() + _AGAIN

    def finish(self, outcome: Outcome) -> None:
        """Tell the app how it ended; one that is to go on later is told that nobody is there."""
        if outcome.word in ("finished", "failed", "refused"):
            self._door.finish("" if outcome.word == "finished" else outcome.word)

    def close(self) -> None:
        """Shut the door, and end the SuperNode."""
        self._door.close()
        self._node.stop()
