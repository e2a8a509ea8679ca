"""K cluster pools: their models, a client's choice among them, and the watch for collapse.

Public names, each imported when it is used; their docstrings say the rest:

- models: `PoolSet`, `PoolLayout`; a client's choice: `best_pool`;
- occupancy and alert of a round: `pool_health`, `PoolHealth`;
- the sketch start: `sketch_of`, `without_labels`, `nearest_centre`.
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
