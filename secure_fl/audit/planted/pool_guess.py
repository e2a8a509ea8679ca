"""Choices that are told: by the length of a message, by a mechanism that does not draw, and by
counts without noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from unittest.mock import patch

import numpy as np

from secure_fl.audit.check import Fault
from secure_fl.config import FederationConfig
from secure_fl.privacy.choice import PrivateChoice
from secure_fl.privacy.client_level import ClientLevel
from secure_fl.privacy.noise import NoiseStream
from secure_fl.secure_sum.blocks import Integers
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.grid import Blocks

_DIGITS = {
    "data": {"sources": [{"name": "digits", "limit": 400}]},
    "evaluate": {"enabled": False},
    "pretrain": {"mode": "none"},
}


def _masked() -> FederationConfig:
    return FederationConfig.model_validate(
        _DIGITS
        | {
            "partition": {"kind": "iid", "clients": 30},
            "pools": {"rounds": 1, "start": "random"},
            "security": {"protection": "masked"},
        }
    )


def _chosen_by_example() -> FederationConfig:
    return FederationConfig.model_validate(
        _DIGITS
        | {
            "partition": {"kind": "iid", "clients": 9},
            "pools": {"rounds": 1, "start": "random"},
            "security": {"protection": "masked"},
            "privacy": {"unit": "example", "choice": "exponential", "choice_epsilon": 0.25},
        }
    )


def _counted() -> FederationConfig:
    return FederationConfig.model_validate(
        _DIGITS
        | {
            "partition": {"kind": "iid", "clients": 40},
            "pools": {"rounds": 1, "start": "random"},
            "security": {"protection": "masked", "min_pool_clients": 12},
            "privacy": {"unit": "client", "epsilon": 1.0},
        }
    )


def _longer_by_choice() -> AbstractContextManager[object]:
    honest = RoundClient._written

    def written(client: RoundClient, values: list[Integers]) -> memoryview:
        choice = int(np.argmax(values[0])) if len(values[0]) else 0
        return memoryview(bytes(honest(client, values)) + bytes(16 * choice))

    return patch.object(RoundClient, "_written", written)


def _best_pool_named() -> AbstractContextManager[object]:
    def choose(_: PrivateChoice, scores: Sequence[float], *__: object, **___: object) -> int:
        return int(np.argmin(scores))

    return patch.object(PrivateChoice, "choose", choose)


def _bare_counts() -> AbstractContextManager[object]:
    honest = ClientLevel.noised

    def noised(level: ClientLevel, blocks: Blocks, stream: NoiseStream) -> Blocks:
        return replace(honest(level, blocks, stream), head=blocks.head)

    return patch.object(ClientLevel, "noised", noised)


FAULTS = (
    Fault("message length follows the choice", "pool-guess", _masked, _longer_by_choice),
    Fault("best pool named without drawing", "pool-guess", _chosen_by_example, _best_pool_named),
    Fault("pool counts without noise", "pool-guess", _counted, _bare_counts),
)
