"""What a run will take, before it takes it.

Public names, each imported when it is used:

- `Estimate`: What a run will take.
- `PhaseCost`: What one phase will take.
- `estimate`: What a run of a federation will take, with time or without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.estimate.costs import Estimate as Estimate
    from secure_fl.estimate.costs import PhaseCost as PhaseCost
    from secure_fl.estimate.course import estimate as estimate

__getattr__, __dir__, __all__ = lazily(
    __name__, {"costs": ["Estimate", "PhaseCost"], "course": ["estimate"]}
)
