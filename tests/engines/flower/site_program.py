"""The process of one small site: its clients, from their folders, by its door.

    python site_program.py FOLDER

Writes `result.json`: each client's state, and what it released.
"""

from __future__ import annotations

import sys
from pathlib import Path

from engines.flower.faults import Faulty
from helpers import make_images

from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.roster import Roster
from secure_fl.data.partitions import ClientData
from secure_fl.deployment.invitation import Invitation
from secure_fl.engines.flower.door import Door, DoorLink
from secure_fl.engines.session.dialling import SessionClient
from secure_fl.engines.session.driver import Driver
from secure_fl.engines.session.link import Link
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.federation.parties.client_store import KeptClient
from secure_fl.federation.parties.party_folder import PartyFolder
from secure_fl.federation.policy.policy import Policy
from secure_fl.federation.site import LocalSite
from secure_fl.files import is_file, write_json

PRIVACY = {"unit": ["example", "none"], "epsilon": "any", "delta": "any"}


def examples(number: int) -> ClientData:
    part = make_images(36, seed=number)
    return ClientData(number, part, part, part, None, "", f"client-{number:04d}")


def client(folder: Path, name: str, roster: Roster) -> KeptClient:
    identity = Identity.load(folder / "identities" / name)
    own = PartyFolder(folder / "parties" / name, identity, roster.federation)
    policy = Policy(privacy=PRIVACY, sums={"cohort": 3})
    number = int(name.removeprefix("client-"))
    site = LocalSite(own.path, name, roster, examples(number), policy)
    return KeptClient(identity, roster, site.site, own)


def result(parties: list[KeptClient]) -> dict[str, object]:
    return {
        party.name: {
            "state": party.state.digest.hex() if party.state else "",
            "over": party.over,
            "refused": [str(one) for one in party.refusals.first],
        }
        for party in parties
    }


def clients(folder: Path, invitation: Invitation) -> list[KeptClient]:
    roster = Roster.open(invitation.roster, Member.from_card(invitation.coordinator))
    return [client(folder, name, roster) for name in invitation.parties]


def link(folder: Path, invitation: Invitation, door: Door, *, at_once: bool) -> Link:
    settings = invitation.settings
    if settings.transport == "messages":
        return DoorLink(door)
    while not at_once and door.session(1.0) is None:
        pass
    tls = TlsFiles(folder / "authority.pem", folder / "site.pem", folder / "site.key")
    address = f"{settings.server.host}:{settings.server.port}"
    names = invitation.parties
    return SessionClient(address, tls, invitation.site, names, federation=settings.name)


def main(folder: Path) -> None:
    invitation = Invitation.open((folder / "invitation").read_bytes())
    begun = is_file(folder / "parties" / invitation.parties[0] / "owner")
    parties, door = clients(folder, invitation), Door(folder)
    way = Faulty(link(folder, invitation, door, at_once=begun), folder)
    Driver(parties, way).run(linger=3.0)
    write_json(folder / "result.json", result(parties))
    door.finish("")
    way.close()
    door.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
