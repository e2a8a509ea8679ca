"""Known methods by name. Each is the same machinery with other settings, so that a comparison
differs in nothing else.

Sources: FedAvg (McMahan et al. 2017); IFCA and its restarts (Ghosh et al. 2020, and the official
code); HypCluster (Mansour et al. 2020, as in google/fedjax); CP-CFL after the abstract of arXiv
2311.16535; SSD and FedAlignUniform (arXiv 2508.01251); FedSimCLR is FedAvg of NT-Xent.
"""

from __future__ import annotations

from typing import Any

from secure_fl.config import FederationConfig
from secure_fl.errors import ConfigError

Tables = dict[str, dict[str, Any]]

METHODS: dict[str, Tables] = {
    "fedavg": {"pools": {"count": 1, "start": "random"}},
    "ifca": {"pools": {"start": "random"}},
    "ifca-restarts": {"pools": {"start": "restarts"}, "security": {"protection": "plain"}},
    "hypcluster": {"pools": {"start": "farthest"}, "security": {"protection": "plain"}},
    "cp-cfl": {"pools": {"start": "pretrained"}},
    "sketch": {"pools": {"start": "sketch"}},
    "ssd": {"objective": {"name": "ssd"}},
    "fed-align-uniform": {"objective": {"name": "align_uniform"}},
    "fed-simclr": {"objective": {"name": "nt_xent"}},
}


def as_method(config: FederationConfig, method: str) -> FederationConfig:
    """`config` with the settings of a method laid over it.

    Raises:
        ConfigError: no such method, or its settings do not fit the rest (CP-CFL needs
            pre-training).
    """
    if method not in METHODS:
        raise ConfigError(
            "unknown method", field="method", value=method, remedy="one of " + ", ".join(METHODS)
        )
    return with_tables(config, METHODS[method])


def with_tables(config: FederationConfig, tables: Tables) -> FederationConfig:
    """`config` with some settings of some tables replaced, validated anew."""
    values = config.model_dump()
    for table, settings in tables.items():
        values[table] |= settings
    return FederationConfig(**values)
