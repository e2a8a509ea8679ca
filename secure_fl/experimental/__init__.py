"""Parts that no run uses: each works and is tested, and waits for somebody who needs it.

This room imports from the rest of the house; nothing in the house imports from here. No part has an
owner yet: whoever brings one in takes it on, and until then a release may change or remove it
without notice.

- **RLWE pads** (`rlwe_pad`, `rlwe_ring`). Hide one large message of a client that cannot stay for
  the round, or that would have seventy neighbours or more to mask with. Owner: none. What would
  bring them in: a review from outside, a lattice estimate of the parameters, and a federation in
  which the mask streams are what clients wait for.
- **Correlated noise** (`correlated`, `tree_chains`). Prefix sums noised by a tree, where the key
  holder adds the noise and no client takes part often. Owner: none. What would bring it in: a
  deployment whose authority may add noise, and a chain that survives a crash without its state
  lying on a disk.
- **Pairs clipped one by one** (`logit`, `row_grams`). InfoNCE over a whole batch with a sensitivity
  that is proved. Owner: none. What would bring it in: a data set on which it learns more than
  groups do; on those of `docs/private-accuracy.md` it keeps nothing.
- **CKKS** (`ckks`). Approximate sums for systems that speak nothing else, rounded to integers
  inside the key holder. Owner: none. What would bring it in: a partner that cannot take BFV, and
  masks below it.

Public names, each imported when it is used:

- `CkksClient`: Encrypts integers, one a slot.
- `CkksHolder`: Decrypts sums and gives out integers only.
- `CkksServer`: The keyless server of CKKS sums; see `KeylessServer`.
- `ClientChain`: One client's side of a chain of correlated noise in which all take part.
- `KeyHolderChain`: The key holder's side of a chain: it adds the noise to sums that it opens.
- `LogitDP`: InfoNCE between first and second views of one Poisson sample.
- `PadPlan`: What all parties know of one padded block.
- `PadSum`: The sum of padded uploads, opened with the sum of their secrets.
- `PrefixTree`: One chain of correlated noise: what everybody knows of it before it begins.
- `RlwePad`: One client's pad for one block.
- `SumChain`: Whoever opens sums of `ClientChain`s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.experimental.ckks import CkksClient as CkksClient
    from secure_fl.experimental.ckks import CkksHolder as CkksHolder
    from secure_fl.experimental.ckks import CkksServer as CkksServer
    from secure_fl.experimental.correlated import PrefixTree as PrefixTree
    from secure_fl.experimental.logit import LogitDP as LogitDP
    from secure_fl.experimental.rlwe_pad import PadPlan as PadPlan
    from secure_fl.experimental.rlwe_pad import PadSum as PadSum
    from secure_fl.experimental.rlwe_pad import RlwePad as RlwePad
    from secure_fl.experimental.tree_chains import ClientChain as ClientChain
    from secure_fl.experimental.tree_chains import KeyHolderChain as KeyHolderChain
    from secure_fl.experimental.tree_chains import SumChain as SumChain

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "ckks": ["CkksClient", "CkksHolder", "CkksServer"],
        "correlated": ["PrefixTree"],
        "logit": ["LogitDP"],
        "rlwe_pad": ["PadPlan", "PadSum", "RlwePad"],
        "tree_chains": ["ClientChain", "KeyHolderChain", "SumChain"],
    },
)
