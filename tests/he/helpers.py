"""Keys, rosters and roles that the tests of the encrypted backends share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster
from secure_fl.he.bfv import BfvClient, BfvHolder, BfvServer
from secure_fl.he.keys import HolderKey
from secure_fl.he.parameters import BFV_4096, KeyHolder, ParameterSet
from secure_fl.he.seal_bridge import SealBridge

FIELD = 2**20
EDGE = 2**19 - 1


@dataclass
class Parties:
    key: HolderKey
    client: BfvClient
    server: BfvServer
    holder: BfvHolder


def parties(key_holder: KeyHolder = "clients", parameters: ParameterSet = BFV_4096) -> Parties:
    key = HolderKey.generate(SealBridge(parameters), key_holder)
    client = BfvClient(key.public or key.secret)
    return Parties(key, client, BfvServer(parameters, client.fingerprint), BfvHolder(key))


def pack(low: NDArray[np.int64], high: NDArray[np.int64], modulus: int) -> NDArray[np.uint64]:
    """Two fields a slot, as Appendix A says; written again here so that the codec is not its
    own judge.
    """
    return np.mod(low + FIELD * high, modulus).astype(np.uint64)


def unpack(slots: NDArray[np.uint64], modulus: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    v = slots.astype(np.int64)
    v = np.where(v > modulus // 2, v - modulus, v)
    low = np.mod(v + FIELD // 2, FIELD) - FIELD // 2
    return low, (v - low) // FIELD


@dataclass
class People:
    coordinator: Identity
    server: Identity
    authority: Identity
    clients: list[Identity]
    roster: Roster


def people(count: int = 3, rotation_rounds: int = 4) -> People:
    coordinator, server = (
        Identity.generate("boss", "coordinator"),
        Identity.generate("hub", "server"),
    )
    authority = Identity.generate("notary", "authority")
    clients = [Identity.generate(f"clinic-{k}") for k in range(count)]
    everyone = (coordinator, server, authority, *clients)
    roster = Roster("hospitals", tuple(identity.member for identity in everyone), rotation_rounds)
    return People(coordinator, server, authority, clients, roster)
