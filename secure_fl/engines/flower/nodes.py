"""Which of Flower's nodes is which site: by the public keys that the coordinator enrolled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from secure_fl.engines.flower.control import node_key


class Seated(Protocol):
    """What the coordinator knows of a site."""

    @property
    def parties(self) -> Sequence[str]:
        """Of this site, by name on the roster."""

    @property
    def node(self) -> bytes:
        """Public key of its node, as OpenSSH writes it; empty where it has none."""

    @property
    def revoked(self) -> bool:
        """Whether it is to be let in no longer."""


Seats = Callable[[], Mapping[str, Seated]]


@dataclass(frozen=True)
class Node:
    """A site's node that is there now.

    Attributes:
        number: Flower's.
        since: when it came; another time is another life of it, that knows no message of before.
    """

    number: int
    since: str


def nodes_of(grid: Any, seats: Seats) -> dict[str, Node]:
    """Nodes that are there now, by site; a key that nobody enrolled for a site counts for none."""
    here = {
        node.public_key: Node(node.node_id, node.last_activated_at) for node in grid.get_nodes()
    }
    let_in = {site: seat for site, seat in seats().items() if seat.node and not seat.revoked}
    keys = {site: node_key(seat.node) for site, seat in let_in.items()}
    return {site: here[key] for site, key in keys.items() if key in here}
