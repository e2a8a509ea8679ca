"""The newest roster that an identity has seen of each federation, in a file beside it: an older one
is never taken again.

Guarantee: after `accept`, no roster of a lower revision, no other one of the same revision and none
that forgets a revocation is accepted by this identity, also in another process and after a restart.
A member that was revoked cannot come back by an old file. An identity that is not there, or named
by a link, is refused, since another memory would lie beside it.
Assumes: the memory lies where the identity lies, and is kept with it; whoever restores both from an
older copy restores that knowledge too.
Not covered: an identity that is copied to two machines, each of which remembers for itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from secure_fl.crypto.identities import Member, read_identity
from secure_fl.crypto.refusals import RefusedError
from secure_fl.crypto.roster import Roster, RosterMark
from secure_fl.crypto.secret_files import read_secret, write_secret
from secure_fl.crypto.strict_json import canonical, fields, parse_object
from secure_fl.errors import SecureSumError
from secure_fl.files import held

_FORMAT = "secure-fl seen rosters 1"
_PATIENCE = 10.0


class RosterMemory:
    """Of one identity.

    Args:
        identity: path of its private file; the memory is `NAME.identity.rosters` beside it.
    """

    def __init__(self, identity: Path) -> None:
        self._identity, self.path = identity, identity.with_name(f"{identity.name}.rosters")

    def open(self, data: bytes, coordinator: Member) -> Roster:
        """A signed roster, checked against the newest one seen and remembered.

        Raises:
            RefusedError: as `Roster.open` and `Roster.follows`.
            SecureSumError: there is no such identity, or its memory is damaged or cannot
                be written.
        """
        return self.accept(Roster.open(data, coordinator))

    def check(self, roster: Roster) -> None:
        """Refuse a roster that does not follow the newest one seen; remember nothing.

        Raises:
            RefusedError: as `Roster.follows`.
            SecureSumError: there is no such identity, or its memory is damaged.
        """
        seen = self._read().get(roster.federation)
        if seen is not None:
            roster.follows(seen)

    def accept(self, roster: Roster) -> Roster:
        """The roster, which is the newest one seen from now on.

        Raises:
            RefusedError: as `Roster.follows`.
            SecureSumError: there is no such identity, or its memory is damaged or cannot
                be written.
        """
        # another process may be about to remember a newer one
        with held(self.path, wait=_PATIENCE):
            self.check(roster)
            seen = self._read()
            if seen.get(roster.federation) != roster.mark:
                seen[roster.federation] = roster.mark
                marks = {name: mark.document() for name, mark in seen.items()}
                document = canonical({"format": _FORMAT, "federations": marks})
                write_secret(self.path, document, overwrite=True)
        return roster

    def _read(self) -> dict[str, RosterMark]:
        # beside another name, or a link, there would be another memory, which knows nothing
        read_identity(self._identity)
        if not os.path.lexists(self.path):
            return {}
        try:
            document = parse_object(read_secret(self.path), "seen rosters")
            found = fields(document, "seen rosters", {"format": str, "federations": dict})
            if found["format"] != _FORMAT:
                raise ValueError
            marks = found["federations"].items()
            return {name: RosterMark.from_document(name, value) for name, value in marks}
        except (RefusedError, ValueError):
            remedy = (
                "restore it from a copy; without it an older roster would be taken for the newest"
            )
            raise SecureSumError("damaged", "seen rosters", str(self.path), remedy) from None
