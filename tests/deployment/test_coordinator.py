"""What a coordinator signs: rosters, plans, seats, invitations; and what it refuses to."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deployment.made_sites import MadeSite, make_site, make_sites, small_config

from secure_fl.config import FederationConfig
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.deployment.certificates import digest_of, new_request
from secure_fl.deployment.coordinator import Coordinator
from secure_fl.deployment.invitation import Invitation
from secure_fl.deployment.key_card import KeyCard
from secure_fl.deployment.planning import Study, strong_sites
from secure_fl.deployment.server_folder import ServerFolder
from secure_fl.deployment.settings import Deployment
from secure_fl.errors import ConfigError, DataError, DeploymentError, SecureSumError
from secure_fl.federation.plan import Plan
from secure_fl.federation.policy.installed import code_digest
from secure_fl.federation.policy.terms import SOURCE

DIRECT = Deployment(name="trial", launch="direct")


def made_in(path: Path, config: FederationConfig | None = None, **study: Any) -> Coordinator:
    return Coordinator.new(path, DIRECT, config or small_config(), Study(**study))


def signed(made: Coordinator, sites: list[MadeSite], **more: Any) -> Plan:
    draft = made.draft([site.data for site in sites], **more)
    made.publish(draft)
    return draft.plan


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".lock" not in path.name
    }


def test_a_plan_says_what_the_sites_and_the_configuration_say(tmp_path: Path) -> None:
    days = {"first_day": "2026-01-01", "last_day": "2026-12-31", "publish_models": True}
    made = made_in(tmp_path, **days)
    plan = signed(made, make_sites())
    assert plan.clients == tuple(f"client-{number:04d}" for number in range(6))
    assert (plan.shape, plan.classes, plan.server, plan.authority) == ((1, 8, 8), 3, "server", "")
    assert (plan.first_day, plan.last_day) == (days["first_day"], days["last_day"])
    assert plan.publish_models
    assert plan.code == {SOURCE: code_digest()}
    assert (plan.config.partition.kind, plan.config.partition.clients) == ("natural", 6)
    assert plan.largest == 1, "counts do not leave sites under privacy"
    folder = ServerFolder.open(made.server)
    assert folder.opened == plan
    assert folder.program.start().digest == plan.start
    assert len(folder.program.start().encode()) < plan.largest_state
    assert folder.opened.layout != bytes(32)


def test_counts_are_in_a_plan_only_where_its_weights_need_them(tmp_path: Path) -> None:
    open_sums = {"privacy": {"unit": "none", "noise": None}, "security": {"protection": "plain"}}
    weighted = {**open_sums, "pretrain": {"weights": "examples"}}
    sites = make_sites()
    counted = [*sites[:2], make_site("south", (4, 5), examples={"client-0004": 50})]
    made = made_in(tmp_path / "a", small_config(**weighted))
    with pytest.raises(DeploymentError, match="client-0005"):
        made.draft([site.data for site in counted])
    assert made.draft([site.data for site in sites]).plan.largest == 36
    uniform = {"weights": "uniform"}
    config = small_config(**open_sums, pretrain=uniform, pools=uniform)
    assert made_in(tmp_path / "b", config).draft([site.data for site in counted]).plan.largest == 1


def test_signing_again_changes_nothing(tmp_path: Path) -> None:
    made, sites = made_in(tmp_path), make_sites()
    first = signed(made, sites)
    before = content(tmp_path)
    for cards in (sites, sites[:1], []):
        assert signed(made, cards).digest == first.digest
        assert content(tmp_path) == before


def test_a_site_that_comes_later_makes_the_next_revision(tmp_path: Path) -> None:
    made, sites = made_in(tmp_path), make_sites()
    first = signed(made, sites)
    old = made.invitation_of("north").read_bytes()
    second = signed(made, [make_site("west", (6, 7))])
    assert len(second.clients) == 8
    roster = ServerFolder.open(made.server).roster
    assert (roster.revision, first.roster != second.roster) == (3, True)
    for site in ("north", "west"):
        invitation = Invitation.open(made.invitation_of(site).read_bytes())
        assert Plan.open(invitation.plan, roster).digest == second.digest
    was, now = Invitation.open(old), Invitation.open(made.invitation_of("north").read_bytes())
    assert was.certificate == now.certificate, "who did nothing keeps its certificate"
    third = signed(made, [], again=True)
    assert third.clients == second.clients
    assert third.digest != second.digest


def test_a_known_sites_card_is_signed_by_all_its_parties(tmp_path: Path) -> None:
    made, sites = made_in(tmp_path), make_sites()
    signed(made, sites)
    with pytest.raises(DeploymentError, match="every party that this site had"):
        made.draft([make_site("north", (0, 1)).data])
    with pytest.raises(DeploymentError, match="every party that this site had"):
        made.draft([make_site("north", (8, 9)).data])
    north, more = sites[0], Identity.generate("client-0009")
    people = (*north.people, more)
    card = replace(north.card, cards=(*north.card.cards, more.card()))
    plan = made.draft([card.encode(people)]).plan
    assert "client-0009" in plan.clients
    with pytest.raises(SecureSumError, match="two members share one"):
        made.draft([make_site("west", (0,)).data])


MISFITS: dict[str, tuple[Callable[[], MadeSite], str]] = {
    "shape": (
        lambda: make_site("west", (6,), shape=(1, 9, 9)),
        r"north has shape .* west|west has",
    ),
    "classes": (lambda: make_site("west", (6,), classes=4), "west has classes 4|has classes 4"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_a_site_that_differs_is_refused_by_name(tmp_path: Path, what: str) -> None:
    made, (site, said) = made_in(tmp_path), MISFITS[what]
    before = content(tmp_path)
    with pytest.raises(DeploymentError, match=said):
        made.draft([each.data for each in (*make_sites(), site())])
    assert content(tmp_path) == before


def test_too_few_clients_are_refused_by_the_configurations_rules(tmp_path: Path) -> None:
    made = made_in(tmp_path)
    before = content(tmp_path)
    with pytest.raises(ConfigError, match="cannot fill every pool") as error:
        made.draft([site.data for site in make_sites()[:2]])
    assert error.value.remedy.startswith("at least 6")
    with pytest.raises(DeploymentError, match="no site has examples"):
        made.draft()
    assert content(tmp_path) == before


def test_examples_that_a_plan_would_deal_out_are_refused(tmp_path: Path) -> None:
    made = made_in(tmp_path, small_config(partition={"kind": "iid", "groups": 1}))
    with pytest.raises(DeploymentError, match=r"partition.kind"):
        made.draft([site.data for site in make_sites()])


def test_means_that_are_not_one_a_column_are_refused(tmp_path: Path) -> None:
    given = {"column_means": [0.0], "column_deviations": [1.0]}
    made = made_in(tmp_path, small_config(data={"classes": 3, **given}))
    with pytest.raises(DataError, match="1 means and deviations for examples of shape"):
        made.draft([site.data for site in make_sites()])


def keeper(*names: str) -> MadeSite:
    """A site of authorities."""
    people = tuple(Identity.generate(name, "authority") for name in names)
    request, key = new_request("keeper")
    card = KeyCard("keeper", tuple(one.card() for one in people), request)
    return MadeSite("keeper", people, key, card)


def test_one_authority_holds_the_key_where_it_is_to(tmp_path: Path) -> None:
    sites = make_sites()
    held = small_config(security={"key_holder": "authority"})
    made = made_in(tmp_path / "held", held)
    for others in ([], [keeper("one", "two")]):
        with pytest.raises(DeploymentError, match="one authority is to hold the key"):
            made.draft([site.data for site in (*sites, *others)])
    plan = signed(made, [*sites, keeper("trust")])
    assert (plan.authority, plan.by_authority) == ("trust", True)
    assert Invitation.open(made.invitation_of("keeper").read_bytes()).parties == ("trust",)
    with pytest.raises(DeploymentError, match="there is an authority"):
        made_in(tmp_path / "clients").draft([site.data for site in (*sites, keeper("trust"))])


def test_a_revoked_site_is_let_in_no_more(tmp_path: Path) -> None:
    made, sites = made_in(tmp_path), [*make_sites(), make_site("west", (6, 7))]
    signed(made, sites)
    folder = ServerFolder.open(made.server)
    seat = folder.seats()["west"]
    assert folder.admitted("west", seat.certificate) == ("client-0006", "client-0007")
    revision = folder.roster.revision
    roster = made.revoke("west")
    assert roster.revision > revision
    assert folder.admitted("west", seat.certificate) is None
    assert not made.invitation_of("west").exists()
    with pytest.raises(DeploymentError, match="no plan is signed"):
        ServerFolder.open(made.server)
    plan = signed(made, [])
    assert "client-0006" not in plan.clients
    with pytest.raises(RefusedError, match="revoked"):
        made.draft([sites[-1].data])
    with pytest.raises(DeploymentError, match="no such site"):
        made.revoke("west")
    back = make_site("west", (6, 7))
    assert signed(made, [back]).clients == tuple(f"client-{n:04d}" for n in range(8))
    assert folder.admitted("west", seat.certificate) is None
    assert folder.admitted("west", made.seats.read()["west"].certificate) == back.card.parties


def test_a_renewed_certificate_stands_beside_the_one_before(tmp_path: Path) -> None:
    made, sites = made_in(tmp_path), make_sites()
    signed(made, sites)
    found = [made.seats.read()["north"].certificate]
    for only in (False, False, True):
        request, _ = new_request("north")
        made.renew_site("north", request, only=only)
        invitation = Invitation.open(made.invitation_of("north").read_bytes())
        seat = made.seats.read()["north"]
        assert seat.certificate == digest_of(invitation.certificate) != found[-1]
        assert seat.certificates == ((seat.certificate,) if only else (seat.certificate, found[-1]))
        found.append(seat.certificate)
    assert signed(made, []).clients, "signing again keeps what was renewed"
    assert made.seats.read()["north"].certificate == found[-1]
    with pytest.raises(RefusedError, match="unknown-client"):
        made.renew_site("north", new_request("south")[0])
    stranger = make_site("north", (0, 1))
    with pytest.raises(DeploymentError, match="every party that this site had"):
        made.renew_site("north", stranger.data)
    with pytest.raises(DeploymentError, match="no such site"):
        made.renew_site("west", new_request("west")[0])


def test_with_flower_every_site_needs_a_node(tmp_path: Path) -> None:
    settings = Deployment(name="trial", launch="flower")
    made = Coordinator.new(tmp_path, settings, small_config(), Study())
    north, *others = make_sites()
    bare = replace(north.card, node=b"").encode(north.people)
    with pytest.raises(DeploymentError, match="it has no node"):
        made.draft([bare, *(site.data for site in others)])


def test_a_site_that_could_open_others_updates_is_named(tmp_path: Path) -> None:
    """Of 14 clients 10 open a sum, so 2 · 10 − 14 = 6 of one mind help a server that lies."""
    made, sites = made_in(tmp_path), make_sites()
    plan = made.draft([site.data for site in sites]).plan
    assert strong_sites(plan, [site.card for site in sites]) == {}
    for count, named in ((3, set[str]()), (8, {"big"})):
        everybody = [make_site("big", tuple(range(6, 6 + count))), *sites]
        plan = made.draft([site.data for site in everybody]).plan
        told = strong_sites(plan, [site.card for site in everybody])
        assert set(told) == named
        assert all("security.threshold" in why for why in told.values())


def test_what_is_private_is_its_owners_alone(tmp_path: Path) -> None:
    made = made_in(tmp_path / "fl")
    signed(made, make_sites())
    private = {"coordinator.identity", "authority.key", "server.identity", "server.key"}
    found = set[str]()
    for path in (tmp_path / "fl").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        elif path.name in private:
            assert mode == 0o600, path
            found.add(path.name)
    assert found == private


def test_the_coordinators_keys_are_encrypted_by_a_passphrase(tmp_path: Path) -> None:
    Coordinator.new(tmp_path, DIRECT, small_config(), Study(), passphrase="long enough")
    for wrong in (None, "other"):
        with pytest.raises(SecureSumError, match="passphrase"):
            Coordinator.open(tmp_path, passphrase=wrong)
    made = Coordinator.open(tmp_path, passphrase="long enough")
    signed(made, make_sites())
    with pytest.raises(DeploymentError, match="holds a federation already"):
        made_in(tmp_path)


def test_an_older_roster_is_not_signed_from(tmp_path: Path) -> None:
    made = made_in(tmp_path)
    signed(made, make_sites())
    path = made.server / "roster"
    before = path.read_bytes()
    signed(made, [], again=True)
    path.write_bytes(before)
    with pytest.raises(RefusedError, match="rolled-back"):
        made.draft([], again=True)
    other = Roster("trial", (Identity.generate("coordinator", "coordinator").member,))
    path.write_bytes(other.sign(Identity.generate("coordinator", "coordinator")))
    with pytest.raises(RefusedError, match="wrong-signature"):
        made.draft()


@pytest.mark.parametrize(
    "days", [{"first_day": "soon"}, {"first_day": "2026-02-01", "last_day": "2026-01-01"}]
)
def test_days_that_are_none_are_refused(days: dict[str, str]) -> None:
    with pytest.raises(DeploymentError):
        Study(**days)  # type: ignore[arg-type]
