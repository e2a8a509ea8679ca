"""What can be said of a federation from its server's folder."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from secure_fl.crypto.refusals import RefusedError
from secure_fl.deployment.certificates import days_left, ends
from secure_fl.deployment.presence import Present, present
from secure_fl.deployment.progress import Progress
from secure_fl.deployment.seats import Seat
from secure_fl.deployment.server_folder import TRANSCRIPT, ServerFolder
from secure_fl.errors import RunFolderError
from secure_fl.federation.transcript.chain import read_lines
from secure_fl.federation.transcript.entries import RefusedEntry, facts_of
from secure_fl.files import is_file, read_bytes

_REFUSALS, _MOST = 5, 1 << 34


@dataclass(frozen=True)
class Status:
    """Of one federation.

    Attributes:
        folder: of its server.
        progress: what the server wrote last; None before it wrote anything.
        server: that runs; None where none does.
        refusals: the last ones on record.
    """

    folder: ServerFolder
    progress: Progress | None
    server: Present | None
    refusals: tuple[RefusedEntry, ...]

    @classmethod
    def of(cls, folder: ServerFolder) -> Status:
        """Read it, also while a server writes. Raises RunFolderError: damaged; FileError."""
        server = present(folder.path, folder.record)
        return cls(folder, folder.progress(), server, _refusals(folder))

    @property
    def outcome(self) -> str:
        """`done`, why it failed, or empty where it goes on."""
        return "" if self.progress is None else self.progress.outcome

    @property
    def under_way(self) -> bool:
        """Whether it was begun and is not over."""
        return self.folder.begun and not self.outcome

    def connected(self, site: str) -> bool:
        """Whether a site has a stream."""
        return self.server is not None and site in self.server.sites

    def document(self) -> dict[str, Any]:
        """All of it as JSON values, for scripts."""
        folder, progress = self.folder, self.progress
        names = list(folder.program.names)
        step, done = (0, 0) if progress is None else progress.place
        return {
            "federation": folder.roster.federation,
            "plan": folder.opened.digest.hex(),
            "revision": folder.roster.revision,
            "begun": folder.begun,
            "running": self.server is not None,
            "stage": "" if progress is None else str(progress.stage),
            "step": names[step] if step < len(names) else "",
            "steps": names,
            "rounds_done": done,
            "calls": 0 if progress is None else progress.number + 1,
            "waits": self._waits(),
            "members": [] if progress is None else list(progress.members),
            "silent": [] if progress is None else list(progress.silent),
            "declined": [] if progress is None else list(progress.declined),
            "sites": {site: self._site(site, seat) for site, seat in folder.seats().items()},
            "certificates": self._certificates(),
            "refusals": [facts_of(each) for each in self.refusals],
            "outcome": self.outcome,
            "rounds_left": folder.rounds_left,
        }

    def _waits(self) -> dict[str, dict[str, Any]]:
        """Whom a server that runs waits for, by phase, and since when."""
        found = {} if self.server is None or self.outcome else self.server.waits
        return {
            phase: {
                "parties": list(wait.names),
                "since": datetime.fromtimestamp(wait.since, UTC).isoformat("T", "seconds"),
            }
            for phase, wait in found.items()
        }

    def _site(self, site: str, seat: Seat) -> dict[str, Any]:
        return {
            "parties": list(seat.parties),
            "connected": self.connected(site),
            "revoked": seat.revoked,
            "certificate_ends": seat.ends,
        }

    def _certificates(self) -> dict[str, dict[str, Any]]:
        tls = self.folder.tls
        found = {"authority": tls.authority, "server": tls.certificate}
        data = {name: read_bytes(path) for name, path in found.items()}
        return {
            name: {"ends": str(ends(pem).date()), "days": days_left(pem)}
            for name, pem in data.items()
        }


def _refusals(folder: ServerFolder) -> tuple[RefusedEntry, ...]:
    path = folder.record / TRANSCRIPT
    if not is_file(path):
        return ()
    try:
        entries = (line.entry for line in read_lines(read_bytes(path, most=_MOST)))
        refused = (entry for entry in entries if isinstance(entry, RefusedEntry))
        return tuple(deque(refused, _REFUSALS))
    except RefusedError as error:
        remedy = "put it back: without it the federation cannot be verified"
        raise RunFolderError.of_file(error.problem, path, remedy) from None
