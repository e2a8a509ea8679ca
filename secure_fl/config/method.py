"""How the encoder is made where a configuration leaves it open: `pretrain.method = "auto"`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from secure_fl.config.section import Section
from secure_fl.config.tables import ObjectiveConfig, OptimiserConfig

_OPTIMISER = {"rounds", *OptimiserConfig.model_fields} - {"weights"}
_ASKING = {
    "pretrain": _OPTIMISER,
    "objective": set(ObjectiveConfig.model_fields) - {"form"},
    "model": {"embedding", "projector_hidden"},
    "privacy": {"mechanism", "statistic_share", "features", "group_size", "group_views"},
}
"""Settings of an encoder's training, which nothing else uses: whoever sets one wants it trained."""


def method_of(given: Mapping[str, Any]) -> object:
    """What `pretrain.method` is, or stands for, in tables as they are given.

    `auto` is view moments where examples are private and nothing that is set asks for training:
    where both were measured they are worth more than private training (docs/private-accuracy.md).
    Anything else is returned as it is given; what is no method is refused with its table.
    """
    method = setting(given.get("pretrain"), "method")
    if method in (None, "auto"):
        return "train" if next(for_training(given), None) else "view_moments"
    return method


def for_training(given: Mapping[str, Any]) -> Iterator[str]:
    """Why `auto` would train an encoder, each in words; nothing where it is view moments."""
    if setting(given.get("privacy"), "unit") != "example":
        yield 'privacy.unit is not "example"'
    if setting(given.get("pretrain"), "mode") not in (None, "federated"):
        yield 'pretrain.mode is not "federated"'
    for table, names in _ASKING.items():
        yield from (f"{table}.{name} is set" for name in sorted(names) if _sets(given, table, name))
    if setting(given.get("model"), "encoder") not in (None, "auto"):
        yield "model.encoder is set"
    yield from _otherwise(given)


def _otherwise(given: Mapping[str, Any]) -> Iterator[str]:
    """What view moments would not go together with."""
    pools, security = given.get("pools"), given.get("security")
    if setting(pools, "enabled") is not False:
        if _sets(given, "pools", "encoder") and setting(pools, "encoder") != "frozen":
            yield f'pools.encoder = "{setting(pools, "encoder")}" trains it on'
        if setting(pools, "task") == "self_supervised":
            yield "self-supervised pools train an encoder"
    elif _sets(given, "privacy", "noise"):
        yield "privacy.noise is set, which is that of training"
    if setting(security, "protection") == "plain":
        yield "without a secure sum each client's share of the noise stands alone"
    if setting(security, "robust") not in (None, "none"):
        yield "security.robust opens sums of groups"


def setting(table: object, name: str) -> object:
    """One setting of a table that is still a mapping, or already a section."""
    return table.get(name) if isinstance(table, dict) else getattr(table, name, None)


def _sets(given: Mapping[str, Any], table: str, name: str) -> bool:
    """Whether a table sets something, be it to its default."""
    found = given.get(table)
    names = found.model_fields_set if isinstance(found, Section) else found
    return isinstance(names, set | dict) and name in names and setting(found, name) is not None
