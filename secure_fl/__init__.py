"""secure_fl: privacy-hardened federated learning of encoders.

Names are imported when they are used: `import secure_fl` loads neither torch nor pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secure_fl.artifacts import load_encoder, load_pools
    from secure_fl.config import FederationConfig
    from secure_fl.config_file import load_config
    from secure_fl.data.dataset import Dataset
    from secure_fl.errors import SecureFLError
    from secure_fl.run import Callback, Federation, Result

_HOMES = {
    "Callback": "run",
    "Dataset": "data.dataset",
    "Federation": "run",
    "FederationConfig": "config",
    "Result": "run",
    "SecureFLError": "errors",
    "load_config": "config_file",
    "load_encoder": "artifacts",
    "load_pools": "artifacts",
}

__version__ = "0.1.0"
__all__ = [
    "Callback",
    "Dataset",
    "Federation",
    "FederationConfig",
    "Result",
    "SecureFLError",
    "load_config",
    "load_encoder",
    "load_pools",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'secure_fl' has no attribute {name!r}")
    return getattr(import_module(f"secure_fl.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
