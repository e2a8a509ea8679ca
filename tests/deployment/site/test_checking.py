"""What `site check` finds, before a run would."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deployment.site.old_certificates import of_days
from deployment.site.three_sites import (
    PEOPLE,
    Made3,
    Serving,
    free_port,
    make_three,
    write_images,
)
from engines.session.proxy import Proxy

from secure_fl.deployment.certificates import CertificateAuthority, new_request
from secure_fl.deployment.settings import Deployment
from secure_fl.deployment.site import checking
from secure_fl.deployment.site.checking import check_site
from secure_fl.deployment.site.costs import _phase
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.site.joining import join
from secure_fl.deployment.site.lines import Line, guarded
from secure_fl.deployment.site.network import Carries, carried, network
from secure_fl.engines.session.tls import TlsFiles
from secure_fl.estimate import PhaseCost

SITE = "hospital-1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made3:
    return make_three(tmp_path_factory.mktemp("three"))


@pytest.fixture
def folder(made: Made3) -> SiteFolder:
    return SiteFolder.open(made.root / SITE)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed."""
    monkeypatch.setattr(checking, "costs", lambda *_: iter(()))


def found(folder: SiteFolder, **options: float) -> dict[str, Line]:
    return {line.what: line for line in check_site(folder, reach=False, **options)}


def failing(folder: SiteFolder) -> dict[str, Line]:
    lines = found(SiteFolder(folder.path))
    assert all(line.remedy for line in lines.values() if line.state != "ok")
    return {what: line for what, line in lines.items() if line.state == "fail"}


def test_a_site_that_is_ready_and_what_it_will_take(folder: SiteFolder) -> None:
    lines = found(folder)
    assert [line.what for line in lines.values() if line.state != "ok"] == ["way to the server"]
    parts = {"permissions", "clock", "certificate", "roster", "pins", "versions", "code", "policy"}
    parts |= {"first models", "disk", "memory", "phase pretrain", "phase cluster"}
    assert parts | {f"data of {SITE}.{who}" for who in PEOPLE} <= set(lines)
    assert "29 to train on, 7 to test" in lines[f"data of {SITE}.{PEOPLE[0]}"].said


def test_seconds_of_sending_follow_the_way() -> None:
    """Bytes of a client over both ways, and ten times there and back."""
    phase = PhaseCost("cluster", 4, 6, down=600_000, up=150_000, seconds=6.0)
    ways = None, Carries(0.0, 1e5, 1e5), Carries(0.02, 1e4, 1e5)
    head = "4 rounds at most; a round: 50.0 kB out, 200.0 kB in, 2 s here"
    assert [_phase(phase, 4, 2, way).said for way in ways] == [
        f"{head}, and what sending takes",
        f"{head}, 2.5 s on the way: 4.5 s of this site's",
        f"{head}, 7.2 s on the way: 9.2 s of this site's",
    ]


@pytest.mark.usefixtures("quick")
def test_every_setting_of_the_policy_that_is_not_met_is_named(folder: SiteFolder) -> None:
    before = folder.policy_file.read_text()
    text = '[privacy]\nepsilon = 80.0\n[sums]\nprotection = ["masked"]\n[study]\nrounds = 1\n'
    folder.policy_file.write_text(text)
    try:
        lines = failing(folder)
        assert set(lines) == {"policy sums.protection", "policy study.rounds"}
        assert "security.protection" in lines["policy sums.protection"].remedy
    finally:
        folder.policy_file.write_text(before)


@pytest.mark.usefixtures("quick")
def test_data_that_do_not_fit_and_clients_that_nobody_knows(folder: SiteFolder) -> None:
    path = Path(folder.settings.data.sources[0].path or "")
    before = path.read_bytes()
    try:
        write_images(path, 0, (*PEOPLE, "person-03"))
        assert "1 client of the data" in found(folder)["data"].said
        write_images(path, 0, PEOPLE[:1])
        assert "no examples of this client" in failing(folder)["data"].said
        path.unlink()
        assert "no such file" in failing(folder)["data"].said
    finally:
        path.write_bytes(before)


@pytest.mark.usefixtures("quick")
def test_a_certificate_that_ends_soon_or_has_not_begun(made: Made3, folder: SiteFolder) -> None:
    before = folder.tls.certificate.read_bytes()
    try:
        folder.tls.certificate.write_bytes(of_days(made.coordinator, folder, -1, 9.5))
        assert found(folder)["certificate"].state == "warn"
        folder.tls.certificate.write_bytes(of_days(made.coordinator, folder, -9, -2))
        assert "ran out" in failing(folder)["certificate"].said
        folder.tls.certificate.write_bytes(of_days(made.coordinator, folder, 2, 9))
        assert "begins" in failing(folder)["clock"].said
    finally:
        folder.tls.certificate.write_bytes(before)


@pytest.mark.usefixtures("quick")
def test_what_changed_since_it_joined(made: Made3, folder: SiteFolder) -> None:
    pins = folder.pins
    folder.pins_file.write_text(pins.model_copy(update={"plan": "0" * 64}).text())
    folder.identities_folder.chmod(0o755)
    try:
        assert set(failing(folder)) == {"permissions", "pins"}
    finally:
        folder.identities_folder.chmod(0o700)
        folder.pins_file.write_text(pins.text())


@pytest.mark.usefixtures("quick")
def test_other_software_than_the_plans(tmp_path: Path) -> None:
    made = make_three(tmp_path)
    folder, coordinator = SiteFolder.open(made.folder(SITE).path), made.coordinator
    invitation, roster, plan = folder.federation()
    other = replace(plan, start=bytes(32), code={"secure_fl": "0" * 64})
    changed = replace(invitation, plan=other.sign(coordinator.identity, roster))
    join(folder, changed.sign(coordinator.identity), replace=True)
    assert set(failing(folder)) == {"code", "first models"}


def test_a_part_that_raises_is_a_line() -> None:
    from secure_fl.errors import DataError

    def lines() -> object:
        yield Line.ok("a", "b")
        raise DataError("is damaged", "x.csv", "not shown", "write it again")

    made = list(guarded("data", lines))  # type: ignore[arg-type]
    assert made == [
        Line.ok("a", "b"),
        Line.fail("data", "x.csv: is damaged", "write it again"),
    ]


# The way to the server


def seen(settings: Deployment, tls: TlsFiles, **environment: str) -> dict[str, Line]:
    return {line.what: line for line in network(settings, tls, environment)}


def test_a_server_that_is_there_and_one_that_is_not(made: Made3, folder: SiteFolder) -> None:
    settings = folder.invitation.settings
    port = seen(settings, folder.tls)["port of the server"]
    assert port.state == "fail"
    assert str(settings.server.port) in port.said
    with Serving(made):
        lines = seen(settings, folder.tls)
    assert {line.state for line in lines.values()} == {"ok"}
    assert "mutual" in lines["TLS to the server"].said


def test_the_way_is_measured_where_the_server_is_up(
    made: Made3, folder: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And seconds are predicted from that; else a line says why not."""
    ways = list[Carries | None]()

    def costs(_: object, plan: object, clients: object, way: Carries | None = None) -> Any:
        ways.append(way)
        return iter(())

    def lines(**options: float) -> dict[str, Line]:
        return {line.what: line for line in check_site(folder, **options)}

    monkeypatch.setattr(checking, "costs", costs)
    with Serving(made):
        assert re.fullmatch(
            r"[\d.]+ ms there and back, [\d.]+ [kMG]B/s out, [\d.]+ [kMG]B/s in, as measured now",
            lines()["way to the server"].said,
        )
    line = lines()["way to the server"]
    assert (line.state, line.remedy != "") == ("warn", True)
    assert "not measured: the server is not up" in line.said
    assert "way to the server" not in lines(bandwidth=8e6)
    measured, *others = ways
    assert measured is not None
    assert min(measured.out, measured.into) > 1e5
    assert others == [None, Carries(0.0, 1e6, 1e6)]


def test_a_narrow_way_is_seen(made: Made3, folder: SiteFolder) -> None:
    settings = folder.invitation.settings
    proxy = Proxy(lambda: settings.server.port, rate=800_000, delay=0.03)
    try:
        near = settings.server.model_copy(update={"port": proxy.port})
        with Serving(made):
            way, _ = carried(settings.model_copy(update={"server": near}), folder.tls, up=True)
    finally:
        proxy.close()
    assert way is not None
    assert 0.06 <= way.round_trip < 0.3
    assert 300_000 < way.out < 960_000


def test_messages_have_no_way_of_their_own(folder: SiteFolder) -> None:
    way, line = carried(Deployment(transport="messages"), folder.tls, up=True)
    assert way is None
    assert (line.state, "not measured" in line.said) == ("warn", True)


def test_a_name_without_an_address(folder: SiteFolder) -> None:
    settings = Deployment(launch="direct", server={"host": "nowhere.invalid", "port": free_port()})
    assert seen(settings, folder.tls)["address of the server"].state == "fail"


def test_a_certificate_that_the_server_does_not_know(
    made: Made3, folder: SiteFolder, tmp_path: Path
) -> None:
    (tmp_path / "ca").mkdir()
    other = CertificateAuthority.new(tmp_path / "ca", "federation")
    request, key = new_request(SITE)
    (tmp_path / "key").write_bytes(key)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "pem").write_bytes(other.site(SITE, request))
    strange = replace(folder.tls, certificate=tmp_path / "pem", key=tmp_path / "key")
    untrusted = replace(folder.tls, authority=tmp_path / "ca" / "authority.pem")
    with Serving(made):
        settings = folder.invitation.settings
        assert seen(settings, strange)["TLS to the server"].state == "fail"
        assert "not trusted" in seen(settings, untrusted)["TLS to the server"].said


def test_proxies_that_would_be_used_are_named_and_not_shown(folder: SiteFolder) -> None:
    settings = Deployment(launch="direct", server={"host": "fl.example.org", "port": 1})
    proxy = "http://user:word@proxy.example.org"
    line = seen(settings, folder.tls, HTTPS_PROXY=proxy)["proxy to the server"]
    assert line.state == "warn"
    assert "word" not in line.said + line.remedy
    for known in ("example.org", ".example.org", "fl.example.org", "other.org, example.org", "*"):
        line = seen(settings, folder.tls, https_proxy=proxy, no_proxy=known)["proxy to the server"]
        assert line.state == "ok", known
    line = seen(settings, folder.tls, https_proxy=proxy, no_proxy="ample.org")
    assert line["proxy to the server"].state == "warn"


def test_flowers_port_is_looked_at_where_flower_launches(folder: SiteFolder) -> None:
    links = {"superlink": {"host": "localhost", "port": free_port()}}
    both = Deployment(launch="flower", server={"host": "localhost", "port": free_port()}, **links)
    only = Deployment(launch="flower", transport="messages", **links)
    assert {"port of the server", "port of the SuperLink"} <= set(seen(both, folder.tls))
    assert "port of the server" not in seen(only, folder.tls)
