"""Homomorphic encryption by BFV: parameters, keys and how they travel, packed bodies, sums.

Public names, each imported when it is used:

- `BfvClient`: Encrypts with the key it was given: the shared secret key (seeded, half the bytes) or
  the authority's public key.
- `BfvHolder`: Decrypts sums.
- `BfvServer`: The keyless server of BFV sums; see `KeylessServer`.
- `ParameterSet`: One ring, its moduli and its plaintext space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_fl.lazy import lazily

if TYPE_CHECKING:
    from secure_fl.he.bfv import BfvClient as BfvClient
    from secure_fl.he.bfv import BfvHolder as BfvHolder
    from secure_fl.he.bfv import BfvServer as BfvServer
    from secure_fl.he.parameters import ParameterSet as ParameterSet

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "bfv": ["BfvClient", "BfvHolder", "BfvServer"],
        "parameters": ["ParameterSet"],
    },
)
