"""A private federation of real clients; what each process makes, from its own key and examples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from federation.parties.toy_federation import identities, roster_of
from helpers import make_images, tiny_config

from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.roster import Roster
from secure_fl.data.partitions import ClientData
from secure_fl.engines.pipes import Ask
from secure_fl.federation.parties.authority_store import KeptAuthority
from secure_fl.federation.parties.client_store import KeptClient
from secure_fl.federation.parties.party import Party
from secure_fl.federation.parties.party_folder import PartyFolder
from secure_fl.federation.parties.server_record import Journal
from secure_fl.federation.parties.server_store import KeptServer
from secure_fl.federation.plan import Plan
from secure_fl.federation.policy.installed import code_digest
from secure_fl.federation.policy.policy import Policy
from secure_fl.federation.policy.terms import SOURCE
from secure_fl.federation.site import LocalSite, program_of
from secure_fl.federation.transcript.chain import Transcript
from secure_fl.federation.transcript.entries import plan_facts

MAKE = "federation.parties.site_processes:make_party"
CLIENTS = 6
PRIVACY = {"unit": "example", "noise": 2.0, "epsilon": 60.0}


def plan_of(roster: Roster, key_holder: str) -> Plan:
    """Pre-training, sketches and pools, in as few rounds as there can be."""
    config = tiny_config(
        partition={"kind": "iid", "clients": CLIENTS, "groups": 1},
        privacy=PRIVACY,
        pretrain={"rounds": 1},
        pools={"rounds": 1, "count": 2, "warmup_rounds": 0},
        evaluate={"enabled": False},
        security={"protection": "bfv+masked", "key_holder": key_holder},
    )
    facts: dict[str, Any] = {
        "configuration": config.model_dump(mode="json"),
        "shape": (1, 8, 8),
        "classes": 3,
        "clients": roster.names("client"),
        "roster": roster.digest,
        "layout": bytes(32),
        "largest_state": 1 << 24,
        "server": "server",
        "authority": "authority" if key_holder == "authority" else "",
        "code": {SOURCE: code_digest()},
    }
    start = program_of(Plan(start=bytes(32), **facts)).start().digest
    return Plan(start=start, **facts)


def prepare(folder: Path, key_holder: str) -> dict[str, bytes]:
    """Everybody's key in a file; facts by name of a party, public but for where that is."""
    people = identities(CLIENTS)
    roster = roster_of(people)
    plan = plan_of(roster, key_holder).sign(people["coordinator"], roster)
    public = {
        "roster": roster.sign(people["coordinator"]).hex(),
        "coordinator": people["coordinator"].card().hex(),
        "plan": plan.hex(),
        "folder": str(folder),
    }
    names = ["server", *roster.names("client")]
    names += ["authority"] if key_holder == "authority" else []
    for name in names:
        people[name].save(folder / "identities" / name)
    return {name: json.dumps({**public, "name": name}).encode() for name in names}


def examples(number: int) -> ClientData:
    """Of one client, which nobody else makes."""
    part = make_images(36, seed=number)
    return ClientData(number, part, part, part, None, "", f"client-{number:04d}")


def make_party(data: bytes, ask: Ask) -> Sequence[Party]:
    """The server, the authority, or one client, from its folder."""
    facts = json.loads(data)
    folder, name = Path(facts["folder"]), facts["name"]
    coordinator = Member.from_card(bytes.fromhex(facts["coordinator"]))
    roster = Roster.open(bytes.fromhex(facts["roster"]), coordinator)
    identity = Identity.load(folder / "identities" / name)
    own = PartyFolder(folder / name, identity, roster.federation)
    signed = bytes.fromhex(facts["plan"])
    if identity.role == "server":
        program, path = program_of(Plan.open(signed, roster)), own.path / "transcript.jsonl"
        told = Transcript.open(path) if path.is_file() else Transcript.new(path)
        if not len(told):
            evidence = [bytes.fromhex(facts[name]) for name in ("coordinator", "roster", "plan")]
            told.append("plan", plan_facts(Plan.open(signed, roster), roster), evidence)
        journal = Journal(told.append, told.after, lambda: told.head)
        return [KeptServer(identity, roster, signed, program, own, journal=journal)]
    if identity.role == "authority":
        return [KeptAuthority(identity, roster, program_of, own)]
    number, epsilon = roster.names("client").index(name), facts.get("epsilon", 80.0)
    privacy = {"unit": ["example"], "epsilon": epsilon, "delta": 1e-5}
    policy = Policy(privacy=privacy, sums={"cohort": 3, "key_holder": ["authority"]})
    site = LocalSite(own.path, name, roster, examples(number), policy)
    return [KeptClient(identity, roster, site.site, own)]
