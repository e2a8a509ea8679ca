"""Copies of a party, which go on apart from it and share what nobody changes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from unittest.mock import patch

from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.plan import Plan
from secure_fl.federation.state import State
from secure_fl.he.bfv import BfvClient, BfvHolder, BfvServer
from secure_fl.he.cipher_sum import CipherSum, KeylessServer
from secure_fl.he.keys import HolderKey, PublicKey, SecretKey
from secure_fl.he.parameters import BFV_4096
from secure_fl.he.seal_bridge import SealBridge
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.spool import Log, Table, spool
from secure_fl.secure_sum.steps import Refusal

_KEYS = (SecretKey, PublicKey, HolderKey, SealBridge, BfvClient, BfvServer, BfvHolder)
_WHOLE = (Identity, Roster, Plan, RoundPlan, Shared, State, Refusal, *_KEYS)


@cache
def _adder() -> KeylessServer:
    return KeylessServer(BFV_4096, bytes(32))


def other_sum(one: CipherSum, memo: object) -> CipherSum:
    """A running sum to go on with apart; the library's ciphertexts in it come to numbers first."""
    words = _adder().words(one) if one.grown else one.words
    return replace(one, words=words.copy(), grown=[], seeds=one.seeds.copy())


def other_table(one: Table, memo: object) -> Table:
    """A table of its own; a copy would write into the same memory."""
    twin = copy.copy(one)
    twin._data = spool(len(one._data))
    twin._data[:] = one._data
    return twin


def other_log(one: Log, memo: object) -> Log:
    """A log in a file of its own."""
    twin = Log()
    twin.extend(one)
    return twin


COPIED = {CipherSum: other_sum, Table: other_table, Log: other_log}
"""What a copy of a party must have apart, and how it gets it."""


@contextmanager
def whole_things() -> Iterator[None]:
    """While what nobody changes is shared by a party and its copies."""
    with ExitStack() as stack:
        for kind in _WHOLE:
            itself = lambda self, memo: self  # noqa: E731
            stack.enter_context(patch.object(kind, "__deepcopy__", itself, create=True))
        for kind, apart in COPIED.items():
            stack.enter_context(patch.object(kind, "__deepcopy__", apart, create=True))
        found = copy._deepcopy_dispatch  # type: ignore[attr-defined]
        atoms = {MappingProxyType: lambda one, memo: one, memoryview: lambda one, memo: one}
        stack.enter_context(patch.dict(found, atoms))
        yield
