"""Who holds a lock: the note that a process leaves beside it, and the note in words."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime


def this_process() -> dict[str, int | str]:
    """The note of this process: its number, host and user, and the time now (UTC)."""
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "user": _user(),
        "since": datetime.now(UTC).isoformat("T", "seconds"),
    }


def in_words(note: Mapping[str, int | str]) -> str:
    """What a note says, for an error."""
    try:
        return (
            f"process {note['process']} of {note['user']} on {note['host']} since {note['since']}"
        )
    except KeyError:
        return "another process"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in containers
        return str(os.getuid())
