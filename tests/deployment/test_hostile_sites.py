"""Key cards of sites that mean harm, in good form and signed by all their parties."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deployment.made_sites import make_sites, node_key, small_config

from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import RefusedError
from secure_fl.deployment.certificates import new_request
from secure_fl.deployment.coordinator import Coordinator
from secure_fl.deployment.key_card import KeyCard
from secure_fl.deployment.planning import Study
from secure_fl.deployment.settings import Deployment
from secure_fl.errors import ConfigError, DeploymentError


def made_in(path: Path, **settings: Any) -> Coordinator:
    told = Deployment(**{"name": "trial", "launch": "direct", **settings})
    return Coordinator.new(path, told, small_config(), Study())


@pytest.mark.parametrize("beyond", ["client-0002", "client-0099"])
def test_a_renewal_takes_no_seat_of_another_site(tmp_path: Path, beyond: str) -> None:
    """A card with a party more, by a name that another site has, would get that one's messages."""
    made, sites = made_in(tmp_path), make_sites()
    made.publish(made.draft([site.data for site in sites]))
    before, north = made.seats.read(), sites[0]
    people = (*north.people, Identity.generate(beyond))
    cards = tuple(one.card() for one in people)
    more = replace(north.card, cards=cards, request=new_request("north")[0]).encode(people)
    with pytest.raises(DeploymentError, match="other parties"):
        made.renew_site("north", more)
    assert made.seats.read() == before
    assert KeyCard.open(made.cards()["north"]) == north.card


@pytest.mark.parametrize(
    "tail", [b" \xff", b" \x1b[2Jready", b" a\rb", b" \xc3\xa9", b"\x0b", b" " + b"x" * 4096]
)
def test_a_node_key_has_one_spelling(tmp_path: Path, tail: bytes) -> None:
    """What stands behind a key goes into files and onto screens."""
    north = make_sites()[0]
    with pytest.raises(RefusedError, match="malformed"):
        replace(north.card, node=node_key() + tail)
    kept = replace(north.card, node=node_key() + b" north@hospital\n").encode(north.people)
    assert KeyCard.open(kept).node.endswith(b"hospital\n")


def test_two_sites_with_one_node_are_refused(tmp_path: Path) -> None:
    """Public keys are public: who puts another's on its card would have it called twice."""
    made, (north, east, south) = made_in(tmp_path, launch="flower"), make_sites()
    copied = replace(east.card, node=north.card.node + b" mine").encode(east.people)
    with pytest.raises(DeploymentError, match="node of another site"):
        made.draft([north.data, copied, south.data])
    made.publish(made.draft([north.data, east.data, south.data]))
    with pytest.raises(DeploymentError, match="node of another site"):
        made.renew_site("east", copied)


@pytest.mark.parametrize("table", ["server", "superlink"])
@pytest.mark.parametrize(
    "host", ["unix:/tmp/door", "unix:door", "\x1b[2Jready", "a b", "a/b", "fe80::1%\x1b", "-x", ""]
)
def test_a_host_is_a_name_or_an_address(table: str, host: str) -> None:
    """A site dials it, and shows it: an invitation says it, whoever signed that."""
    for field in ("host", "bind"):
        with pytest.raises(ConfigError):
            Deployment(**{table: {field: host}})
        for good in ("fl.example.org", "192.0.2.7", "2001:db8::7", "host_1", "::"):
            Deployment(**{table: {field: good}})
