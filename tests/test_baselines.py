"""Methods are settings, and nothing else changes."""

from __future__ import annotations

import pytest

from secure_fl.baselines.methods import METHODS, as_method
from secure_fl.config import FederationConfig
from secure_fl.errors import ConfigError


@pytest.mark.parametrize("method", METHODS)
def test_a_method_changes_its_own_settings_only(method: str) -> None:
    base = FederationConfig(seed=5, pools={"lr": 0.3})
    made = as_method(base, method).model_dump()
    for table, settings in METHODS[method].items():
        assert {name: made[table][name] for name in settings} == settings
        for name in settings:
            made[table][name] = base.model_dump()[table][name]
    assert made == base.model_dump()


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="one of fedavg"):
        as_method(FederationConfig(), "magic")
    with pytest.raises(ConfigError, match="no pre-trained encoder"):
        as_method(FederationConfig(pretrain={"mode": "none"}), "cp-cfl")
