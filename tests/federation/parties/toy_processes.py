"""What a process of the toy federation makes: one party, from its own key and no other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from federation.parties.toy_federation import Toy, ToyAnswers, identities, plan_of, roster_of

from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.roster import Roster
from secure_fl.engines.pipes import Ask
from secure_fl.federation.parties.client import FederationClient, Site
from secure_fl.federation.parties.party import Party
from secure_fl.federation.parties.server import FederationServer

MAKE = "federation.parties.toy_processes:make_party"


def prepare(folder: Path, program: Toy, protection: str) -> dict[str, bytes]:
    """Everybody's key in a folder of its own; facts by name of a party, public but for that."""
    people = identities(program.clients)
    roster = roster_of(people)
    public = {
        "roster": roster.sign(people["coordinator"]).hex(),
        "coordinator": people["coordinator"].card().hex(),
        "plan": plan_of(roster, program, protection, "clients")
        .sign(people["coordinator"], roster)
        .hex(),
        "clients": program.clients,
        "rounds": program.rounds,
    }
    facts = {}
    for name in ("server", *roster.names("client")):
        (folder / name).mkdir()
        people[name].save(folder / name / "key")
        facts[name] = json.dumps({**public, "key": str(folder / name / "key")}).encode()
    return facts


def make_party(data: bytes, ask: Ask) -> Sequence[Party]:
    """The server, or one client."""
    facts = json.loads(data)
    coordinator = Member.from_card(bytes.fromhex(facts["coordinator"]))
    roster = Roster.open(bytes.fromhex(facts["roster"]), coordinator)
    identity = Identity.load(Path(facts["key"]))
    program = Toy(facts["clients"], facts["rounds"])
    if identity.role == "server":
        return [FederationServer(identity, roster, bytes.fromhex(facts["plan"]), program)]
    number = roster.names("client").index(identity.name)
    return [FederationClient(identity, roster, Site(lambda plan: (program, ToyAnswers(number))))]
