"""The K models, choosing among them, starting them, watching them for collapse.

Public names, each imported when it is used:

- `best_pool`: Index of the lowest loss, or of the highest accuracy with ties broken by loss; equal
  pools go to the first.
- `nearest_centre`: Index and squared distance `[starts]` of the centre `[starts, pools, F]` nearest
  to a centred sketch `[F]`.
- `pool_health`: Figures and alert for `counts[k]` clients in pool k; `choices` and `groups` give
  each client's pool and known group.
- `PoolHealth`: Occupancy of the pools after a round.
- `PoolLayout`: How vectors of a `PoolSet` are written into a model.
- `PoolSet`: K pool models.
- `sketch_of`: A client's sketch without noise: the mean of its examples `[N, F]`, each at
  unit length.
- `without_labels`: Sketches `[..., classes · F]` as plain ones `[..., F]` with F = `width`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.pools.monitor import PoolHealth as PoolHealth
    from secure_fl.pools.monitor import pool_health as pool_health
    from secure_fl.pools.pool_set import PoolLayout as PoolLayout
    from secure_fl.pools.pool_set import PoolSet as PoolSet
    from secure_fl.pools.selection import best_pool as best_pool
    from secure_fl.pools.sketch import nearest_centre as nearest_centre
    from secure_fl.pools.sketch import sketch_of as sketch_of
    from secure_fl.pools.sketch import without_labels as without_labels

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "monitor": ["PoolHealth", "pool_health"],
        "pool_set": ["PoolLayout", "PoolSet"],
        "selection": ["best_pool"],
        "sketch": ["nearest_centre", "sketch_of", "without_labels"],
    },
)
