"""Identities, rosters, signed envelopes, sealed boxes, shares of secrets, streams made from keys.

Public names, each imported when it is used:

- `Identity`: The private half of a participant's keys; shown by name only.
- `Member`: The public half of a participant's keys.
- `Reason`: Stable codes, recorded with every refusal; `docs/errors.md` explains them.
- `RefusedError`: A message, ciphertext or key that is refused; `reason` says why in one
  stable word.
- `Roster`: Members in order of name.
- `RosterMemory`: What one identity remembers of the rosters it has seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.crypto.identities import Identity as Identity
    from secure_fl.crypto.identities import Member as Member
    from secure_fl.crypto.refusals import Reason as Reason
    from secure_fl.crypto.refusals import RefusedError as RefusedError
    from secure_fl.crypto.roster import Roster as Roster
    from secure_fl.crypto.roster_memory import RosterMemory as RosterMemory

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "identities": ["Identity", "Member"],
        "refusals": ["Reason", "RefusedError"],
        "roster": ["Roster"],
        "roster_memory": ["RosterMemory"],
    },
)
