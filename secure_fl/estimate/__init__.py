"""What a run will take, before it takes it.

Public names, each imported when it is used:

- `Estimate`: What a run will take.
- `PhaseCost`: What one phase will take.
- `estimate`: What a run of a federation will take, with time or without.
- `sample_state`: A state with all that any step of a run asks by, holding zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.estimate.costs import Estimate as Estimate
    from secure_fl.estimate.costs import PhaseCost as PhaseCost
    from secure_fl.estimate.course import estimate as estimate
    from secure_fl.estimate.zero_state import sample_state as sample_state

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {"costs": ["Estimate", "PhaseCost"], "course": ["estimate"], "zero_state": ["sample_state"]},
)
