"""What a coordinator asks of a SuperLink, by Flower's own client: to start and end runs, how one
is, and which nodes it lets in.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from secure_fl.engines.flower.executor import check_version
from secure_fl.errors import EngineError

LOOPBACK = "localhost,127.0.0.1,::1"
QUIET = {
    "NO_PROXY": LOOPBACK,
    "no_proxy": LOOPBACK,
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
}
"""Environment in which Flower asks nobody outside, and reaches this machine without a proxy."""
_GONE = "unregistered"
T = TypeVar("T")


class Control:
    """A SuperLink on this machine, as its coordinator speaks with it. All of it raises EngineError:
    there is no answer, or a refusal.

    Args:
        address: its address and port.
        authority: certificates that are trusted.
        remedy: for errors.
    """

    def __init__(self, address: str, authority: Path, remedy: str) -> None:
        self._address, self._authority, self._remedy = address, authority, remedy

    def submit(self, app: bytes) -> str:
        """Start a run of a bundle; its number."""

        def start(client: Any) -> str:
            from flwr.common.serde import fab_to_proto
            from flwr.proto.control_pb2 import StartRunRequest
            from flwr.supercore.fab import Fab

            fab = fab_to_proto(Fab(hashlib.sha256(app).hexdigest(), app, {}))
            answer = client.StartRun(StartRunRequest(fab=fab))
            return str(answer.run_id) if answer.HasField("run_id") else ""

        return self._told(self._ask("submit", start), "submit")

    def state(self, run: str) -> str:
        """How a run is, as `flwr list` says it: `running`, or `finished:failed`."""

        def look(client: Any) -> str:
            from flwr.proto.control_pb2 import ListRunsRequest

            found = client.ListRuns(ListRunsRequest(run_id=int(run))).run_dict[int(run)].status
            return ":".join(filter(None, (found.status, found.sub_status)))

        return self._told(self._ask("state", look), "state")

    def halt(self, run: str) -> None:
        """End a run."""

        def stop(client: Any) -> None:
            from flwr.proto.control_pb2 import StopRunRequest

            client.StopRun(StopRunRequest(run_id=int(run)))

        self._ask("halt", stop)

    def enrol(self, public_key: Path, *, let_in: bool) -> None:
        """Let a node in, or no longer; nothing is done where that is so."""
        key = node_key(public_key.read_bytes())

        def change(client: Any) -> None:
            from flwr.proto.control_pb2 import (
                ListNodesRequest,
                RegisterNodeRequest,
                UnregisterNodeRequest,
            )

            listed = client.ListNodes(ListNodesRequest()).nodes_info
            found = [one.node_id for one in listed if one.public_key == key and one.status != _GONE]
            if let_in and not found:
                client.RegisterNode(RegisterNodeRequest(public_key=key))
            for number in found if not let_in else ():
                client.UnregisterNode(UnregisterNodeRequest(node_id=number))

        self._ask("register" if let_in else "unregister", change)

    def _ask(self, order: str, work: Callable[[Any], T]) -> T:
        with _quiet():
            check_version()
            import httpx
            from flwr.supercore.control import ControlHttpClient
            from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

            client = ControlHttpClient.from_server_address(
                self._address,
                insecure=False,
                root_certificates=self._authority.read_bytes(),
                interceptors=[RuntimeVersionHttpInterceptor(component_name="secure-fl")],
            )
            try:
                return work(client)
            except (httpx.HTTPError, SystemExit):  # Flower exits where versions do not fit
                raise self._refused(order) from None
            finally:
                client.close()

    def _told(self, answer: str, order: str) -> str:
        if not answer:
            raise self._refused(order)
        return answer

    def _refused(self, order: str) -> EngineError:
        problem = "gives no answer, or refuses"
        return EngineError(problem, f"superlink {order}", self._address, self._remedy)


def new_node_key() -> tuple[bytes, bytes]:
    """A new key of a node, private and public, as OpenSSH writes them."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def node_key(public_key: bytes) -> bytes:
    """An OpenSSH public key as Flower names nodes by it. Raises ValueError: it is none."""
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_ssh_public_key,
    )

    key = load_ssh_public_key(public_key)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@contextmanager
def _quiet() -> Iterator[None]:
    """While Flower is imported and asked."""
    before = {name: os.environ.get(name) for name in QUIET}
    os.environ.update(QUIET)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
