"""What comes before and after sums of view moments: an augmentation of the caller's own, which the
prior asks more of than a run does; clients of more examples than a sum holds; and a run that loads
the encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import make_images
from torch import Tensor
from torch.nn import functional

from secure_fl import Federation
from secure_fl.config import FederationConfig
from secure_fl.errors import ConfigError, ModelError, PrivacyError
from secure_fl.federation.verify.check import verify
from secure_fl.models.state import to_vector
from secure_fl.models.view_features import WhitenedEncoder
from secure_fl.privacy.example_sums import ExampleSum
from secure_fl.privacy.ledger import PrivacyLedger

IMAGES = make_images(72)
POOLS = {"enabled": True, "count": 1, "rounds": 1, "local_epochs": 1}


def config(pools: dict[str, Any], **pretrain: Any) -> FederationConfig:
    chosen = {"method": "view_moments", "views_per_example": 2} | pretrain
    tables: dict[str, Any] = {
        "partition": {"kind": "rotation", "clients": 4, "groups": 2},
        "model": {"features": 16},
        "pretrain": chosen,
        "pools": pools,
        "evaluate": {"enabled": False},
        "security": {"protection": "plain"},
        "privacy": {"unit": "example", "epsilon": 8.0},
    }
    return FederationConfig(**tables)


def made(folder: Path) -> Tensor:
    """The encoder of a finished run there, as a vector."""
    chosen = config({"enabled": False}, prior="none")
    return to_vector(Federation(chosen, data=IMAGES).run(folder).encoder)


def blurred(x: Tensor) -> Tensor:
    """In single precision alone, as the run's examples are."""
    kernel = torch.full((1, 1, 3, 3), 1 / 9)
    return functional.conv2d(x, kernel, padding=1) + 0.1 * torch.randn(x.shape)


def test_an_augmentation_that_cannot_make_the_prior_is_refused_before_there_is_a_run() -> None:
    with pytest.raises(ConfigError, match="double precision") as refused:
        Federation(config({"enabled": False}), data=IMAGES, augment=blurred)
    assert 'pretrain.prior = "none"' in refused.value.remedy
    without = config({"enabled": False}, prior="none")
    assert Federation(without, data=IMAGES, augment=blurred).run().encoder is not None


@pytest.mark.parametrize("unit", ["none", "example"])
def test_a_client_of_too_many_examples_is_refused_before_anybody_is_asked(
    unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config({"enabled": False}, prior="none").model_dump()
    chosen["privacy"]["unit"] = unit
    monkeypatch.setattr(ExampleSum, "most_examples", 10)
    with pytest.raises(PrivacyError, match="overflow"):
        Federation(FederationConfig(**chosen), data=IMAGES).run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_trains_pools_on_an_encoder_that_another_made(tmp_path: Path) -> None:
    vector = made(tmp_path / "first")
    loading = config(POOLS, mode="load", load_from=str(tmp_path / "first")).model_dump()
    loading["privacy"]["epsilon"] = 16.0
    result = Federation(FederationConfig(**loading), data=IMAGES).run(tmp_path / "second")
    assert isinstance(result.encoder, WhitenedEncoder)
    assert torch.equal(to_vector(result.encoder), vector)
    ledger = PrivacyLedger.load(tmp_path / "second" / "ledger.json")
    assert {each.history is not None for each in ledger.releases} == {True, False}
    assert 8 < result.summary.privacy.epsilon <= 16
    assert not verify(tmp_path / "second").findings


def test_an_encoder_of_another_kind_is_refused_before_anybody_is_charged(tmp_path: Path) -> None:
    made(tmp_path / "first")
    other = config(POOLS, mode="load", load_from=str(tmp_path / "first"), method="train")
    with pytest.raises(ModelError, match="do not fit") as refused:
        Federation(other, data=IMAGES).run(tmp_path / "second")
    assert "pretrain.method" in refused.value.remedy
    assert not PrivacyLedger.load(tmp_path / "second" / "ledger.json").releases
