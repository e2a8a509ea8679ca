"""`secure-fl federate`: what a coordinator types, what it is told, and with which code it ends."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from deployment.federations import Trial, commanded, free_port, signed_trial
from deployment.made_sites import make_site, make_sites, small_config, write_cards

from secure_fl.config_file import dump_config
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.deployment.certificates import new_request
from secure_fl.deployment.settings import Deployment
from secure_fl.errors import DeploymentError, EngineError, RunFolderError

COMMANDS = ("init", "sign", "start", "resume", "stop", "status", "revoke", "renew")


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return signed_trial(tmp_path / "fl")


def begun(folder: Path, *more: object, code: int = 0) -> str:
    """A folder that was begun, of three sites that are not signed yet; what was said."""
    (folder / "my.toml").write_text(dump_config(small_config()))
    who = ("--name", "trial", "--host", "localhost", "--config", folder / "my.toml")
    where = ("--launch", "direct", "--port", free_port())
    found, said = commanded("federate", "init", folder / "fl", *who, *where, *more)
    assert found == code, said
    return said


def content(folder: Path) -> dict[Path, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".lock" not in path.name)
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_by_an_example(name: str) -> None:
    code, said = commanded("federate", name, "--help")
    assert code == 0
    assert f"For example: secure-fl federate {name} fl" in " ".join(said.split())


def test_the_groups_help_has_every_exit_code() -> None:
    for group in ("federate", "site"):
        said = commanded(group, "--help")[1]
        for code in (0, 1, 2, 3, 4, "130, 143"):
            assert re.search(rf"^ *{code} +\w", said, re.M), (group, code)
    _, said = commanded("federate", "--help")
    for name in COMMANDS:
        assert re.search(rf"\b{name}\b", said), name


def test_init_shows_what_is_to_be_compared_and_when_it_ends(tmp_path: Path) -> None:
    said = begun(tmp_path, "--days", "30")
    card = (tmp_path / "fl" / "server" / "coordinator.card").read_bytes()
    keys = json.loads(card)["card"]
    identity = Identity.load(tmp_path / "fl" / "coordinator" / "coordinator.identity")
    assert identity.member.fingerprint in said
    assert keys["sign"] == identity.member.sign.hex()
    assert re.search(r"server +\d{4}-\d\d-\d\d +29", said)
    assert re.search(r"authority +\d{4}-\d\d-\d\d +1095", said)
    assert "next:" in said


def test_every_setting_is_in_the_settings_file(tmp_path: Path) -> None:
    begun(tmp_path)
    text = (tmp_path / "fl" / "server" / "federation.toml").read_text()
    found = Deployment(**tomllib.loads(text))
    assert (found.name, found.launch, found.server.host) == ("trial", "direct", "localhost")
    for line in text.splitlines():
        if " = " in line and not line.startswith("#"):
            before = text[: text.index(line)].rstrip().splitlines()[-1]
            assert before.startswith("# "), line
    assert tomllib.loads(text)["deadlines"].keys() == type(found.deadlines).model_fields.keys()


def test_init_refuses_what_is_there_and_hosts_that_are_none(tmp_path: Path) -> None:
    begun(tmp_path)
    assert "holds a federation already" in begun(tmp_path, code=1)
    (tmp_path / "other").mkdir()
    said = begun(tmp_path / "other", "--host", "two words", code=2)
    assert "neither a name nor an address" in said
    assert "not a day" in begun(tmp_path / "other", "--first-day", "soon", code=1)
    assert not (tmp_path / "other" / "fl").exists(), "nothing is left of what was refused"


def test_cards_are_signed_once_they_were_compared(tmp_path: Path) -> None:
    begun(tmp_path)
    fl, sites = tmp_path / "fl", make_sites()
    cards, before = write_cards(tmp_path, sites), content(fl)
    code, said = commanded("federate", "sign", fl, *cards)
    assert (code, "was not compared" in said) == (1, True)
    assert all(site.card.fingerprint in said for site in sites)
    code, said = commanded("federate", "sign", fl, *cards[:2], "--yes")
    assert (code, "cannot fill every pool" in said) == (1, True)
    assert content(fl) == before
    code, said = commanded("federate", "sign", fl, *cards, "--yes")
    assert code == 0, said
    assert all(f"{site.name}.invitation" in said for site in sites)
    assert all(re.search(rf"{site.name} +\d{{4}}-", said) for site in sites)
    code, said = commanded("federate", "sign", fl, *cards)
    assert (code, "fingerprint" in said) == (0, False), "nothing new is to be compared"


def test_what_cannot_be_read_ends_with_two(tmp_path: Path, trial: Trial) -> None:
    fl = trial.path
    for line in (
        ("sign", fl, tmp_path / "nothing.card"),
        ("sign", tmp_path / "nowhere"),
        ("sign", fl, "--passphrase-env", "NOWHERE_SET"),
        ("status", tmp_path),
        ("renew", fl, "north"),
    ):
        code, said = commanded("federate", *line)
        assert code == 2, (line, said)
        assert "Remedy" in said


@pytest.mark.parametrize("name", ["plan", "roster"])
def test_damaged_files_end_alike_at_the_server_and_at_a_site(trial: Trial, name: str) -> None:
    """With two, by one table; what is whole and says something else is refused with one."""
    path = trial.made.server / name
    for data, ends in ((b"garbage", 2), (b"", 2), (path.read_bytes()[:-3], 2)):
        path.write_bytes(data)
        for command in ("status", "start"):
            code, said = commanded("federate", command, trial.path)
            assert (code, "Remedy" in said) == (ends, True), said
    from secure_fl.cli.exits import REFUSED, UNREACHABLE, UNUSABLE, exit_code

    for error, ends in (
        (RefusedError(Reason.MALFORMED, "not JSON", name, "", "send it again"), UNUSABLE),
        (RefusedError(Reason.WRONG_SIGNATURE, "changed", name, "", "send it again"), REFUSED),
        (RunFolderError("damaged", name, "", "put it back"), UNUSABLE),
        (DeploymentError("another", name, "", "--replace"), REFUSED),
        (EngineError("no answer", name, "", "start it"), UNREACHABLE),
    ):
        assert exit_code(error) == ends


def test_a_card_that_was_changed_is_refused(tmp_path: Path, trial: Trial) -> None:
    path, site = tmp_path / "west.card", make_site("west", (6, 7))
    path.write_bytes(site.data.replace(b'"classes":3', b'"classes":4'))
    before = content(trial.path)
    code, said = commanded("federate", "sign", trial.path, path, "--yes")
    assert (code, "wrong-signature" in said) == (1, True)
    write_cards(tmp_path, [make_site("west", (6, 7), shape=(1, 9, 9))])
    code, said = commanded("federate", "sign", trial.path, path, "--yes")
    assert (code, "west" in said, "Remedy" in said) == (1, True, True)
    assert content(trial.path) == before


def test_a_passphrase_is_asked_for_by_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "long enough")
    begun(tmp_path, "--passphrase-env", "SECRET")
    cards = write_cards(tmp_path, make_sites())
    line = ("federate", "sign", tmp_path / "fl", *cards, "--yes")
    code, said = commanded(*line)
    assert (code, "passphrase" in said) == (2, True)
    assert commanded(*line, "--passphrase-env", "SECRET")[0] == 0
    assert all(b"long enough" not in data for data in content(tmp_path).values())


def test_another_plan_is_said_to_be_one(trial: Trial) -> None:
    code, said = commanded("federate", "sign", trial.path, "--again")
    assert (code, "goes on under its old one" in " ".join(said.split())) == (0, True)
    code, said = commanded("federate", "sign", trial.path)
    assert (code, "another plan" in said) == (0, False)


def test_revoking_says_what_else_is_to_be_done(tmp_path: Path, trial: Trial) -> None:
    code, said = commanded("federate", "revoke", trial.path, "east")
    assert code == 0
    for word in ("east is revoked", "seats.json", "no plan without it yet", "new invitations"):
        assert word in said
    code, said = commanded("federate", "revoke", trial.path, "east")
    assert (code, "no such site" in said) == (1, True)
    path = write_cards(tmp_path, [make_site("west", (6, 7))])
    code, said = commanded("federate", "sign", trial.path, *path, "--yes")
    assert code == 0, said
    _, told = commanded("federate", "status", trial.path)
    assert re.search(r"east .*revoked", told)


def test_renewal_of_a_bare_request_is_compared(tmp_path: Path, trial: Trial) -> None:
    path = tmp_path / "north.csr"
    path.write_bytes(new_request("north")[0])
    code, said = commanded("federate", "renew", trial.path, "north", path)
    assert (code, "was not compared" in said) == (1, True)
    code, said = commanded("federate", "renew", trial.path, "north", path, "--yes")
    assert (code, "north.invitation" in said) == (0, True)
    site = trial.sites["north"]
    path.write_bytes(replace(site.card, request=new_request("north")[0]).encode(site.people))
    assert commanded("federate", "renew", trial.path, "north", path)[0] == 0
    assert commanded("federate", "renew", trial.path)[0] == 0


def test_status_before_the_start(tmp_path: Path, trial: Trial) -> None:
    code, said = commanded("federate", "status", trial.path)
    assert (code, "not begun" in said) == (0, True)
    assert len(re.findall(r"\d{4}-\d\d-\d\d", said)) >= 5, "every certificate's end"
    for command, ends in (("resume", 1), ("stop", 4)):
        assert commanded("federate", command, trial.path)[0] == ends
    (tmp_path / "other").mkdir()
    begun(tmp_path / "other")
    for command in ("status", "start"):
        code, said = commanded("federate", command, tmp_path / "other" / "fl")
        assert (code, "no plan is signed" in said) == (1, True)
