"""The configuration of a whole run, as frozen pydantic models: one class a TOML table.

Defaults are the SSD paper's where it states one. Every field carries the sentence that
`secure-fl init` writes above it, so the starter file and these models cannot drift apart. Imports
no torch.

- `FederationConfig`: A whole run: all tables, and what must hold between them.
- `Section`: What every table is.
- `DataConfig`, `SourceConfig`, `PartitionConfig`, `ViewsConfig`, `ModelConfig`, `ObjectiveConfig`,
  `OptimiserConfig`, `PretrainConfig`, `PoolsConfig`, `PrivacyConfig`, `SecurityConfig`,
  `EvaluateConfig`, `RuntimeConfig`: A table each.
"""

from secure_fl.config.data_tables import DataConfig, PartitionConfig, SourceConfig, ViewsConfig
from secure_fl.config.federation import FederationConfig
from secure_fl.config.privacy import PrivacyConfig
from secure_fl.config.section import Section
from secure_fl.config.security import SecurityConfig
from secure_fl.config.tables import (
    EvaluateConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
    PoolsConfig,
    PretrainConfig,
    RuntimeConfig,
)

__all__ = [
    "DataConfig",
    "EvaluateConfig",
    "FederationConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimiserConfig",
    "PartitionConfig",
    "PoolsConfig",
    "PretrainConfig",
    "PrivacyConfig",
    "RuntimeConfig",
    "Section",
    "SecurityConfig",
    "SourceConfig",
    "ViewsConfig",
]
