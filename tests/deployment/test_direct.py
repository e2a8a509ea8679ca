"""A federation that `federate start` runs, with sites that dial it over mutual TLS."""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from deployment.federations import Trial, commanded, free_port, joined, running, signed_trial
from deployment.made_sites import make_sites, small_config, write_cards
from deployment.own_sites import tls_of

from secure_fl.config_file import dump_config
from secure_fl.crypto.identities import Identity
from secure_fl.deployment.certificates import digest_of, new_request
from secure_fl.deployment.coordinator import Coordinator
from secure_fl.deployment.invitation import Invitation
from secure_fl.engines.session.dialling import SessionClient
from secure_fl.federation.verify.check import verify


def made_by_commands(folder: Path) -> Trial:
    """init and sign, as a coordinator types them."""
    (folder / "my.toml").write_text(dump_config(small_config()))
    sites, path = make_sites(), folder / "fl"
    who = ("--name", "trial", "--host", "localhost", "--config", folder / "my.toml")
    code, said = commanded(
        "federate", "init", path, *who, "--launch", "direct", "--port", free_port()
    )
    assert code == 0, said
    code, said = commanded("federate", "sign", path, *write_cards(folder, sites), "--yes")
    assert code == 0, said
    assert all(site.card.fingerprint in said for site in sites)
    return Trial(Coordinator.open(path), {site.name: site for site in sites})


def status(path: Path) -> tuple[int, dict[str, object]]:
    code, said = commanded("federate", "status", path, "--json")
    return code, json.loads(said)


def test_from_init_to_the_end(tmp_path: Path) -> None:
    trial = made_by_commands(tmp_path)
    assert status(trial.path)[1]["begun"] is False
    settings = trial.made.server / "federation.toml"
    settings.write_text(settings.read_text().replace("linger = 60.0", "linger = 3.0"))
    with running(tmp_path / "log", "federate", "start", trial.path) as server:
        server.until("listens on")
        code, said = commanded("federate", "start", trial.path)
        assert code == 1
        assert "is in use by process" in said
        assert "federate stop" in said
        with joined(tmp_path / "sites", trial) as sites:
            server.until("call 0, 6 members")
            code, told = status(trial.path)
            assert (code, told["running"], len(told["members"])) == (0, True, 6)
            assert all(each["connected"] for each in told["sites"].values())
            assert server.code() == 0, server.said
            sites.join()
            assert sites.over
    assert "forked" not in server.said
    for word in ("pretrain, round 1", "cluster, round 1", "the federation is done"):
        assert word in server.said
    code, told = status(trial.path)
    assert (code, told["outcome"], told["running"]) == (0, "done", False)
    for command in ("start", "resume"):
        code, said = commanded("federate", command, trial.path)
        assert (code, "is over: done" in said) == (1, True)
    record = next((trial.made.server / "record").iterdir())
    assert verify(record).findings == ()


def connected(trial: Trial, site: str) -> bool:
    told = status(trial.path)[1]["sites"]
    return bool(told[site]["connected"])


def waited_for(trial: Trial) -> set[str]:
    """Who is still to join."""
    found = status(trial.path)[1]["waits"]
    return set(found["join"]["parties"])


def wait_for(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def dialled(folder: Path, trial: Trial, site: str, key: bytes | None = None) -> SessionClient:
    """A site's stream, by its newest invitation."""
    invitation = Invitation.open(trial.invitation(site))
    tls = tls_of(folder, invitation, key or trial.sites[site].key)
    server = f"localhost:{invitation.settings.server.port}"
    return SessionClient(server, tls, site, invitation.parties, federation="trial")


def shown_certificate(port: int, authority: Path) -> str:
    """Of the server, as a new connection sees it."""
    context = ssl.create_default_context(cafile=str(authority))
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("localhost", port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as found,
    ):
        der = found.getpeercert(binary_form=True)
    assert der is not None
    return digest_of(ssl.DER_cert_to_PEM_cert(der).encode())


def test_revocation_and_renewal_need_no_restart(tmp_path: Path) -> None:
    trial = signed_trial(tmp_path / "fl")
    made, links = trial.made, list[SessionClient]()
    with running(tmp_path / "log", "federate", "start", trial.path) as server:
        try:
            server.until("listens on")
            links += [dialled(tmp_path / name, trial, name) for name in ("north", "east")]
            server.until("north is connected")
            server.until("east is connected")
            assert len(waited_for(trial)) == 6
            assert commanded("federate", "revoke", trial.path, "east")[0] == 0
            server.until("east is gone: revoked", 20)
            wait_for(lambda: not connected(trial, "east"))
            gone = set(trial.sites["east"].card.parties)
            wait_for(lambda: not gone & waited_for(trial))
            assert len(waited_for(trial)) == 4
            said = commanded("federate", "status", trial.path)[1]
            assert re.search(r"waits since \S+ for join of client-0000, client-0001", said)
            tls = made.server / "tls"
            port = made.settings.server.port
            before = shown_certificate(port, tls / "authority.pem")
            assert commanded("federate", "renew", trial.path)[0] == 0
            after = digest_of((tls / "server.pem").read_bytes())
            assert before != after
            assert shown_certificate(port, tls / "authority.pem") == after
            assert connected(trial, "north")
            site = trial.sites["north"]
            request, _ = new_request("north")
            card = tmp_path / "renewed.card"
            card.write_bytes(replace(site.card, request=request).encode(site.people))
            # it has no plan without east: signed again for two sites, which are too few
            code, said = commanded("federate", "renew", trial.path, "north", card, "--only")
            assert code == 1, said
        finally:
            for link in links:
                link.close()
        assert commanded("federate", "stop", trial.path)[0] == 0
        assert server.code() == 130, server.said
    assert commanded("federate", "stop", trial.path)[0] == 4
    assert status(trial.path)[0] == 4


@pytest.mark.slow
def test_a_renewed_site_is_let_in_and_a_stolen_key_is_not(tmp_path: Path) -> None:
    trial = signed_trial(tmp_path / "fl")
    site, links = trial.sites["north"], list[SessionClient]()
    with running(tmp_path / "log", "federate", "start", trial.path) as server:
        try:
            server.until("listens on")
            stolen = dialled(tmp_path / "stolen", trial, "north")
            links.append(stolen)
            server.until("north is connected")
            request, key = new_request("north")
            path = tmp_path / "renewed.card"
            path.write_bytes(replace(site.card, request=request).encode(site.people))
            code, said = commanded("federate", "renew", trial.path, "north", path, "--only")
            assert code == 0, said
            server.until("north is gone: revoked", 20)
            links.append(dialled(tmp_path / "new", trial, "north", key))
            wait_for(lambda: connected(trial, "north"))
            assert not stolen.peers
        finally:
            for link in links:
                link.close()


def test_a_federation_that_fails_says_why(tmp_path: Path) -> None:
    trial = signed_trial(tmp_path / "fl", join=1.0, linger=0.1)
    with running(tmp_path / "log", "federate", "start", trial.path) as server:
        assert server.code() == 3, server.said
    assert "the federation failed: too-few" in server.said
    code, told = status(trial.path)
    assert (code, told["outcome"]) == (3, "too-few")
    code, said = commanded("federate", "start", trial.path)
    assert (code, "is over: too-few" in said, "--again" in said) == (1, True, True)


@pytest.mark.slow
def test_a_server_in_the_background_is_stopped_and_goes_on(tmp_path: Path) -> None:
    trial = signed_trial(tmp_path / "fl")
    for command in ("start", "resume"):
        with running(tmp_path / command, "federate", command, trial.path, "--detach") as asked:
            assert asked.code() == 0, asked.said
        try:
            assert status(trial.path)[1]["running"] is True
        finally:
            assert commanded("federate", "stop", trial.path)[0] == 0
        code, told = status(trial.path)
        assert (code, told["running"], told["outcome"]) == (4, False, "")


@pytest.mark.parametrize("what", ["coordinator.identity", "authority.key"])
def test_nothing_of_the_coordinator_is_in_the_servers_folder(tmp_path: Path, what: str) -> None:
    trial = signed_trial(tmp_path / "fl")
    path = next(trial.made.own.rglob(what))
    assert path.stat().st_mode & 0o077 == 0
    if what == "coordinator.identity":
        document = json.loads(path.read_bytes())
        secrets = [document["sign"], document["agree"]]
        Identity.load(path)
    else:
        secrets = [path.read_text()]
    lines = {line for text in secrets for line in text.splitlines() if "-----" not in line}
    assert lines
    for folder in (trial.made.server, trial.path / "invitations"):
        for file in folder.rglob("*"):
            data = file.read_bytes() if file.is_file() else b""
            assert not any(line.encode() in data for line in lines), file
