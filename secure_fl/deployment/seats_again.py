"""Seats where `seats.json` is lost or damaged: by the key cards and certificates that the
coordinator keeps. Of each site the newest certificate alone is good then, and one that was revoked
stays so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from secure_fl.crypto.roster import Roster
from secure_fl.deployment.key_card import MOST_CARD, KeyCard
from secure_fl.deployment.seats import Seat, seat_of
from secure_fl.files import listed, read_bytes


def seats_again(
    cards: Mapping[str, bytes],
    revoked: Mapping[str, bytes],
    certified: Callable[[str], bytes | None],
) -> dict[str, Seat]:
    """All seats for which there is a certificate.

    Args:
        cards, revoked: key cards of sites that take part, and of those that do no more.
        certified: the certificate of a site, PEM; None where there is no whole one.

    Raises:
        RefusedError: a card that is not right.
        DeploymentError: another site's.
    """
    found = dict[str, Seat]()
    for site, data in (dict(revoked) | dict(cards)).items():
        card, pem = KeyCard.of_site(site, data), certified(site)
        if pem is not None:
            found[site] = replace(seat_of(card, pem, None), revoked=site not in cards)
    return found


def parties_without(roster: Roster, cards: Iterable[KeyCard]) -> list[str]:
    """Names of sites' parties that are on the roster and on none of the cards."""
    told = {name for card in cards for name in card.parties}
    return sorted({*roster.names("client"), *roster.names("authority")} - told)


def cards_in(folder: Path) -> dict[str, bytes]:
    """Key cards in a folder, by site, as they were sent. Raises FileError."""
    found = (each for each in listed(folder) if each.suffix == ".card")
    return {path.stem: read_bytes(path, most=MOST_CARD) for path in found}
