"""What a site's process says of its course: `status.json` for whoever asks.

Guarantee: names, phases, sizes, times and reasons only.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from secure_fl.deployment.certificates import days_left
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.engines.session.link import Watch
from secure_fl.errors import SecureFLError
from secure_fl.files import PUBLIC, read_bytes, write_atomically
from secure_fl.operations import logs
from secure_fl.operations.view import View

WARN_DAYS = 30
_EVERY, _DAY = 2.0, 86400.0


class SiteWatch(Watch):
    """Writes the course of one site's process.

    Args:
        folder: of the site.
        parties: names of its parties.
        view: what is known of their messages, kept up by whoever watches them.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        folder: SiteFolder,
        parties: Sequence[str],
        view: View,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._view, self._clock = folder, view, clock
        self._facts: dict[str, Any] = {
            "site": folder.name,
            "parties": list(parties),
            "process": os.getpid(),
            "since": _now(),
            "state": "starting",
            "reason": "",
            "server": False,
            "certificate_days": None,
        }
        self._written = self._warned = float("-inf")
        self.lost_at: float | None = clock()
        """When the way to the server was lost; None while there is one."""

    def state(self, word: str, reason: str = "") -> None:
        """Say where this process stands, and write it at once."""
        self._facts |= {"state": word, "reason": reason}
        logs.say("site", stage=word)
        self._write()

    def glance(self) -> None:
        """Be called now and then: look at the certificate, and write what is new."""
        now = self._clock()
        if now - self._warned >= _DAY:
            self._warned = now
            self._warn()
        if now - self._written >= _EVERY:
            self._write()

    def back(self, peer: str) -> None:
        self.lost_at, self._facts["server"] = None, True
        self.state("connected")

    def lost(self, peer: str, reason: str) -> None:
        self.lost_at, self._facts["server"] = self._clock(), False
        self.state("disconnected", reason)

    def _warn(self) -> None:
        try:
            days = days_left(read_bytes(self._folder.tls.certificate))
        except SecureFLError:
            return
        self._facts["certificate_days"] = days

    def _write(self) -> None:
        self._written = self._clock()
        facts = self._facts | _course(self._view) | {"updated": _now()}
        write_atomically(self._folder.status, json.dumps(facts, indent=1) + "\n", mode=PUBLIC)


def _course(view: View) -> dict[str, Any]:
    """How far the parties are, and what they said and heard since the process began."""
    traffic = {
        name: {
            "messages": sum(n for (to, _), n in view.messages.items() if to == way),
            "bytes": sum(n for (to, _), n in view.bytes.items() if to == way),
        }
        for name, way in (("received", "in"), ("sent", "out"))
    }
    place = None if view.place is None else [view.place.step, view.place.round]
    number = view.number if view.number >= 0 else None
    more = {"refused": dict(view.refusals)}
    return {"round": number, "phase": view.phase, "place": place, **traffic, **more}


def _now() -> str:
    return datetime.now(UTC).isoformat("T", "seconds")
