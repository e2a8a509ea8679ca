"""What a finished run leaves: its result, its models, and what they are used for.

- `Result`: What came out of a run, to be used and to be read.
- `assign_pool`: Choose a pool of a finished run for the examples in a file.
- `load_encoder`: The pre-trained encoder of a finished run.
- `load_pools`: The pool models of a finished run.
- `load_result`: The result of a finished run, from its folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.finished.artifacts import load_encoder as load_encoder
    from secure_fl.finished.artifacts import load_pools as load_pools
    from secure_fl.finished.assign import assign_pool as assign_pool
    from secure_fl.finished.result import Result as Result
    from secure_fl.finished.result import load_result as load_result

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "artifacts": ["load_encoder", "load_pools"],
        "assign": ["assign_pool"],
        "result": ["Result", "load_result"],
    },
)
