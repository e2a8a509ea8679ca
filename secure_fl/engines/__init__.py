"""What carries requests to clients and replies back.

Public names, each imported when it is used:

- `EmbeddedEngine`: All clients in this process, called one after the other.
- `Rounds`: Runs the rounds of a phase: clients are asked, their replies added and summed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.engines.embedded import EmbeddedEngine as EmbeddedEngine
    from secure_fl.engines.rounds import Rounds as Rounds

__getattr__, __dir__, __all__ = lazily(
    __name__, {"embedded": ["EmbeddedEngine"], "rounds": ["Rounds"]}
)
