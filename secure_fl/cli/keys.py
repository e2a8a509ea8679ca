"""`secure-fl keys`: identities, and the signed roster that says who is trusted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_fl.cli.common import command_group
from secure_fl.cli.console import Sheet, out
from secure_fl.errors import SecureSumError

if TYPE_CHECKING:
    from secure_fl.crypto.identities import Identity
    from secure_fl.crypto.roster import Roster
    from secure_fl.crypto.roster_memory import RosterMemory

keys_app = command_group(
    "Identities and the roster. Private files are 0600, encrypted when --passphrase-env "
    "names a variable that holds a passphrase."
)

Passphrase = Annotated[
    str | None,
    typer.Option(help="Environment variable with the passphrase; never given on the line."),
]
_Signer = Annotated[Path, typer.Option("--as", help="The coordinator's private identity.")]


@keys_app.command()
def new(
    name: Annotated[str, typer.Argument(help="Letters, digits, dots, dashes, underscores.")],
    role: Annotated[
        str,
        typer.Option(
            help="client, server, authority (holds the encryption key) or "
            "coordinator (signs the roster)."
        ),
    ] = "client",
    folder: Annotated[
        Path,
        typer.Option("--out", help="Folder for NAME.identity (private) and NAME.card (public)."),
    ] = Path("keys"),
    passphrase_env: Passphrase = None,
) -> None:
    """Make an identity. Its card goes to the coordinator: compare the fingerprint otherwise."""
    from secure_fl.crypto.identities import Identity
    from secure_fl.files import PUBLIC, make_folder, write_atomically

    identity = Identity.generate(name, role)
    make_folder(folder)
    identity.save(folder / f"{name}.identity", passphrase=passphrase_of(passphrase_env))
    write_atomically(folder / f"{name}.card", identity.card(), mode=PUBLIC)
    out.print(
        f"wrote {folder / f'{name}.identity'} (private, 0600) and "
        f"{folder / f'{name}.card'} (public)"
    )
    out.print(f"fingerprint {identity.member.fingerprint}")


@keys_app.command()
def roster(
    path: Annotated[
        Path, typer.Argument(help="The roster to write, or to extend by its next revision.")
    ],
    cards: Annotated[list[Path], typer.Argument(help="Cards of new members.")],
    signer: _Signer,
    federation: Annotated[str, typer.Option(help="Name of a new federation.")] = "federation",
    rotation_rounds: Annotated[
        int, typer.Option(help="Rounds that one encryption key serves.")
    ] = 10,
    passphrase_env: Passphrase = None,
) -> None:
    """Sign a roster with these members, or the next revision of one with these added."""
    from secure_fl.crypto.identities import Identity
    from secure_fl.crypto.roster import Roster
    from secure_fl.crypto.roster_memory import RosterMemory
    from secure_fl.files import held, is_file, make_folder, read_bytes

    coordinator = Identity.load(signer, passphrase=passphrase_of(passphrase_env))
    memory = RosterMemory(signer)
    make_folder(path.parent)
    with held(path):  # of two changes at once, neither is lost
        before = Roster(federation, (), rotation_rounds)
        if is_file(path):
            before = memory.open(read_bytes(path), coordinator.member)
        _publish(before.add(read_bytes(card) for card in cards), coordinator, memory, path)


@keys_app.command()
def revoke(
    path: Annotated[Path, typer.Argument(help="The roster.")],
    name: Annotated[str, typer.Argument(help="The member that is no longer trusted.")],
    signer: _Signer,
    passphrase_env: Passphrase = None,
) -> None:
    """Sign a revision without a member: its keys cannot return, the encryption key is made anew."""
    from secure_fl.crypto.identities import Identity
    from secure_fl.crypto.roster_memory import RosterMemory
    from secure_fl.files import held, read_bytes

    coordinator = Identity.load(signer, passphrase=passphrase_of(passphrase_env))
    memory = RosterMemory(signer)
    with held(path):
        before = memory.open(read_bytes(path), coordinator.member)
        _publish(before.revoke(name), coordinator, memory, path)


@keys_app.command()
def show(
    path: Annotated[Path, typer.Argument(help="The roster.")],
    signed_by: Annotated[Path, typer.Option(help="The coordinator's card.")],
    mine: Annotated[
        Path | None,
        typer.Option(
            "--as", help="Your private identity: an older roster than you have seen is refused."
        ),
    ] = None,
) -> None:
    """Check a roster's signature and list its members; with --as, refuse one older than seen."""
    from secure_fl.crypto.identities import Member
    from secure_fl.crypto.roster import Roster
    from secure_fl.crypto.roster_memory import RosterMemory
    from secure_fl.files import read_bytes

    found = Roster.open(read_bytes(path), Member.from_card(read_bytes(signed_by)))
    _show(found if mine is None else RosterMemory(mine).accept(found))


def _publish(roster: Roster, coordinator: Identity, memory: RosterMemory, path: Path) -> None:
    from secure_fl.files import PUBLIC, write_atomically

    memory.check(roster)  # no revision is signed twice, and none that forgets a revocation
    write_atomically(path, roster.sign(coordinator), mode=PUBLIC)
    memory.accept(roster)
    _show(roster)


def _show(roster: Roster) -> None:
    rows = [[member.name, member.role, member.fingerprint] for member in roster.members]
    title = (
        f"{roster.federation}, revision {roster.revision}, {len(roster.revoked)} revoked; digest "
        f"{roster.digest.hex()}"
    )
    out.print(Sheet(title, ["name", "role", "fingerprint"], rows))


def passphrase_of(variable: str | None) -> str | None:
    """The passphrase in an environment variable; None without one. Raises SecureSumError: unset."""
    if variable is None:
        return None
    if variable not in os.environ:
        remedy = "set it for this command only, for example from a password manager"
        raise SecureSumError("is not set", field="--passphrase-env", value=variable, remedy=remedy)
    return os.environ[variable]
