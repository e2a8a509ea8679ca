"""secure_fl: privacy-hardened federated learning of encoders.

Names are imported when they are used: `import secure_fl` loads neither torch nor pydantic.

- `Callback`: Hooks into a run; override what you need.
- `Dataset`: Examples with optional labels.
- `Federation`: Clients with data, a configuration and the phases that follow from it, in
  this process.
- `FederationConfig`: A whole run's settings.
- `Result`: What came out of a run, to be used and to be read.
- `SecureFLError`: Base of all errors raised on purpose.
- `assign_pool`: Choose a pool of a finished run for the examples in a file.
- `load_config`: Read a configuration from a TOML file.
- `load_encoder`: The pre-trained encoder of a finished run.
- `load_pools`: The pool models of a finished run.
- `load_result`: The result of a finished run, from its folder.

What else there is to import is in the rooms, each of which lists its names: `secure_fl.data`,
`models`, `objectives`, `training`, `pools`, `privacy`, `crypto`, `he`, `secure_sum`, `federation`,
`engines`, `estimate`, `finished`, `baselines`, `callbacks`, `audit`, `report`, `config`; and in
`secure_fl.errors`, `secure_fl.export` and `secure_fl.sklearn`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.callbacks.base import Callback as Callback
    from secure_fl.config import FederationConfig as FederationConfig
    from secure_fl.config_file import load_config as load_config
    from secure_fl.data.dataset import Dataset as Dataset
    from secure_fl.errors import SecureFLError as SecureFLError
    from secure_fl.finished.artifacts import load_encoder as load_encoder
    from secure_fl.finished.artifacts import load_pools as load_pools
    from secure_fl.finished.assign import assign_pool as assign_pool
    from secure_fl.finished.result import Result as Result
    from secure_fl.finished.result import load_result as load_result
    from secure_fl.run import Federation as Federation

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "finished.artifacts": ["load_encoder", "load_pools"],
        "finished.assign": ["assign_pool"],
        "callbacks.base": ["Callback"],
        "config": ["FederationConfig"],
        "config_file": ["load_config"],
        "data.dataset": ["Dataset"],
        "errors": ["SecureFLError"],
        "finished.result": ["Result", "load_result"],
        "run": ["Federation"],
    },
)
