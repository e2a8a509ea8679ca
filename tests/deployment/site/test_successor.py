"""A hospital joins between two rounds: a closed federation goes on under a plan of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deployment.federations import commanded
from deployment.made_sites import small_config
from deployment.site.three_sites import POLICY, Made3, make_three, site_settings, write_images

from secure_fl.deployment.planning import Draft
from secure_fl.deployment.server_folder import ServerFolder
from secure_fl.deployment.site.checking import check_site
from secure_fl.deployment.site.joining import join
from secure_fl.deployment.site.making import make_site
from secure_fl.deployment.site.parties import SiteParties
from secure_fl.deployment.succession import Ended
from secure_fl.engines.queue import Here, Queue
from secure_fl.errors import DeploymentError, RunFolderError
from secure_fl.federation.plan import Plan
from secure_fl.federation.state import Place
from secure_fl.federation.verify.check import verify
from secure_fl.federation.verify.folder import ReadFolder
from secure_fl.federation.verify.predecessor import check_before
from secure_fl.privacy.ledger import PrivacyLedger

pytestmark = pytest.mark.timeout(900)
NEW = "a-hospital"
"""Its clients come before all others by name, and have the next numbers."""
TWO_ROUNDS = small_config(
    pretrain={"mode": "none"},
    pools={"rounds": 2, "sketch_iterations": 1},
    security={"protection": "masked"},
)


@contextmanager
def at(made: Made3, names: Sequence[str]) -> Iterator[list[SiteParties]]:
    """The parties of some sites, by what these have joined."""
    with ExitStack() as stack:
        found = list[SiteParties]()
        for name in names:
            _, roster, plan = made.folder(name).federation()
            found.append(SiteParties(made.folder(name), roster, plan))
            stack.callback(found[-1].close)
        yield found


def run(made: Made3, *, close_at: tuple[str, int] | None = None) -> Path:
    """All parties to the end, in this process; the server's record."""
    folder = ServerFolder.open(made.coordinator.server, newest=True)
    server = folder.party()
    names = folder.program.names
    if close_at is not None:
        server.closing = lambda: (names[server.place.step], server.place.round) == close_at
    with at(made, list(made.sites)) as sites:
        clients = [one.party for site in sites for one in site.hosted]
        Queue([Here([server]), Here(clients)], "server").run()
        said = [text for site in sites for text in site.objections]
    server.folder.close()
    assert (server.failed, said) == (None, [])
    return folder.record


def add_site(made: Made3) -> None:
    """A fourth hospital sends its key card."""
    data = write_images(made.root / f"{NEW}.npz", 70)
    made.sites[NEW] = make_site(made.root / NEW, site_settings(NEW, data), TWO_ROUNDS)
    made.folder(NEW).policy_file.write_text(POLICY)


def sign_after(made: Made3, record: Path, **otherwise: Any) -> Plan:
    """The coordinator signs a plan that goes on from a record; everybody joins it.

    Args:
        otherwise: facts of the plan that are others than honest ones.
    """
    coordinator = made.coordinator
    cards = [each.folder.key_card.read_bytes() for each in made.sites.values()]
    draft = coordinator.draft(cards, again=True)
    ended = Ended.of(record, coordinator.identity.member)
    draft = ended.followed_by(draft)
    draft = replace(draft, plan=replace(draft.plan, **otherwise))
    coordinator.publish(draft)
    for name in made.sites:
        data = made.invitation(name).read_bytes()
        join(made.folder(name), data, made.fingerprint, replace=True)
    return draft.plan


def ledger(made: Made3, plan: Plan, site: str) -> PrivacyLedger:
    return PrivacyLedger.load(made.folder(site).party(plan, f"{site}.person-01") / "ledger.json")


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made3, Path]:
    """Three hospitals, whose federation was closed after the first of two rounds of pools."""
    made = make_three(tmp_path_factory.mktemp("closed"), TWO_ROUNDS)
    return made, run(made, close_at=("cluster", 1))


def refused(made: Made3, name: str = "hospital-1") -> str:
    """What the first client of a site says to the plan that it has joined, in words."""
    with at(made, [name]) as [site]:
        party = site.hosted[0].party
        party.receive(made.folder(name).invitation.plan)
        assert party.state is None
        return "; ".join(site.objections)


def honest(made: Made3, record: Path) -> Plan:
    plan = sign_after(made, record)
    assert plan.follows is not None
    return plan


def test_a_coordinator_that_lies_is_refused(closed: tuple[Made3, Path]) -> None:
    made, record = closed
    plan = honest(made, record)
    lower = {**plan.configuration, "security": {**plan.configuration["security"], "threshold": 5}}
    sign_after(made, record, configuration=lower)
    assert "other security.threshold" in refused(made)
    assert plan.follows is not None
    back = replace(plan.follows, place=Place(plan.follows.place.step, 0))
    for lie in ({"follows": back}, {"start": bytes(32)}):
        sign_after(made, record, **lie)
        assert "not go on from where this client has come to" in refused(made)
    sign_after(made, record, follows=replace(plan.follows, plan=bytes(32)))
    with pytest.raises(DeploymentError, match="was not in, and its ledger would not"):
        refused(made)
    draft = made.coordinator.draft()
    other = draft.plan.config.model_copy(update={"seed": 9}).model_dump(mode="json")
    ended = Ended.of(record, made.coordinator.identity.member)
    with pytest.raises(DeploymentError, match="other seed"):
        ended.followed_by(replace(draft, plan=replace(draft.plan, configuration=other)))


def test_a_ledger_goes_on_or_nothing_does(closed: tuple[Made3, Path]) -> None:
    """Gone, shortened, or left behind with its folder."""
    made, record = closed
    plan, folder = honest(made, record), made.folder("hospital-2")
    assert plan.follows is not None
    there = folder.party_under(plan.follows.plan, "hospital-2.person-01")
    path, whole = there / "ledger.json", (there / "ledger.json").read_bytes()
    first, *_ = PrivacyLedger.load(path).since(None)
    short = PrivacyLedger(PrivacyLedger.load(path).budget)
    short.record(first)
    short.save(path)
    assert "has lost releases" in refused(made, "hospital-2")
    path.unlink()
    assert "ledger" in refused(made, "hospital-2")
    path.write_bytes(whole)
    for name in ("progress.sealed", "head", "examples.sealed"):
        (there / name).rename(made.root / name)
    with pytest.raises(RunFolderError, match=r"examples\.sealed: is gone"):
        refused(made, "hospital-2")
    for name in ("head", "progress.sealed", "examples.sealed"):
        (made.root / name).rename(there / name)
    away = there.rename(there.with_name("away"))
    with pytest.raises(DeploymentError, match="what it had of the plan before is gone"):
        refused(made, "hospital-2")
    away.rename(there)


def test_a_plan_that_nobody_here_agreed_to_hides_no_ledger(closed: tuple[Made3, Path]) -> None:
    """A site that was away under the second of three plans has a folder there, and no ledger."""
    made, record = closed
    second = honest(made, record)
    with at(made, ["hospital-3"]):  # its server is never heard of
        pass
    assert second.follows is not None
    sign_after(made, record, follows=replace(second.follows, plan=second.digest))
    with pytest.raises(DeploymentError, match="was not in, and its ledger would not"):
        refused(made, "hospital-3")


def test_newcomers_are_not_more_than_can_be_shown_the_models(closed: tuple[Made3, Path]) -> None:
    made, record = closed
    ended = Ended.of(record, made.coordinator.identity.member)
    draft = made.coordinator.draft(again=True)

    def with_newcomers(number: int) -> Draft:
        clients = (*draft.plan.clients, *(f"new.{one:02d}" for one in range(number)))
        tables = draft.plan.configuration
        tables = {**tables, "partition": {**tables["partition"], "clients": len(clients)}}
        plan = replace(draft.plan, clients=clients, configuration=tables)
        return ended.followed_by(replace(draft, plan=plan))

    rules = with_newcomers(2).plan.rules(8)
    assert rules is not None
    assert rules.threshold <= len(ended.plan.clients)
    with pytest.raises(DeploymentError, match="too few stay"):
        with_newcomers(12)


def test_what_goes_on_is_not_begun_anew_by_mistake(closed: tuple[Made3, Path]) -> None:
    made, record = closed
    assert "closed before its last round" in commanded("federate", "status", record.parents[1])[1]
    line = ("federate", "sign", made.coordinator.path)
    for more, told in ((("--again",), "begins anew"), (("--after", record), "goes on from a")):
        code, said = commanded(*line, *more)
        assert (code, told in " ".join(said.split())) == (0, True)
    plan = made.coordinator.in_force()
    code, said = commanded(*line)
    assert (code, "goes on from another" in " ".join(said.split())) == (1, True)
    assert commanded(*line, "--after", record)[0] == 0
    assert made.coordinator.in_force() == plan


def test_a_site_joins_between_rounds(closed: tuple[Made3, Path]) -> None:
    made, first = closed
    add_site(made)
    _end_in_vain(made, first)
    plan = honest(made, first)
    _check_what_is_left(made)
    _kill_while_it_agrees(made, plan)
    record = run(made)
    assert not ServerFolder.open(made.coordinator.server).rounds_left
    assert plan.follows is not None
    was = made.folder("hospital-1").party_under(plan.follows.plan, "hospital-1.person-01")
    earlier, old = PrivacyLedger.load(was / "ledger.json"), ledger(made, plan, "hospital-1")
    assert [one.phase for one in old.since(earlier.mark)] == ["cluster"]
    assert old.lost([("before", earlier.mark)]) == []
    assert {one.subjects for one in old.releases} == {(0,)}
    # a newcomer pays for what it gives, and for nothing before
    new = [(one.phase, one.round) for one in ledger(made, plan, NEW).since(None)]
    assert [phase for phase, _ in new] == ["sketch", "cluster"]
    check_records([first, was], "")
    check_records([record, *_parties(made, plan, "hospital-1")], "whose record beside ends at")
    check_records(_parties(made, plan, NEW), "whose record is not beside")
    sign_after(made, first, first_day="2026-01-01")
    assert "another plan goes on from there already" in refused(made)
    forged = replace(plan.follows, head=bytes(32))
    _check_forged(record, replace(plan, follows=forged))


def _check_what_is_left(made: Made3) -> None:
    """A site is told what rounds are left, not what a federation from the beginning has."""
    lines = check_site(made.folder("hospital-1"), reach=False)
    [left] = [line for line in lines if line.what.startswith("phase ")]
    assert (left.what, left.said.partition(";")[0]) == ("phase cluster", "1 round at most")


def _end_in_vain(made: Made3, record: Path) -> None:
    """A plan that goes on, for which too few came; those who did can go on under another."""
    honest(made, record)
    folder = ServerFolder.open(made.coordinator.server, newest=True)
    server = folder.party()
    with at(made, ["hospital-1", NEW]) as sites:
        here = [one.party for site in sites for one in site.hosted]
        Queue([Here([server]), Here(here)], "server").run()
        assert all(party.over for party in here)
    server.folder.close()
    assert server.failed is not None


def _kill_while_it_agrees(made: Made3, plan: Plan) -> None:
    """A client has written all but how far it is."""
    for _ in range(2):
        with at(made, ["hospital-1"]) as [site]:
            party = site.hosted[0].party
            party.receive(made.folder("hospital-1").invitation.plan)
            assert plan.follows is not None
            assert party.state is not None
            assert party.state.place == plan.follows.place
            (party.folder.path / "progress.sealed").unlink()


def check_records(places: Sequence[Path], told: str) -> None:
    """Nothing is found in them, and they say so of what they go on from."""
    for place in places:
        found = verify(place)
        assert found.findings == (), place
        said = dict(found.checked).get("goes on from", "")
        assert (told in said, bool(told)) == (True, bool(said)), place


def _check_forged(record: Path, plan: Plan) -> None:
    """The record before is held against what the signed plan says of it."""
    found = ReadFolder(record)
    check_before(found, plan, party=False)
    assert [one.problem for one in found.findings] == ["the record before has another last line"]


def _parties(made: Made3, plan: Plan, site: str) -> list[Path]:
    folder = made.folder(site)
    return [folder.party(plan, name) for name in folder.identities]
