"""The settings that one party's folder was written under: those of the plan that was signed."""

from __future__ import annotations

from pathlib import Path

from secure_fl.config import FederationConfig
from secure_fl.crypto.envelope import body_of
from secure_fl.errors import RunFolderError, SecureFLError
from secure_fl.federation.parties.party_folder import CHECK
from secure_fl.federation.plan import Plan
from secure_fl.federation.transcript.chain import read_lines
from secure_fl.federation.transcript.entries import PlanEntry
from secure_fl.federation.verify.rounds import FILE
from secure_fl.files import is_file, read_bytes

_CONFIG, _PLAN = "config.toml", "plan"
_LARGEST = 1 << 36


def is_partys(folder: Path) -> bool:
    """Whether a folder has a transcript and no settings of a run: one party's, of a deployment."""
    return is_file(folder / FILE) and not is_file(folder / _CONFIG)


def planned_in(folder: Path) -> FederationConfig:
    """The settings of the plan that a client keeps beside its transcript, or a server in it.
    Whether it is signed, and the plan that the transcript names, `verify` says.

    Raises:
        RunFolderError: there is no plan, or it is damaged.
        FileError: it cannot be read.
    """
    try:
        found = _kept(folder) if is_file(folder / _PLAN) else _signed(folder)
        plan = None if found is None else Plan.decode(found)
    except (ValueError, SecureFLError):
        plan = None
    if plan is None:
        remedy = "name the folder that a party wrote; `secure-fl verify` says what is damaged"
        raise RunFolderError("holds no plan that can be read", "folder", str(folder), remedy)
    return plan.config


def _kept(folder: Path) -> bytes:
    return body_of(read_bytes(folder / _PLAN, most=_LARGEST)[CHECK:])


def _signed(folder: Path) -> bytes | None:
    """Of the plan that was signed last: the third piece of its entry's evidence."""
    found: bytes | None = None
    for line in read_lines(read_bytes(folder / FILE, most=_LARGEST)):
        if isinstance(line.entry, PlanEntry) and line.evidence:
            found = body_of(line.evidence[-1])
    return found
