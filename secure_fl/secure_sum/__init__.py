"""Sums of integer vectors that nobody on the way can read: the grid, masks, a round's parties.

Public names, each imported when it is used:

- `Authority`: The key holder as a party of its own: messages in, messages out.
- `ClientRounds`: One client: the round that runs, and at most one that is prepared.
- `draw_groups`: Disjoint groups of at least `size`, equal at everyone who holds names and seed; the
  remainder is dealt over the groups.
- `FieldLayout`: Fields of `bits` bits, `fields_per_slot` in a residue modulo `modulus`.
- `FolderStore`: Keeps rounds in a folder of its own.
- `Grid`: Fixed point in blocks, for one kind of sum without noise.
- `Opened`: What a round reveals.
- `RoundClient`: One client in one round.
- `RoundJournal`: One round's journal, in a folder that those of the rounds before and after share.
- `RoundPlan`: Everything public about a round, equal at all parties.
- `RoundServer`: The server in one round; made as `RoundInbox` is.
- `ServerRounds`: The server: the round that runs, and at most one that is prepared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.secure_sum.ahead import ClientRounds as ClientRounds
    from secure_fl.secure_sum.ahead import ServerRounds as ServerRounds
    from secure_fl.secure_sum.authority import Authority as Authority
    from secure_fl.secure_sum.client import RoundClient as RoundClient
    from secure_fl.secure_sum.grid import Grid as Grid
    from secure_fl.secure_sum.journal import RoundJournal as RoundJournal
    from secure_fl.secure_sum.layout import FieldLayout as FieldLayout
    from secure_fl.secure_sum.opener import Opened as Opened
    from secure_fl.secure_sum.plan import RoundPlan as RoundPlan
    from secure_fl.secure_sum.robust import draw_groups as draw_groups
    from secure_fl.secure_sum.server import RoundServer as RoundServer
    from secure_fl.secure_sum.store import FolderStore as FolderStore

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "ahead": ["ClientRounds", "ServerRounds"],
        "authority": ["Authority"],
        "client": ["RoundClient"],
        "grid": ["Grid"],
        "journal": ["RoundJournal"],
        "layout": ["FieldLayout"],
        "opener": ["Opened"],
        "plan": ["RoundPlan"],
        "robust": ["draw_groups"],
        "server": ["RoundServer"],
        "store": ["FolderStore"],
    },
)
