"""What operators see of a federation: logs, metrics, traces, a status page, probes. Public facts
alone: names, phases, sizes, times and reasons.

Public names, each imported when it is used:

- `observed`: Everything that operators see of one process, set up and taken down.
- `OperationsSettings`: What one machine shows of itself, `operations.toml`.
- `watch_of`: A watch for a driver, which tells observers.
- `View`: What one process knows of its federation.
- `Observer`: Is told what changes in a view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.operations.desk import observed as observed
    from secure_fl.operations.settings import OperationsSettings as OperationsSettings
    from secure_fl.operations.view import Observer as Observer
    from secure_fl.operations.view import View as View
    from secure_fl.operations.watching import watch_of as watch_of

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "desk": ["observed"],
        "settings": ["OperationsSettings"],
        "view": ["Observer", "View"],
        "watching": ["watch_of"],
    },
)
