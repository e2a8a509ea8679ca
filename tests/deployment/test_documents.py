"""Key cards and invitations: what is changed, or does not fit, is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from deployment.made_sites import MadeSite, make_site, make_sites, node_key, small_config

from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.refusals import RefusedError
from secure_fl.crypto.strict_json import canonical, to_base64
from secure_fl.deployment.certificates import new_request
from secure_fl.deployment.coordinator import Coordinator
from secure_fl.deployment.invitation import Invitation
from secure_fl.deployment.key_card import MOST_CARD, KeyCard
from secure_fl.deployment.planning import Study
from secure_fl.deployment.settings import Deployment
from secure_fl.errors import SecureSumError


@pytest.fixture(scope="module")
def site() -> MadeSite:
    return make_site("north", (0, 1))


@pytest.fixture(scope="module")
def invitation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Coordinator, bytes]:
    path = tmp_path_factory.mktemp("federation")
    settings = Deployment(name="trial", launch="direct")
    made = Coordinator.new(path, settings, small_config(), Study())
    made.publish(made.draft([site.data for site in make_sites()]))
    return made, made.invitation_of("north").read_bytes()


def refuses(read: Callable[[bytes], object], data: bytes) -> str:
    with pytest.raises(RefusedError) as error:
        read(data)
    assert error.value.remedy
    return str(error.value.reason)


def changed(data: bytes, count: int, seed: int) -> list[bytes]:
    """The data with one byte changed, at places drawn at random, and cut or longer."""
    draw, found = random.Random(seed), list[bytes]()
    for _ in range(count):
        place, other = draw.randrange(len(data)), draw.randrange(1, 256)
        found.append(data[:place] + bytes([data[place] ^ other]) + data[place + 1 :])
    return [*found, data[:-1], data + b" ", data + data, b""]


def test_a_card_says_what_the_site_said(site: MadeSite) -> None:
    read = KeyCard.open(site.data)
    assert read == site.card
    assert read.fingerprint == site.card.fingerprint
    assert read.parties == ("client-0000", "client-0001")


def test_any_changed_byte_of_a_card_is_refused(site: MadeSite) -> None:
    for data in changed(site.data, 600, 1):
        refuses(KeyCard.open, data)


def test_any_changed_byte_of_an_invitation_is_refused(
    invitation: tuple[Coordinator, bytes],
) -> None:
    for data in changed(invitation[1], 400, 2):
        refuses(Invitation.open, data)


def resigned(site: MadeSite, /, **facts: Any) -> bytes:
    """A card that its parties signed although it says something else."""
    document = site.card._document() | facts
    data = canonical(document)
    signatures = {one.name: one.sign(b"key card", data).hex() for one in site.people}
    return canonical({"card": document, "signatures": signatures})


@pytest.mark.parametrize(
    "facts",
    [
        {"site": "server"},
        {"site": "../x"},
        {"site": "south"},
        {"shape": []},
        {"shape": [1, 0]},
        {"shape": [1, True]},
        {"shape": [1] * 9},
        {"classes": -1},
        {"classes": True},
        {"examples": {"client-0007": 3}},
        {"examples": {"client-0000": 0}},
        {"examples": {"client-0000": "many"}},
        {"parties": []},
        {"parties": ["AAAA"]},
        {"request": "AAAA"},
        {"node": "AAAA"},
        {"format": "secure-fl key card 2"},
        {"more": 1},
    ],
)
def test_a_signed_card_that_says_nonsense_is_refused(site: MadeSite, facts: dict[str, Any]) -> None:
    refuses(KeyCard.open, resigned(site, **facts))


def test_a_card_needs_every_party_and_no_other(site: MadeSite) -> None:
    with pytest.raises(SecureSumError, match="other parties sign"):
        site.card.encode(site.people[:1])
    outer = json.loads(site.data)
    outer["signatures"].pop("client-0001")
    assert refuses(KeyCard.open, canonical(outer)) == "malformed"
    twice = [to_base64(site.people[0].card())] * 2
    assert refuses(KeyCard.open, resigned(site, parties=twice)) == "malformed"
    boss = Identity.generate("boss", "coordinator")
    cards = (*site.card.cards, boss.card())
    with pytest.raises(RefusedError, match="wrong-role"):
        replace(site.card, cards=cards)


def test_a_request_of_another_site_and_a_long_card_are_refused(site: MadeSite) -> None:
    other = to_base64(new_request("south")[0])
    assert refuses(KeyCard.open, resigned(site, request=other)) == "unknown-client"
    two = to_base64(site.card.request + site.card.request)
    assert refuses(KeyCard.open, resigned(site, request=two)) == "malformed"
    lines = to_base64(node_key() + b"\n" + node_key())
    assert refuses(KeyCard.open, resigned(site, node=lines)) == "malformed"
    assert refuses(KeyCard.open, b" " * (MOST_CARD + 1)) == "malformed"


def test_an_invitation_says_what_the_coordinator_said(
    invitation: tuple[Coordinator, bytes],
) -> None:
    made, data = invitation
    read = Invitation.open(data, made.identity.member)
    assert (read.site, read.parties) == ("north", ("client-0000", "client-0001"))
    assert read.settings == made.settings
    assert read.sign(made.identity) == data
    assert Member.from_card(read.coordinator) == made.identity.member
    assert made.authority.pem == read.authority


def test_an_invitation_of_another_coordinator_is_refused(
    invitation: tuple[Coordinator, bytes],
) -> None:
    made, data = invitation
    other = Identity.generate("coordinator", "coordinator")
    with pytest.raises(RefusedError, match="wrong-key"):
        Invitation.open(data, other.member)
    read = Invitation.open(data)
    # whoever signs anew what another coordinator's roster says is found out
    stolen = replace(read, coordinator=other.card()).sign(other)
    assert refuses(Invitation.open, stolen) == "wrong-signature"
    for facts in (
        {"parties": ("nobody",)},
        {"site": "south"},
        {"settings": Deployment(name="other")},
        {"app": "zz"},
        {"parties": ()},
        {"authority": read.certificate},
    ):
        refuses(Invitation.open, replace(read, **facts).sign(made.identity))
