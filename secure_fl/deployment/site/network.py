"""Whether this machine reaches the federation's, as it would when it runs: name, port, TLS with its
own certificate; what stands in between, and what the way carries.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from secure_fl.deployment.settings import Deployment
from secure_fl.deployment.site.lines import Line
from secure_fl.deployment.site.ways import address_of
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.errors import need
from secure_fl.quantities import size

_PATIENCE = 5.0
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")
_WORDS = {
    "busy": "another site measures its way just now",
    "refused": "the server lets this site in not at all, or not so often",
    "slow": "it carries less than a few kilobytes a second",
}


@dataclass(frozen=True)
class Carries:
    """What the way to the server carries: seconds there and back, bytes a second out and in."""

    round_trip: float
    out: float
    into: float


def network(
    settings: Deployment, tls: TlsFiles, environment: Mapping[str, str] = os.environ
) -> Iterator[Line]:
    """A line for each thing that could be in the way."""
    places = []
    if _dialled(settings):
        places.append(("server", settings.server.host, settings.server.port, True))
    if settings.launch == "flower":
        places.append(("SuperLink", settings.superlink.host, settings.superlink.port, False))
    for what, host, port, mutual in places:
        yield _proxy(what, host, environment)
        yield from _reached(what, host, port, tls, mutual=mutual)


def carried(settings: Deployment, tls: TlsFiles, *, up: bool) -> tuple[Carries | None, Line]:
    """What the way to the server carries, and a line that says so, or why it was not measured: two
    megabytes go each way at most, and it takes ten seconds at most.

    Args:
        up: whether the server can be reached.

    Raises:
        DependencyError: what a session needs is not installed.
    """
    if not _dialled(settings):
        return None, _unmeasured('transport = "messages" has no way of its own')
    if not up:
        return None, _unmeasured("the server is not up, or was not looked for")
    need("grpc", "session", "transport", settings.transport)
    from secure_fl.engines.session.probing import Measured, measured

    found = measured(address_of(settings), tls, settings.name)
    if not isinstance(found, Measured):
        return None, _unmeasured(_WORDS.get(found, str(found)))
    said = (
        f"{1e3 * found.round_trip:.3g} ms there and back, {size(found.out)}/s out, "
        f"{size(found.into)}/s in, as measured now"
    )
    way = Carries(found.round_trip, found.out, found.into)
    return way, Line.ok("way to the server", said)


def _dialled(settings: Deployment) -> bool:
    """Whether sites have a stream to the server."""
    return settings.transport == "session" or settings.launch == "direct"


def _unmeasured(why: str) -> Line:
    remedy = "check again when the server is up, or pass --bandwidth MBIT of the way out of here"
    return Line.warn("way to the server", f"not measured: {why}", remedy)


def _proxy(what: str, host: str, environment: Mapping[str, str]) -> Line:
    """Whether the environment names a proxy for this host; what it is, is not shown."""
    lower = {name.lower(): value for name, value in environment.items() if value}
    named = next((name for name in _PROXIES if name in lower), None)
    skipped = any(
        one == "*" or f".{host}".endswith(f".{one.lstrip('.')}")
        for one in lower.get("no_proxy", "").replace(",", " ").split()
    )
    if named is None or skipped:
        return Line.ok(f"proxy to the {what}", "none")
    remedy = f"where the proxy does not let TLS through: no_proxy={host} for this service"
    return Line.warn(f"proxy to the {what}", f"{named} is set and would be used", remedy)


def _reached(what: str, host: str, port: int, tls: TlsFiles, *, mutual: bool) -> Iterator[Line]:
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        remedy = "ask for the name's address, or whether this machine's resolver knows it"
        yield Line.fail(f"address of the {what}", f"{host} has none here", remedy)
        return
    yield Line.ok(f"address of the {what}", host)
    try:
        plain = socket.create_connection((host, port), _PATIENCE)
    except OSError as error:
        said = f"{host}:{port}: {error.strerror or 'no answer'}"
        remedy = f"let this machine out to TCP {port} of {host}; else it may not have been started"
        yield Line.fail(f"port of the {what}", said, remedy)
        return
    with plain:
        yield Line.ok(f"port of the {what}", f"{host}:{port} answers")
        yield _handshake(what, host, plain, tls, mutual=mutual)


def _handshake(what: str, host: str, plain: socket.socket, tls: TlsFiles, *, mutual: bool) -> Line:
    """TLS as it will be: the federation's own authority, this site's certificate."""
    try:
        context = ssl.create_default_context(cafile=str(tls.authority))
        context.set_alpn_protocols(["h2"])
        if mutual:
            context.load_cert_chain(tls.certificate, tls.key)
        with context.wrap_socket(plain, server_hostname=host) as secure:
            secure.settimeout(_PATIENCE)
            if mutual and not secure.recv(1):  # a refusal comes after the handshake
                raise OSError
            version = secure.version() or "TLS"
    except ssl.SSLCertVerificationError as error:
        said = f"not trusted: {error.verify_message}"
        remedy = (
            "set this clock right if it is wrong; else tell the coordinator: its certificate is "
            "not the one of this federation, or of another name"
        )
        return Line.fail(f"TLS to the {what}", said, remedy)
    except (OSError, ssl.SSLError):
        remedy = (
            "ask the coordinator whether this site's certificate is on its list; a firewall or "
            "proxy that opens TLS breaks it too"
        )
        return Line.fail(f"TLS to the {what}", "the other end breaks it off", remedy)
    return Line.ok(f"TLS to the {what}", f"{version}, {'mutual' if mutual else 'its certificate'}")
