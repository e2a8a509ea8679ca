"""Identities and rosters on the command line."""

from __future__ import annotations

from pathlib import Path

from cli.conftest import Command


def test_from_identities_to_a_roster_and_a_revocation(tmp_path: Path, command: Command) -> None:
    protected = ("--passphrase-env", "SECRET")
    boss = ("boss", "--role", "coordinator", *protected)
    command("keys", "new", *boss, cwd=tmp_path, SECRET="long enough")
    for name in ("hospital-1", "hospital-2"):
        assert "fingerprint" in command("keys", "new", name, cwd=tmp_path).stdout
    private = tmp_path / "keys" / "hospital-1.identity"
    assert private.stat().st_mode & 0o777 == 0o600
    assert "long enough" not in (tmp_path / "keys" / "boss.identity").read_text()
    signer = ("--as", "keys/boss.identity", *protected)
    cards = [f"keys/{name}.card" for name in ("hospital-1", "hospital-2")]
    command("keys", "roster", "roster.json", *cards, *signer, cwd=tmp_path, SECRET="long enough")
    shown = command(
        "keys", "show", "roster.json", "--signed-by", "keys/boss.card", cwd=tmp_path
    ).stdout
    assert "hospital-1" in shown
    assert "hospital-2" in shown
    gone = command(
        "keys", "revoke", "roster.json", "hospital-2", *signer, cwd=tmp_path, SECRET="long enough"
    ).stdout
    assert "hospital-2" not in gone
    assert "1 revoked" in gone
    again = command(
        "keys",
        "roster",
        "roster.json",
        "keys/hospital-2.card",
        *signer,
        cwd=tmp_path,
        code=2,
        SECRET="long enough",
    ).stderr
    assert "revoked" in again


def test_mistakes_with_keys_are_refused(tmp_path: Path, command: Command) -> None:
    command("keys", "new", "a", cwd=tmp_path)
    assert "exists" in command("keys", "new", "a", cwd=tmp_path, code=2).stderr
    assert (
        "is not set"
        in command(
            "keys", "new", "b", "--passphrase-env", "NOWHERE_SET", cwd=tmp_path, code=2
        ).stderr
    )
    command("keys", "new", "boss", "--role", "coordinator", cwd=tmp_path)
    command("keys", "roster", "r.json", "keys/a.card", "--as", "keys/boss.identity", cwd=tmp_path)
    assert (
        "signature"
        in command(
            "keys", "show", "r.json", "--signed-by", "keys/a.card", cwd=tmp_path, code=2
        ).stderr
    )


def test_an_older_roster_brings_nobody_back(tmp_path: Path, command: Command) -> None:
    """A copy from before the revocation is refused to who saw the newer one, and the coordinator
    signs no revision twice.
    """
    for name, role in (("boss", "coordinator"), ("a", "client"), ("b", "client"), ("c", "client")):
        command("keys", "new", name, "--role", role, cwd=tmp_path)
    signer, roster = ("--as", "keys/boss.identity"), tmp_path / "r.json"
    command("keys", "roster", "r.json", "keys/a.card", "keys/b.card", *signer, cwd=tmp_path)
    older = roster.read_bytes()
    command("keys", "revoke", "r.json", "b", *signer, cwd=tmp_path)
    look = ("keys", "show", "r.json", "--signed-by", "keys/boss.card", "--as", "keys/a.identity")
    command(*look, cwd=tmp_path)
    roster.write_bytes(older)
    assert "rolled-back" in command(*look, cwd=tmp_path, code=2).stderr
    assert (
        "rolled-back"
        in command("keys", "roster", "r.json", "keys/c.card", *signer, cwd=tmp_path, code=2).stderr
    )
    assert (
        "rolled-back"
        in command("keys", "revoke", "r.json", "a", *signer, cwd=tmp_path, code=2).stderr
    )
    roster.unlink()
    assert (
        "rolled-back"
        in command("keys", "roster", "r.json", "keys/b.card", *signer, cwd=tmp_path, code=2).stderr
    )
