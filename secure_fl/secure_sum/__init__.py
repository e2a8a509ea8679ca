"""Sums of integer vectors that nobody on the way can read: grid, masks, secret shares,
encryption, keys.

Public names, each imported when it is used:

- `Authority`: The key holder as a party of its own: messages in, messages out.
- `BfvClient`: Encrypts with the key it was given: the shared secret key (seeded, half the bytes) or
  the authority's public key.
- `BfvHolder`: Decrypts sums.
- `BfvServer`: The keyless server of BFV sums; see `KeylessServer`.
- `ClientRounds`: One client: the round that runs, and at most one that is prepared.
- `draw_groups`: Disjoint groups of at least `size`, equal at everyone who holds names and seed; the
  remainder is dealt over the groups.
- `EmbeddedFederation`: All parties in one process: identities, roster, keys and what clients
  remember between rounds.
- `EmbeddedRound`: One round of an `EmbeddedFederation`; a `SecureSum`.
- `FieldLayout`: Fields of `bits` bits, `fields_per_slot` in a residue modulo `modulus`.
- `FolderStore`: Keeps rounds in a folder of its own.
- `Grid`: Fixed point in blocks, for one kind of sum without noise.
- `Identity`: The private half of a participant's keys; shown by name only.
- `Member`: The public half of a participant's keys.
- `Opened`: What a round reveals.
- `Outcome`: What a round gave, and its record.
- `parameter_set`: The set that a name or an identifier stands for.
- `ParameterSet`: One ring, its moduli and its plaintext space.
- `Reason`: Stable codes, recorded with every refusal; `docs/errors.md` explains them.
- `RefusedError`: A message, ciphertext or key that is refused; `reason` says why in one
  stable word.
- `Roster`: Members in order of name.
- `RosterMemory`: What one identity remembers of the rosters it has seen.
- `RoundClient`: One client in one round.
- `RoundJournal`: One round's journal, in a folder that those of the rounds before and after share.
- `RoundPlan`: Everything public about a round, equal at all parties.
- `RoundServer`: The server in one round; made as `RoundInbox` is.
- `SecureSum`: One round's sum, whatever protects it.
- `ServerRounds`: The server: the round that runs, and at most one that is prepared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.secure_sum.bfv import BfvClient as BfvClient
    from secure_fl.secure_sum.bfv import BfvHolder as BfvHolder
    from secure_fl.secure_sum.bfv import BfvServer as BfvServer
    from secure_fl.secure_sum.grid import Grid as Grid
    from secure_fl.secure_sum.identities import Identity as Identity
    from secure_fl.secure_sum.identities import Member as Member
    from secure_fl.secure_sum.key_holder import Opened as Opened
    from secure_fl.secure_sum.layout import FieldLayout as FieldLayout
    from secure_fl.secure_sum.parameters import ParameterSet as ParameterSet
    from secure_fl.secure_sum.parameters import parameter_set as parameter_set
    from secure_fl.secure_sum.refusals import Reason as Reason
    from secure_fl.secure_sum.refusals import RefusedError as RefusedError
    from secure_fl.secure_sum.robust import draw_groups as draw_groups
    from secure_fl.secure_sum.roster import Roster as Roster
    from secure_fl.secure_sum.roster_memory import RosterMemory as RosterMemory
    from secure_fl.secure_sum.round_ahead import ClientRounds as ClientRounds
    from secure_fl.secure_sum.round_ahead import ServerRounds as ServerRounds
    from secure_fl.secure_sum.round_authority import Authority as Authority
    from secure_fl.secure_sum.round_client import RoundClient as RoundClient
    from secure_fl.secure_sum.round_journal import RoundJournal as RoundJournal
    from secure_fl.secure_sum.round_plan import RoundPlan as RoundPlan
    from secure_fl.secure_sum.round_server import RoundServer as RoundServer
    from secure_fl.secure_sum.round_store import FolderStore as FolderStore
    from secure_fl.secure_sum.secure_sum import EmbeddedFederation as EmbeddedFederation
    from secure_fl.secure_sum.secure_sum import EmbeddedRound as EmbeddedRound
    from secure_fl.secure_sum.secure_sum import Outcome as Outcome
    from secure_fl.secure_sum.secure_sum import SecureSum as SecureSum

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "bfv": ["BfvClient", "BfvHolder", "BfvServer"],
        "grid": ["Grid"],
        "identities": ["Identity", "Member"],
        "key_holder": ["Opened"],
        "layout": ["FieldLayout"],
        "parameters": ["ParameterSet", "parameter_set"],
        "refusals": ["Reason", "RefusedError"],
        "robust": ["draw_groups"],
        "roster": ["Roster"],
        "roster_memory": ["RosterMemory"],
        "round_ahead": ["ClientRounds", "ServerRounds"],
        "round_authority": ["Authority"],
        "round_client": ["RoundClient"],
        "round_journal": ["RoundJournal"],
        "round_plan": ["RoundPlan"],
        "round_server": ["RoundServer"],
        "round_store": ["FolderStore"],
        "secure_sum": ["EmbeddedFederation", "EmbeddedRound", "Outcome", "SecureSum"],
    },
)
