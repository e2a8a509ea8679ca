"""How far a federation is: read from a server's record, also while the server writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secure_fl.crypto.identities import Member
from secure_fl.crypto.strict_json import parse_object
from secure_fl.errors import RunFolderError, SecureSumError
from secure_fl.federation.parties.party_folder import CHECK, checked, owner_of
from secure_fl.federation.parties.server_record import Stage
from secure_fl.files import is_file, read_bytes

DONE = "done"
"""How a federation came out that did not fail."""
_NAME, _MOST = "progress", 1 << 34


@dataclass(frozen=True)
class Progress:
    """What a server has written of its federation.

    Attributes:
        stage: what it waits for.
        place: step of the program, and rounds finished in it.
        number: of the attempt that was called last.
        attempt: at the round of that place, from 1.
        members: who takes part.
        silent: who of them has not answered of late.
        declined: who refused the plan.
        failed: why it ended early, in one word; empty where it has not.
    """

    stage: Stage
    place: tuple[int, int]
    number: int
    attempt: int
    members: tuple[str, ...]
    silent: tuple[str, ...]
    declined: tuple[str, ...]
    failed: str

    @property
    def over(self) -> bool:
        """Whether no round is left, or it has failed."""
        return self.stage == Stage.OVER

    @property
    def outcome(self) -> str:
        """`done`, why it failed, or empty where it goes on."""
        return self.failed or (DONE if self.over else "")


def read_progress(record: Path, server: Member, federation: str) -> Progress | None:
    """What a server wrote last; None where it wrote nothing. Raises RunFolderError: damaged;
    FileError: it cannot be read.

    Args:
        record: the server's party folder.
        server: whose it is.
        federation: its name.
    """
    path = record / _NAME
    if not is_file(path):
        return None
    data = read_bytes(path, most=_MOST)
    whose = owner_of(server, federation)
    remedy = "put back the file, or sign a new plan and begin another federation"
    damaged = RunFolderError.of_file("damaged, or another party's", path, remedy)
    if checked(whose, _NAME, data[CHECK:]) != data[:CHECK]:
        raise damaged
    try:
        found = parse_object(data[CHECK:], _NAME)
        step, done = found["place"]
        return Progress(
            Stage(found["stage"]),
            (step, done),
            found["number"],
            found["attempt"],
            members=tuple(sorted(found["members"])),
            silent=tuple(sorted(found["silent"])),
            declined=tuple(sorted(found["declined"])),
            failed=found["failed"],
        )
    except (SecureSumError, LookupError, ValueError, TypeError):
        raise damaged from None
