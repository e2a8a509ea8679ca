"""How the parties of a site come to speak with the server, and how that ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from secure_fl.deployment.settings import Deployment
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.engines.session.link import Link

Word = Literal["finished", "failed", "refused", "unreachable", "stopped"]


@dataclass(frozen=True)
class Outcome:
    """How a run of a site's process ended, and the reason in words."""

    word: Word
    reason: str = ""


class Way(Protocol):
    """Begins, and ends, what a site needs to speak with the server."""

    def begin(self, stop: Callable[[], bool], *, at_once: bool) -> Link | None:
        """The link, once it is time to begin; None where `stop` came first.

        Args:
            stop: asked now and then.
            at_once: parties of this site are under way already.
        """

    def tend(self) -> None:
        """Be called now and then: keep up what was begun."""

    def finish(self, outcome: Outcome) -> None:
        """It is over here; said before the link is closed."""

    def close(self) -> None:
        """End everything that was begun but the link."""


@dataclass
class Direct:
    """The site dials the server by itself."""

    folder: SiteFolder
    settings: Deployment
    names: tuple[str, ...]
    most: int

    def begin(self, stop: Callable[[], bool], *, at_once: bool) -> Link | None:
        return session_link(self.folder, self.settings, self.names, self.most)

    def tend(self) -> None:
        """The link dials again by itself."""

    def finish(self, outcome: Outcome) -> None:
        """Nobody waits."""

    def close(self) -> None:
        """Nothing was begun but the link."""


def session_link(
    folder: SiteFolder, settings: Deployment, names: tuple[str, ...], most: int
) -> Link:
    """An outbound stream to the server, which carries all parties of this site.

    Args:
        most: bytes of the longest message that the server may send.
    """
    from secure_fl.engines.session.dialling import SessionClient

    return SessionClient(
        address_of(settings), folder.tls, folder.name, names, federation=settings.name, most=most
    )


def address_of(settings: Deployment) -> str:
    """Host and port by which sites dial the server."""
    server = settings.server
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"{host}:{server.port}"
