"""A coordinator's folder and key cards of small sites, made in a test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import tiny_config

from secure_fl.config import FederationConfig
from secure_fl.crypto.identities import Identity
from secure_fl.deployment.certificates import new_request
from secure_fl.deployment.key_card import KeyCard
from secure_fl.engines.flower.control import new_node_key

CLIENTS = 6
SITES = {"north": (0, 1), "east": (2, 3), "south": (4, 5)}


@dataclass(frozen=True)
class MadeSite:
    """What a site has before it is invited."""

    name: str
    people: tuple[Identity, ...]
    key: bytes
    card: KeyCard

    @property
    def data(self) -> bytes:
        return self.card.encode(self.people)


def node_key() -> bytes:
    return new_node_key()[1]


def make_site(name: str, numbers: tuple[int, ...], **facts: Any) -> MadeSite:
    people = tuple(Identity.generate(f"client-{number:04d}") for number in numbers)
    request, key = new_request(name)
    told = {"shape": (1, 8, 8), "classes": 3, "examples": {one.name: 36 for one in people}, **facts}
    card = KeyCard(name, tuple(one.card() for one in people), request, node_key(), **told)
    return MadeSite(name, people, key, card)


def make_sites() -> list[MadeSite]:
    return [make_site(name, numbers) for name, numbers in SITES.items()]


def small_config(**tables: dict[str, Any]) -> FederationConfig:
    """Pre-training, sketches and pools, in as few rounds as there can be."""
    base: dict[str, dict[str, Any]] = {
        "partition": {"kind": "natural", "clients": CLIENTS},
        "data": {"classes": 3},
        "privacy": {"unit": "example", "noise": 2.0, "epsilon": 60.0},
        "pretrain": {"rounds": 1},
        "pools": {"rounds": 1, "count": 2, "warmup_rounds": 0},
        "evaluate": {"enabled": False},
        "security": {"protection": "bfv+masked", "key_holder": "clients"},
    }
    return tiny_config(
        **{name: {**base.get(name, {}), **tables.get(name, {})} for name in base | tables}
    )


def write_cards(folder: Path, sites: list[MadeSite]) -> list[Path]:
    paths = [folder / f"{site.name}.card" for site in sites]
    for site, path in zip(sites, paths, strict=True):
        path.write_bytes(site.data)
    return paths
