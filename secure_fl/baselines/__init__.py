"""The methods the papers compare with, as settings laid over a configuration.

Public names, each imported when it is used:

- `as_method`: `config` with the settings of a method laid over it.
- `with_tables`: `config` with some settings of some tables replaced, validated anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.baselines.methods import as_method as as_method
    from secure_fl.baselines.methods import with_tables as with_tables

__getattr__, __dir__, __all__ = lazily(__name__, {"methods": ["as_method", "with_tables"]})
