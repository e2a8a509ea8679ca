"""How the encoder is made where nobody says: view moments for private examples, unless a setting
asks for training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import make_images
from torch import nn

from secure_fl import Federation
from secure_fl.arguments import as_config
from secure_fl.audit.attacks.property_probe import PROPERTY_PROBE
from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig, ModelConfig, PretrainConfig, PrivacyConfig
from secure_fl.config.method import for_training
from secure_fl.config_file import dump_config, load_config
from secure_fl.data import GlyphViews
from secure_fl.errors import ConfigError
from secure_fl.models.view_features import WhitenedEncoder

PRIVATE = {"privacy": {"unit": "example"}}


def resolved(*more: dict[str, Any]) -> FederationConfig:
    tables: dict[str, dict[str, Any]] = {"privacy": {"unit": "example"}}
    for each in more:
        for table, settings in each.items():
            tables[table] = tables.get(table, {}) | settings
    return FederationConfig(**tables)


def test_private_examples_get_view_moments_and_all_that_goes_with_them(tmp_path: Path) -> None:
    config = resolved()
    pretrain = config.pretrain
    assert (pretrain.method, pretrain.rounds, config.pools.encoder, config.model.features) == (
        "view_moments", 2, "frozen", None,
    )  # fmt: skip
    assert FederationConfig(privacy=PrivacyConfig(unit="example")) == config
    named = PretrainConfig(method="auto")
    assert FederationConfig(pretrain=named, privacy=PrivacyConfig(unit="example")) == config
    (tmp_path / "config.toml").write_text(dump_config(config))
    assert 'method = "view_moments"' in dump_config(config)
    assert load_config(tmp_path / "config.toml") == config


@pytest.mark.parametrize(
    ("asking", "reason"),
    [
        ({"privacy": {"unit": "none"}}, "privacy.unit"),
        ({"privacy": {"unit": "client"}}, "privacy.unit"),
        ({"pretrain": {"mode": "none"}}, "pretrain.mode"),
        ({"pretrain": {"rounds": 3}}, "pretrain.rounds"),
        ({"pretrain": {"rounds": 100}}, "pretrain.rounds"),
        ({"pretrain": {"lr": 0.5}}, "pretrain.lr"),
        ({"objective": {"name": "align_uniform"}}, "objective.name"),
        ({"model": {"encoder": "convnet"}}, "model.encoder"),
        ({"privacy": {"mechanism": "group"}}, "privacy.mechanism"),
        ({"pools": {"encoder": "finetune"}}, "pools.encoder"),
        ({"pools": {"task": "self_supervised"}}, "self-supervised"),
        ({"pools": {"enabled": False}, "privacy": {"noise": 1.0}}, "privacy.noise"),
        ({"security": {"protection": "plain"}}, "secure sum"),
        ({"security": {"robust": "median"}}, "security.robust"),
    ],
)
def test_what_asks_for_training_gets_it_and_is_named(asking: dict[str, Any], reason: str) -> None:
    tables = asking | {"privacy": PRIVATE["privacy"] | asking.get("privacy", {})}
    assert FederationConfig(**tables).pretrain.method == "train"
    assert reason in next(for_training(tables))


def test_what_training_does_not_need_leaves_view_moments() -> None:
    for kept in (
        {"pretrain": {"views_per_example": 4, "weights": "uniform"}},
        {"objective": {"form": "normalized"}},
        {"model": {"features": 64}},
        {"privacy": {"noise": 1.0, "epsilon": 2.0, "adaptive_clip": True}},
        {"pools": {"enabled": False, "task": "self_supervised"}},
        {"pools": {"count": 1}},
    ):
        config = resolved(kept)
        assert config.pretrain.method == "view_moments", kept
    assert FederationConfig(**PRIVATE, model=ModelConfig(features=64)).model.features == 64


@pytest.mark.parametrize(
    ("tables", "crop", "turn"),
    [
        ({"privacy": {"unit": "example"}}, (0.6, 1.0), 0.0),
        ({"privacy": {"unit": "example"}, "partition": {"kind": "rotation"}}, (0.6, 1.0), 180.0),
        ({"privacy": {"unit": "example"}, "views": {"turn": 15.0}}, (0.6, 1.0), 15.0),
        ({"partition": {"kind": "rotation"}}, (0.4, 1.0), 0.0),
    ],
)
def test_views_of_view_moments_turn_as_clients_do(
    tables: dict[str, Any], crop: tuple[float, float], turn: float
) -> None:
    kind = {"partition": {"kind": "iid"}} | tables
    federation = Federation(FederationConfig(**kind), data=make_images(240))
    assert federation.factory.augment == GlyphViews(crop_scale=crop, turn=turn)


def test_noise_of_training_is_refused_where_nothing_is_trained() -> None:
    with pytest.raises(ConfigError, match=r"privacy\.noise"):
        resolved({
            "pretrain": {"method": "view_moments"},
            "pools": {"enabled": False},
            "privacy": {"noise": 1.0},
        })  # fmt: skip


def test_pools_without_labels_are_refused_on_an_encoder_that_nothing_trains() -> None:
    moments = {"pretrain": {"method": "view_moments"}}
    with pytest.raises(ConfigError, match=r"pools\.task.*pretrain\.method"):
        resolved(moments, {"pools": {"task": "self_supervised"}})
    resolved(moments, {"pools": {"task": "self_supervised", "enabled": False}})


def test_an_encoder_of_the_callers_own_is_trained() -> None:
    own = as_config(PRIVATE, own_encoder=True)
    assert (own.pretrain.method, own.pools.encoder) == ("train", "finetune")
    named = {**PRIVATE, "pretrain": {"method": "view_moments"}}
    assert as_config(named, own_encoder=True).pretrain.method == "view_moments"
    images = make_images(96)
    tables = {
        **PRIVATE,
        "partition": {"kind": "iid", "clients": 4},
        "pools": {"enabled": False},
        "evaluate": {"enabled": False},
    }
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 64))
    assert Federation(tables, data=images, encoder=flat).config.pretrain.trains
    made = Federation(tables, data=images)
    assert made.config.noises_moments
    assert isinstance(made.factory.encoder(), WhitenedEncoder)


def test_a_loaded_encoder_is_what_its_run_made(tmp_path: Path) -> None:
    loading = {"pretrain": {"mode": "load", "load_from": str(tmp_path)}}
    assert as_config(loading).pretrain.method == "train"  # the folder is refused later
    (tmp_path / "config.toml").write_text(dump_config(resolved()))
    assert as_config(loading).pretrain.method == "view_moments"
    (tmp_path / "my.toml").write_text(f'[pretrain]\nmode = "load"\nload_from = "{tmp_path}"\n')
    assert load_config(tmp_path / "my.toml").pretrain.method == "view_moments"
    (tmp_path / "config.toml").write_text(dump_config(FederationConfig()))
    assert load_config(tmp_path / "my.toml").pretrain.method == "train"


def test_the_probe_of_statistics_does_not_apply_where_none_is_released() -> None:
    """Sums of view moments have a check of their own; `not tried` would be a stopped audit."""
    short = {"pretrain": {"rounds": 1}}
    alone, trained = resolved({"pools": {"enabled": False}}), resolved(short)
    groups = {"privacy": {"mechanism": "group"}, "objective": {"name": "nt_xent"}}
    grouped = resolved(short, groups, {"pools": {"start": "random"}})
    assert "no statistic" in PROPERTY_PROBE.refused(Subject(alone))
    assert "no statistic" in PROPERTY_PROBE.refused(Subject(grouped))
    assert PROPERTY_PROBE.refused(Subject(trained)) == ""
    assert PROPERTY_PROBE.refused(Subject(resolved())) == ""  # its sketches
