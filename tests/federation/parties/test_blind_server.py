"""What a server's objects hold at the end of a federation, and in the middle of it."""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from federation.parties.toy_federation import Made, make
from torch import Tensor, nn

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.identities import Identity
from secure_fl.federation.state import State
from secure_fl.federation.wire import route
from secure_fl.he.keys import HolderKey, SecretKey
from secure_fl.secure_sum.opener import Opened

FORBIDDEN = (Tensor, nn.Module, State, Opened, SecretKey, HolderKey, X25519PrivateKey, Identity)


def reachable(start: object) -> list[Any]:
    """Everything that can be come to from an object, but for modules, classes and their names."""
    seen, found, todo = set[int](), [], [start]
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, ModuleType | type):
            continue
        seen.add(id(one))
        found.append(one)
        if isinstance(one, FunctionType):  # what it closes over, not the module that it is in
            todo += [cell.cell_contents for cell in one.__closure__ or ()]
            continue
        todo += gc.get_referents(one)
    return found


def secrets_at_server(made: Made) -> list[Any]:
    own = made.identities["server"]
    allowed = {id(one) for one in reachable(own)}
    secret = made.clients[0]._seat.keyring.secret  # type: ignore[union-attr]
    found = [one for one in reachable(made.server) if id(one) not in allowed]
    assert len(secret) == 32
    held = [one for one in found if isinstance(one, FORBIDDEN)]
    return held + [one for one in found if isinstance(one, bytes) and secret in one]


@pytest.mark.parametrize("key_holder", ["clients", "authority"])
@pytest.mark.parametrize("phase", [Phase.AGREE, Phase.APPLY, None])
def test_a_server_holds_no_model_key_or_choice(key_holder: str, phase: Phase | None) -> None:
    made, seen = make(4, "bfv+masked", key_holder, rounds=2), list[object]()

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if route(data).phase == phase and not seen:
            seen.append(phase)
            assert secrets_at_server(made) == []
        return data

    made.run(tap)
    assert made.server.failed is None
    assert secrets_at_server(made) == []
    assert bool(seen) == (phase is not None)


def test_the_scan_finds_what_is_planted() -> None:
    made = make(4, "masked", rounds=1)
    made.run()
    made.server.planted = {"deep": [made.clients[0].state]}  # type: ignore[attr-defined]
    assert any(isinstance(one, State) for one in secrets_at_server(made))


@pytest.mark.parametrize("key_holder", ["clients", "authority"])
def test_a_plan_that_publishes_the_models_gives_them_to_the_server(key_holder: str) -> None:
    made = make(4, "bfv+masked", key_holder, rounds=2, publish=True)
    made.run()
    assert made.server.models is not None
    assert made.server.models == made.clients[0].state
    assert any(isinstance(one, State) for one in secrets_at_server(made))
