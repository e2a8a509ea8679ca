"""Configurations: frozen, refused with field, value and remedy, and the same after a trip
through TOML.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from secure_fl.config import FederationConfig, PoolsConfig
from secure_fl.config_file import config_schema, dump_config, load_config, starter_config
from secure_fl.errors import ConfigError, SecureFLError


def test_the_default_is_valid_and_frozen() -> None:
    config = FederationConfig()
    assert config.pretrain.rounds == 100
    assert (config.partition.clients, config.pools.count, config.security.min_pool_clients) == (
        12,
        3,
        3,
    )
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3


@pytest.mark.parametrize(
    ("tables", "field", "remedy"),
    [
        ({"pools": {"count": 0}}, "pools.count", "number of pool models"),
        ({"pools": {"cuont": 2}}, "pools.cuont", "did you mean pools.count?"),
        ({"pool": {}}, "pool", "did you mean pools?"),
        ({"zzz": 1}, "zzz", "known keys: name, seed"),
        ({"protection": "bfv"}, "protection", "did you mean security.protection?"),
        ({"protecton": "bfv"}, "protecton", "did you mean security.protection?"),
        ({"rounds": 3}, "rounds", "did you mean pretrain.rounds or pools.rounds?"),
        ({"pools": {"epsilon": 3.0}}, "pools.epsilon", "did you mean privacy.epsilon?"),
        (
            {"privacy": {"protection": "plain"}},
            "privacy.protection",
            "did you mean security.protection?",
        ),
        ({"data": {"limit": 3}}, "data.limit", "did you mean data.sources.limit"),
        ({"data": {"sources": [{"name": "imagenet"}]}}, "data.sources.name", "digits | mnist5k"),
        ({"data": {"sources": []}}, "data.sources", "one or more"),
        ({"partition": {"clients": -1}}, "partition.clients", "number of clients"),
        ({"pretrain": {"lr": float("nan")}}, "pretrain.lr", "learning rate"),
        ({"pretrain": {"mode": "centralized"}}, "pretrain.source", "name a set"),
        ({"pretrain": {"mode": "load"}}, "pretrain.load_from", "finished run folder"),
        ({"pretrain": {"mode": "none"}, "pools": {"start": "pretrained"}}, "pools.start", "random"),
        (
            {"pretrain": {"mode": "none"}, "pools": {"enabled": False}},
            "pools.enabled",
            "enable the pools",
        ),
        ({"pools": {"select_on": "validation"}}, "data.validation_fraction", "0.1"),
        (
            {"pools": {"task": "self_supervised", "select_by": "accuracy"}},
            "pools.select_by",
            "loss",
        ),
        (
            {"pools": {"rounds": 2, "warmup_rounds": 2}},
            "pools.warmup_rounds",
            "below pools.rounds = 2",
        ),
        ({"views": {"crop_scale": [0.9, 0.1]}}, "views.crop_scale", "[0.4, 1.0]"),
        ({"evaluate": {"fine_tune": [2.0]}}, "evaluate.fine_tune", "[0.01, 0.1]"),
    ],
)
def test_refusals_name_field_value_and_remedy(
    tables: dict[str, Any], field: str, remedy: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        FederationConfig(**tables)
    assert caught.value.field == field
    assert remedy in caught.value.remedy
    assert caught.value.code == "config"
    assert field in str(caught.value)


def test_rules_of_pools_do_not_bind_runs_without_pools() -> None:
    FederationConfig(
        pools={
            "enabled": False,
            "rounds": 1,
            "select_on": "validation",
            "task": "self_supervised",
            "select_by": "accuracy",
        }
    )


def test_tables_made_by_hand_raise_the_same() -> None:
    with pytest.raises(ConfigError, match=r"pools\.count"):
        PoolsConfig(count=0)
    with pytest.raises(ConfigError, match=r"pools\.count"):
        FederationConfig.model_validate({"pools": {"count": 0}})


def test_starter_file_is_the_default_and_explains_every_setting(tmp_path: Path) -> None:
    path = tmp_path / "start.toml"
    path.write_text(starter_config())
    assert load_config(path) == FederationConfig()
    for line in ("[pools]", "# number of pool models", '#start = "', "#gamma ="):
        assert line in starter_config()
    path.write_text(re.sub(r"^#(\w+ = )", r"\1", starter_config(), flags=re.MULTILINE))
    assert load_config(path) == FederationConfig()


def test_what_a_starter_leaves_open_follows_from_privacy(tmp_path: Path) -> None:
    path = tmp_path / "start.toml"
    path.write_text(starter_config())
    private = load_config(path, ["privacy.unit=example", "privacy.epsilon=8.0"])
    assert private.pretrain.method == "view_moments"


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**40),
            "name": st.text(
                st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=30
            ),
            "partition": st.just({"clients": 27}),
            "pools": st.fixed_dictionaries(
                {
                    "count": st.integers(1, 4),
                    "lr": st.floats(1e-6, 10),
                    "start": st.sampled_from(["random", "sketch"]),
                }
            ),
            "evaluate": st.fixed_dictionaries(
                {"fine_tune": st.lists(st.floats(0.01, 1), max_size=3)}
            ),
            "views": st.fixed_dictionaries({"crop_scale": st.none() | st.just((0.2, 0.9))}),
        },
    )
)
def test_toml_round_trip(tmp_path_factory: pytest.TempPathFactory, tables: dict[str, Any]) -> None:
    config = FederationConfig(**tables)
    path = tmp_path_factory.mktemp("config") / "c.toml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[pools]\ncount = 3\n")
    changed = [
        "pools.count=2",
        "pools.start=random",
        "data.sources.0.limit=10",
        "views.crop_scale=[0.5, 1.0]",
        "evaluate.enabled=false",
        "name=a b",
    ]
    config = load_config(path, changed)
    assert (config.pools.count, config.pools.start, config.data.sources[0].limit) == (
        2,
        "random",
        10,
    )
    assert (config.views.crop_scale, config.evaluate.enabled, config.name) == (
        (0.5, 1.0),
        False,
        "a b",
    )
    assert load_config(path, ['data.sources=[{name="mnist5k"}]']).data.sources[0].name == "mnist5k"
    for wrong, message in (
        ("pools", "a.b=c"),
        ("data.sources.3.name=digits", "number below 1"),
        ("pools.count.x=1", "shorten"),
        ("=2", "a.b=c"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(path, [wrong])


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="secure-fl init"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="not a text file"):
        load_config(tmp_path)
    for text in ("[pools\n", "seed = " + "9" * 5000, "a = " + "[" * 5000):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(ConfigError, match="not valid TOML"):
            load_config(tmp_path / "bad.toml")
    (tmp_path / "large.toml").write_text("#" * (1 << 22) + "#")
    with pytest.raises(ConfigError, match="too large"):
        load_config(tmp_path / "large.toml")


@pytest.mark.parametrize(
    "text", ["seed = 7\n", "seed = 7\r\n[pools]\r\ncount = 2\r\n", 'seed = 7\nname = "Übung"\n']
)
def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.toml"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_bytes(text.encode(encoding))
        assert load_config(path).seed == 7


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_other_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "c.toml").write_bytes("seed = 7\n".encode(encoding))
    with pytest.raises(ConfigError, match="UTF-16 or UTF-32") as caught:
        load_config(tmp_path / "c.toml")
    assert "saved as UTF-8" in caught.value.remedy
    (tmp_path / "c.toml").write_bytes('name = "Übung"\n'.encode("latin-1"))
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        load_config(tmp_path / "c.toml")


@pytest.mark.parametrize(
    "value",
    [10**400, 2**70, 1e40, 1e-40, "a\0b", float("inf"), float("nan")],
    ids=lambda value: str(value)[:8],
)
def test_absurd_values_are_refused_wherever_they_stand(value: Any) -> None:
    base = tomllib.loads(dump_config(FederationConfig()))
    for table, settings in base.items():
        for name in settings if isinstance(settings, dict) else [""]:
            changed = {**base, table: {**settings, name: value} if name else value}
            with pytest.raises(ConfigError):
                FederationConfig(**changed)
    for odd in ("self", "table", "model_config", "", "données"):
        with pytest.raises(ConfigError):
            FederationConfig(**{odd: value})
        with pytest.raises(ConfigError):
            FederationConfig(pools={odd: value})


def test_a_truth_value_is_no_number() -> None:
    """Python reads True as 1, so a slip would be a run of one round."""
    base = FederationConfig().model_dump()
    tables = {name: values for name, values in base.items() if isinstance(values, dict)}
    numbers = [
        (table, name)
        for table, values in tables.items()
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    assert ("pretrain", "lr") in numbers
    assert len(numbers) > 30
    for table, name in numbers:
        with pytest.raises(ConfigError, match="is a truth value, no number") as caught:
            FederationConfig(**{table: {name: True}})
        assert caught.value.field == f"{table}.{name}"
    assert FederationConfig(evaluate={"enabled": True}).evaluate.enabled


def test_schema_lists_every_table() -> None:
    schema = json.loads(config_schema())
    assert set(schema["properties"]) == set(FederationConfig.model_fields)


def test_every_setting_is_described() -> None:
    for name, field in FederationConfig.model_fields.items():
        table = field.annotation
        for setting, inner in getattr(table, "model_fields", {}).items():
            assert inner.description, f"{name}.{setting}"


def test_long_values_are_cut_in_messages() -> None:
    error = SecureFLError("too long", field="x", value="a" * 1000, remedy="shorten")
    assert len(str(error)) < 300
    assert error.value == "a" * 1000


def test_every_error_has_a_code_of_its_own_and_a_paragraph() -> None:
    codes = [kind.code for kind in SecureFLError.__subclasses__()]
    assert len(codes) == len(set(codes))
    page = (Path(__file__).parents[1] / "docs" / "errors.md").read_text()
    assert all(f"`{code}`" in page for code in codes)


def test_every_reason_of_the_secure_sum_is_explained() -> None:
    from secure_fl.crypto.refusals import Reason
    from secure_fl.secure_sum.messages import RoundReason

    explained = (Path(__file__).parents[1] / "docs" / "errors.md").read_text(encoding="utf-8")
    assert [reason for reason in (*Reason, *RoundReason) if f"`{reason}`" not in explained] == []
