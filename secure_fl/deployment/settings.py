"""How the machines of a federation find each other, and how long they wait: `federation.toml`.

What is computed is in the configuration (`config.toml`); nothing here changes a number.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from secure_fl.config.section import Section
from secure_fl.federation.parties.attempt import Deadlines

Port = Annotated[int, Field(ge=1, le=65535)]
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")


def _host(host: str) -> str:
    """Refuse what is neither a name nor an address: others dial it, and show it."""
    said = "neither a name nor an address: such as fl.example.org, 10.0.0.1 or fd00::1"
    try:
        if not _NAME.fullmatch(host):
            if "%" in host:  # what stands behind it may be anything
                raise ValueError(said)
            ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(said) from None
    return host


Host = Annotated[str, AfterValidator(_host)]
Seconds = Annotated[float, Field(gt=0, le=604800)]


class ServerSettings(Section):
    """The server of a federation; sites open one stream to it where the transport is a session."""

    table = "server"
    host: Host = "localhost"
    """name or address by which sites reach it; its certificate is made out to it"""
    port: Port = 9443
    """of the session, with mutual TLS"""
    bind: Host = "0.0.0.0"  # noqa: S104 # a server is reached from outside, and checks certificates
    """address it listens on"""


class SuperLinkSettings(Section):
    """Flower's SuperLink, which enrols the sites' nodes and starts a run."""

    table = "superlink"
    host: Host = "localhost"
    """name or address by which sites and the coordinator reach it"""
    port: Port = 9092
    """its one port, with TLS"""
    bind: Host = "0.0.0.0"  # noqa: S104 # as above; nodes are known by their keys
    """address it listens on"""


class WaitSettings(Section):
    """How long the server waits before it goes on without a site."""

    table = "deadlines"
    join: Seconds = 600.0
    """seconds for clients to say whether they take part"""
    answer: Seconds = 120.0
    """seconds for everything that takes no training"""
    train: Seconds = 3600.0
    """seconds for an answer that is trained"""
    linger: Seconds = 60.0
    """seconds for which the server still answers late sites when all is done"""

    @property
    def deadlines(self) -> Deadlines:
        """What the server goes by."""
        return Deadlines(self.join, self.answer, self.train)


class Deployment(Section):
    """`federation.toml`."""

    name: str = Field("federation", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """of the federation: on its roster and in its certificates"""
    launch: Literal["flower", "direct"] = "flower"
    """flower: its SuperLink enrols machines and starts runs | direct: sites dial the server
    themselves, and nobody needs Flower
    """
    transport: Literal["session", "messages"] = "session"
    """session: one outbound stream a site to the server's port | messages: by Flower's own port
    only, slower
    """
    server: ServerSettings = ServerSettings()
    superlink: SuperLinkSettings = SuperLinkSettings()
    deadlines: WaitSettings = WaitSettings()
