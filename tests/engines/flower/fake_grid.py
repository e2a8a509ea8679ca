"""Flower's grid and nodes in this process: one app a node at a time, that goes to a door."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from secure_fl.engines.flower.client import answer


@dataclass
class FakeNode:
    """A site's node.

    Attributes:
        site: folder of the site.
        parties: of the site.
        loses: whether the answers of this node are lost from now on.
    """

    number: int
    site: Path
    parties: tuple[str, ...]
    public: Any = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP384R1()).public_key()
    )
    revoked: bool = False
    online: bool = True
    since: int = 0
    loses: bool = False
    answered: int = 0
    waiting: deque[Any] = field(default_factory=deque)

    @property
    def node(self) -> bytes:
        return self.public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)

    @property
    def info(self) -> Any:
        key = self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return SimpleNamespace(
            node_id=self.number, public_key=key, last_activated_at=str(self.since)
        )


class FakeGrid:
    """Answers as Flower's grid does, but at once."""

    def __init__(self, nodes: Iterable[FakeNode]) -> None:
        self.nodes = {node.number: node for node in nodes}
        self.replies: dict[str, Any] = {}
        self.rooms: dict[str, int] = {}
        self.pulled: list[tuple[str, ...]] = []
        self._numbers, self.over = itertools.count(1), threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, args=(node,), daemon=True)
            for node in self.nodes.values()
        ]
        for thread in self._threads:
            thread.start()

    def get_nodes(self) -> list[Any]:
        return [node.info for node in self.nodes.values() if node.online]

    def push_messages(self, messages: Iterable[Any]) -> list[str]:
        numbers = []
        for message in messages:
            number = f"message-{next(self._numbers)}"
            self.nodes[message.metadata.dst_node_id].waiting.append((number, message))
            numbers.append(number)
        return numbers

    def pull_messages(self, numbers: Iterable[str]) -> list[Any]:
        self.pulled.append(tuple(numbers))
        return [self.replies.pop(one) for one in self.pulled[-1] if one in self.replies]

    def fail(self, number: str, code: int, reason: str = "") -> None:
        """Answer a message with an error of Flower's."""
        error = SimpleNamespace(code=code, reason=reason)
        self.replies[number] = SimpleNamespace(has_error=lambda: True, error=error)

    def close(self) -> None:
        self.over.set()

    def _serve(self, node: FakeNode) -> None:
        while not self.over.is_set():
            if not node.waiting or not node.online:
                time.sleep(0.005)
                continue
            since, (number, message) = node.since, node.waiting.popleft()
            content = answer(message.content, str(node.site))
            node.answered += 1
            if node.online and since == node.since and not node.loses:
                self.replies[number] = SimpleNamespace(has_error=lambda: False, content=content)


def true(found: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What becomes true in time."""
    end = time.monotonic() + seconds
    while not (value := found()) and time.monotonic() < end:
        time.sleep(0.01)
    return value
