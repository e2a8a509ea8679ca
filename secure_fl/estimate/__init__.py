"""What a run will take, before it takes it; and what would make it fail, before it begins
(`planning`, `preflight`).

Public names, each imported when it is used: `estimate` gives an `Estimate`, with a `PhaseCost` for
each phase; `sample_state` is a state of zeros of a run's shapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.estimate.course import Estimate as Estimate
    from secure_fl.estimate.course import PhaseCost as PhaseCost
    from secure_fl.estimate.course import estimate as estimate
    from secure_fl.estimate.stop_watch import sample_state as sample_state

__getattr__, __dir__, __all__ = lazily(
    __name__, {"course": ["Estimate", "PhaseCost", "estimate"], "stop_watch": ["sample_state"]}
)
