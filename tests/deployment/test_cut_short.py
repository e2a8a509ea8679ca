"""Commands of the coordinator that are cut short after any of their writes, and typed again."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from deployment.federations import Trial, commanded, signed_trial
from deployment.made_sites import make_site, small_config

from secure_fl.config_file import dump_config
from secure_fl.crypto.refusals import RefusedError
from secure_fl.deployment.certificates import check_certificate, read_certificate
from secure_fl.deployment.coordinator import Coordinator
from secure_fl.deployment.planning import Study
from secure_fl.deployment.seats import Seats
from secure_fl.deployment.server_folder import ServerFolder
from secure_fl.deployment.settings import Deployment
from secure_fl.files import held


class Cut(BaseException):
    """The process is killed here."""


def cut_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """Kill what runs when it is about to write another file than these many."""
    left, replace = [writes], Path.replace

    def counted(self: Path, target: Path) -> Path:
        if not left[0]:
            raise Cut
        left[0] -= 1
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", counted)


def cut_everywhere(
    tmp_path: Path,
    typed: Callable[[Trial], None],
    again: Callable[[Trial], tuple[int, str]],
    *,
    cut: bool = True,
) -> int:
    """Cut a command after each of its writes in turn, or let it cut itself; how many it has."""
    for writes in range(100):
        trial = signed_trial(tmp_path / str(writes))
        with pytest.MonkeyPatch.context() as patch:
            if cut:
                cut_after(patch, writes)
            try:
                typed(trial)
            except Cut:
                pass
            else:
                return writes
        code, said = again(trial)
        assert code == 0, (writes, said)
    raise AssertionError


def test_init_is_repeated_wherever_it_was_cut(tmp_path: Path) -> None:
    """And never once it has ended: keys are not replaced."""
    (tmp_path / "my.toml").write_text(dump_config(small_config()))
    made: Any = Deployment(name="trial", launch="direct"), small_config(), Study()
    who = ("--name", "trial", "--host", "localhost", "--launch", "direct")
    who += ("--config", tmp_path / "my.toml")
    for writes in range(100):
        path = tmp_path / str(writes)
        with pytest.MonkeyPatch.context() as patch:
            cut_after(patch, writes)
            try:
                before = Coordinator.new(path, *made).identity.member.fingerprint
                break
            except Cut:
                pass
        code, said = commanded("federate", "init", path, *who)
        assert code == 0, (writes, said)
        assert Coordinator.open(path).identity.member.fingerprint in said
        assert not list(path.rglob("*unfinished"))
    assert writes > 5
    code, said = commanded("federate", "init", path, *who)
    assert (code, "never replaced" in said) == (1, True)
    assert Coordinator.open(path).identity.member.fingerprint == before


def test_sign_is_repeated_wherever_it_was_cut(tmp_path: Path) -> None:
    data = make_site("west", (6, 7)).data
    path = tmp_path / "west.card"
    path.write_bytes(data)

    def typed(trial: Trial) -> None:
        trial.made.publish(trial.made.draft([data]))

    def again(trial: Trial) -> tuple[int, str]:
        done = commanded("federate", "sign", trial.path, path, "--yes")
        assert "west" in ServerFolder.open(trial.made.server).seats()
        return done

    assert cut_everywhere(tmp_path, typed, again) > 5


@pytest.mark.slow
def test_revoke_is_repeated_wherever_it_was_cut(tmp_path: Path) -> None:
    """Or its site is gone already, and the others are signed again."""
    data = make_site("west", (6, 7)).data

    def typed(trial: Trial) -> None:
        trial.made.publish(trial.made.draft([data]))
        with pytest.MonkeyPatch.context() as patch:
            cut_after(patch, len(asked))
            asked.append("")
            trial.made.revoke("north")
            trial.made.publish(trial.made.draft())

    def again(trial: Trial) -> tuple[int, str]:
        code, said = commanded("federate", "revoke", trial.path, "north")
        if "no such site" in said:
            code, said = commanded("federate", "sign", trial.path)
        found = ServerFolder.open(trial.made.server)
        assert found.seats()["north"].revoked
        assert len(found.opened.clients) == 6
        return code, said

    asked = list[str]()
    assert cut_everywhere(tmp_path, typed, again, cut=False) > 5


def lost(trial: Trial, name: str) -> Path:
    path = trial.made.own / "cards" / name
    path.unlink()
    return path


def test_no_site_is_left_out_since_its_card_is_lost(tmp_path: Path) -> None:
    trial = signed_trial(tmp_path / "fl")
    path = lost(trial, "north.card")
    code, said = commanded("federate", "sign", trial.path)
    assert (code, "gone" in said, "north" in said) == (1, True, True)
    sent = tmp_path / "north.card"
    sent.write_bytes(trial.sites["north"].data)
    assert commanded("federate", "sign", trial.path, sent, "--yes")[0] == 0
    path.write_bytes(trial.sites["east"].data)
    before = trial.made.seats.read()
    code, said = commanded("federate", "sign", trial.path)
    assert (code, "is east's" in said) == (1, True)
    assert trial.made.seats.read() == before


def test_a_site_is_revoked_though_files_are_lost_or_damaged(tmp_path: Path) -> None:
    trial = signed_trial(tmp_path / "fl")
    lost(trial, "north.card")
    (trial.made.server / "plan").write_bytes(b"no plan")
    code, said = commanded("federate", "revoke", trial.path, "north")
    assert code == 0, said
    assert trial.made.seats.read()["north"].revoked
    assert commanded("federate", "revoke", trial.path, "north")[0] == 1


def test_a_damaged_certificate_is_issued_anew(tmp_path: Path) -> None:
    trial = signed_trial(tmp_path / "fl")
    path = trial.made.own / "certificates" / "north.pem"
    path.write_bytes((path.parent / "east.pem").read_bytes())
    assert commanded("federate", "sign", trial.path)[0] == 0
    check_certificate(path.read_bytes(), trial.made.authority.pem, "north")
    text = bytearray((trial.made.own / "ca" / "authority.pem").read_bytes())
    for place in range(120, 300, 3):  # also where it is still a certificate, without a usable key
        changed = text.copy()
        changed[place] ^= 1
        with suppress(RefusedError):
            read_certificate(bytes(changed)).public_key()


def test_a_plan_that_cannot_be_written_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, real = signed_trial(tmp_path / "fl"), Path.replace
    west = tmp_path / "west.card"
    west.write_bytes(make_site("west", (6, 7)).data)
    assert commanded("federate", "sign", trial.path, west, "--yes")[0] == 0

    def full(self: Path, target: Path) -> Path:
        if target.name == "plan":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        code, said = commanded("federate", "revoke", trial.path, "north")
    assert (code, "north is revoked" in said, "make room" in said) == (2, True, True)
    assert commanded("federate", "sign", trial.path)[0] == 0
    assert len(ServerFolder.open(trial.made.server).opened.clients) == 6


def typed_init(path: Path) -> tuple[int, str]:
    config = path.parent / "my.toml"
    config.write_text(dump_config(small_config()))
    who = ("--name", "trial", "--host", "localhost", "--launch", "direct", "--config", config)
    return commanded("federate", "init", path, *who)


def cut_at_its_end(path: Path) -> None:
    """Everything was made, and the file that says that it was not is still there."""
    Coordinator.new(path, Deployment(name="trial", launch="direct"), small_config(), Study())
    (path / "coordinator" / "unfinished").touch()


def test_nothing_is_signed_before_init_has_ended(tmp_path: Path) -> None:
    """Else what is typed again would replace keys that sites trust already."""
    path, card = tmp_path / "fl", tmp_path / "west.card"
    card.write_bytes(make_site("west", (6, 7)).data)
    cut_at_its_end(path)
    for words in (("sign", path, card, "--yes"), ("renew", path), ("revoke", path, "west")):
        code, said = commanded("federate", *words)
        assert (code, "federate init" in said) == (2, True), said
    assert typed_init(path)[0] == 0
    Coordinator.open(path)


def test_keys_of_a_federation_that_was_signed_are_never_replaced(tmp_path: Path) -> None:
    """Also where an earlier version signed one whose `init` had been cut short."""
    trial = signed_trial(tmp_path / "fl")
    (trial.made.own / "unfinished").touch()
    code, said = typed_init(trial.path)
    assert (code, "never replaced" in said) == (1, True), said
    assert commanded("federate", "sign", trial.path)[0] == 0
    assert Coordinator.open(trial.path).identity.member == trial.made.identity.member


@pytest.mark.parametrize("name", ["server/operations.toml", "coordinator/notes/today"])
def test_init_removes_nothing_that_it_did_not_make(tmp_path: Path, name: str) -> None:
    path = tmp_path / "fl"
    cut_at_its_end(path)
    own = path / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("mine")
    before = {each: each.stat().st_mtime_ns for each in path.rglob("*") if each.is_file()}
    code, said = typed_init(path)
    assert (code, Path(name).parts[1] in said) == (1, True), said
    assert {each: each.stat().st_mtime_ns for each in before} == before
    own.unlink()
    if name.endswith("today"):
        own.parent.rmdir()
    assert typed_init(path)[0] == 0


def test_two_at_once_do_not_begin_in_one_folder(tmp_path: Path) -> None:
    path = tmp_path / "fl"
    cut_at_its_end(path)
    with held(path / "coordinator"):
        code, said = typed_init(path)
    assert (code, "in use" in said) == (2, True), said


@pytest.mark.parametrize("text", [None, "{", '{"format": "secure-fl seats 1", "seats": {}}'])
def test_seats_that_are_lost_or_damaged_are_made_again(tmp_path: Path, text: str | None) -> None:
    """By whatever the coordinator types next; nobody comes back who was revoked."""
    trial = signed_trial(tmp_path / "fl")
    trial.made.publish(trial.made.draft([make_site("west", (6, 7)).data]))
    assert commanded("federate", "revoke", trial.path, "north")[0] == 0
    before, path = trial.made.seats.read(), trial.made.seats.path
    for words in (("sign", trial.path), ("revoke", trial.path, "east")):
        path.unlink()
        if text is not None:
            path.write_text(text)
        code, said = commanded("federate", *words)
        assert code == 0, said
        found = Seats(path).read()
        assert {site for site, seat in found.items() if seat.revoked} == {"north", *words[2:]}
        assert found | {"east": before["east"]} == before


def test_no_site_is_left_out_since_cards_and_seats_are_lost(tmp_path: Path) -> None:
    trial = signed_trial(tmp_path / "fl")
    lost(trial, "north.card")
    trial.made.seats.path.unlink()
    code, said = commanded("federate", "sign", trial.path)
    assert (code, "gone" in said) == (1, True), said
    sent = tmp_path / "north.card"
    sent.write_bytes(trial.sites["north"].data)
    assert commanded("federate", "sign", trial.path, sent, "--yes")[0] == 0
    assert "north" in Seats(trial.made.seats.path).read()


@pytest.mark.parametrize(
    "name",
    ["server/roster", "coordinator/coordinator.identity.rosters", "coordinator/cards/north.card"],
)
def test_what_is_damaged_is_no_matter_of_fit(tmp_path: Path, name: str) -> None:
    """Whichever command finds it: exit code 2."""
    trial = signed_trial(tmp_path / "fl")
    path = trial.path / name
    path.write_bytes(path.read_bytes()[:-9])
    for words in (("sign",), ("sign", "--again")):
        code, said = commanded("federate", words[0], trial.path, *words[1:])
        assert code == 2, said
