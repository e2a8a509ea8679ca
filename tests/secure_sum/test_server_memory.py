"""What a server has in memory of many clients: little of each, though each deals to all others."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import numpy as np
from secure_sum.round_helpers import make_vectors

from bench.secure_sum.embedded import EmbeddedFederation
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.server import RoundServer

CLIENTS, OF_EACH = 72, 5000
SHAPE = BlockShape(pools=1, width=8)


def held(server: RoundServer, without: RoundPlan) -> int:
    """Bytes that can be reached from a server, its plan left out."""
    seen, left, total = {id(without)}, [server], 0
    skipped = (type, type(gc), type(held))
    while left:
        one = left.pop()
        if id(one) not in seen and not isinstance(one, skipped):
            seen.add(id(one))
            total += sys.getsizeof(one)
            left += gc.get_referents(one)
    return total


def test_what_a_server_holds_of_a_client_does_not_grow_with_the_others() -> None:
    """Boxes, tags and shares would be 30 to 100 KB of each."""
    most, servers = [0], list[RoundServer]()
    count = [0]

    def tap(sender: str, recipient: str, data: bytes) -> bytes:
        count[0] += 1
        if servers and count[0] % 29 == 0:
            most[0] = max(most[0], held(servers[0], servers[0].plan))
        return data

    watch: Callable[[str, str, bytes], bytes] = tap
    federation = EmbeddedFederation(CLIENTS, protection="masked", tap=watch)
    build = RoundServer.__init__

    def noted(server: RoundServer, *arguments: object, **rest: object) -> None:
        build(server, *arguments, **rest)  # type: ignore[arg-type]
        servers.append(server)

    RoundServer.__init__ = noted  # type: ignore[method-assign]
    try:
        running = federation.begin(0, SHAPE)
    finally:
        RoundServer.__init__ = build  # type: ignore[method-assign]
    vectors = make_vectors(SHAPE, dict.fromkeys(federation.clients, 0))
    for name, vector in vectors.items():
        running.add(running.protect(name, vector))
    opened = running.open()
    expected = sum(vector.pools[0] for vector in vectors.values())
    np.testing.assert_array_equal(opened.opened.pools[0], expected)
    assert 0 < most[0] < CLIENTS * OF_EACH
