"""Sites with examples of their own come to the models of one run, bit for bit, where there is no
noise.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from deployment.site.test_data import NAMES, PEOPLE, SITES, of_site, series_config, settings
from deployment.site.test_data import write_series as write

from secure_fl.config import FederationConfig
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.roster import Roster
from secure_fl.data.partitions import ClientData
from secure_fl.deployment.site.data import plan_clients
from secure_fl.engines.queue import Here, Queue
from secure_fl.federation.parties.client_store import KeptClient
from secure_fl.federation.parties.party_folder import PartyFolder
from secure_fl.federation.parties.server import FederationServer
from secure_fl.federation.parties.server_record import Journal
from secure_fl.federation.plan import Plan
from secure_fl.federation.policy.installed import code_digest
from secure_fl.federation.policy.policy import Policy
from secure_fl.federation.policy.terms import SOURCE
from secure_fl.federation.site import LocalSite, program_of
from secure_fl.federation.transcript.chain import Transcript
from secure_fl.federation.transcript.entries import StateEntry, plan_facts
from secure_fl.run import Federation

OPEN = Policy(
    privacy={"unit": ["none"], **dict.fromkeys(("epsilon", "delta", "sketch_epsilon"), "any")},
    sums={
        "protection": ["plain", "masked"],
        **dict.fromkeys(("survivors", "pool", "threshold", "against_a_liar"), "any"),
    },
)


def of_one_run(config: FederationConfig, folder: Path) -> tuple[str, Federation]:
    """Digest of the last state of a run with everybody's examples."""
    rows = [(f"{site}.{who}", number) for site in SITES for who, number in of_site(site)]
    joint = config.model_dump(mode="json")
    source = {"path": str(write(folder / "whole.npz", rows)), "client": "who"}
    joint["data"]["sources"][0] |= source
    run = Federation(joint)
    run.run(folder / "run", progress=False)
    lines = Transcript.open(folder / "run" / "transcript.jsonl").lines()
    return [each.entry.digest for each in lines if isinstance(each.entry, StateEntry)][-1], run


def own_data(config: FederationConfig, folder: Path, plan: Plan) -> dict[str, ClientData]:
    found = dict[str, ClientData]()
    for site in SITES:
        path = write(folder / f"{site}.npz", of_site(site))
        names = [f"{site}.{who}" for who in PEOPLE]
        found |= plan_clients(settings(site, path, name="npz"), folder, plan, names)
    return found


def of_sites(config: FederationConfig, folder: Path, largest: int) -> list[KeptClient]:
    """Clients of sites at the end of their federation."""
    people = [Identity.generate(name) for name in NAMES]
    coordinator, server = (Identity.generate(role, role) for role in ("coordinator", "server"))
    everyone = [one.member for one in (coordinator, server, *people)]
    roster = Roster("study", tuple(everyone), 10)
    tables = config.model_dump(mode="json")
    tables["partition"] |= {"kind": "natural", "clients": len(NAMES)}
    facts = (tables, (2, 16), 3, tuple(NAMES), roster.digest, bytes(32))
    make: Callable[[bytes], Plan] = lambda start: Plan(  # noqa: E731
        *facts, start, 1 << 24, "server", largest=largest, code={SOURCE: code_digest()}
    )
    plan = make(program_of(make(bytes(32))).start().digest)
    signed, data, clients = plan.sign(coordinator, roster), own_data(config, folder, plan), []
    for person in people:
        own = PartyFolder(folder / person.name, person, "study")
        site = LocalSite(own.path, person.name, roster, data[person.name], OPEN)
        clients.append(KeptClient(person, roster, site.site, own))
    told = Transcript.new(None)
    told.append("plan", plan_facts(plan, roster))
    journal = Journal(told.append, told.after, lambda: told.head)
    clock = FederationServer(server, roster, signed, program_of(plan), journal=journal)
    Queue([Here([clock]), Here(clients)], "server").run()
    assert clock.failed is None
    assert [each.over for each in clients] == [True] * len(clients)
    return clients


@pytest.mark.parametrize("protection", ["plain", "masked"])
def test_sites_come_to_the_models_of_one_run(tmp_path: Path, protection: str) -> None:
    start = {"plain": {"count": 2, "warmup_rounds": 0}, "masked": {"enabled": False}}[protection]
    more = {"evaluate": {"enabled": False}, "security": {"protection": protection}}
    base = series_config().model_dump(mode="json")
    tables = base | more | {"pretrain": base["pretrain"] | {"rounds": 2}}
    config = FederationConfig(**tables | {"pools": base["pools"] | {"rounds": 2} | start})
    digest, run = of_one_run(config, tmp_path)
    clients = of_sites(config, tmp_path, run.factory.facts.largest)
    assert {client.state.digest.hex() for client in clients if client.state} == {digest}
    for client in clients:
        client.folder.close()
