"""The set that pre-training had at the server: known by content, so that no run with privacy finds examples of its own clients in it.

An encoder trained there saw every example without noise. So before anything is trained, a run with differential privacy compares that set,
its own or that of the run whose encoder it loads, with what its clients hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secure_fl.config import PretrainConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.digests import content_digests
from secure_fl.errors import PrivacyError, RunFolderError
from secure_fl.federation.folder import RunFolder

_SALT = 16
"""Bytes of a salt: a new one a run, so that records of different runs do not compare with each other or with a table made before."""


@dataclass(frozen=True)
class CentralSet:
    """Digests of the examples at the server, under a salt of their own; none where no server had a set.

    **Guarantee**: `check` refuses clients of whose examples one is in the set, as `content_digests` knows examples.

    **Assumes**: the set is the server's own. Its record, like its model, tells whoever holds a candidate whether it was in the set.

    **Not covered**: examples that were changed before they came to the server; weights that a caller brings along.
    """

    salt: bytes
    digests: frozenset[str]

    @classmethod
    def behind(cls, pretrain: PretrainConfig, data: Dataset | None) -> CentralSet | None:
        """The set that the encoder of a run is trained on at a server, in that run or in one before it; None where no server may have one.

        Args:
            data: the set of this run's own server, in mode `centralized`.

        Raises:
            RunFolderError: the record of the run whose encoder is loaded does not tell, or is damaged.
        """
        if data is not None:
            salt = os.urandom(_SALT)
            return cls(salt, frozenset(content_digests(data, salt)))
        if pretrain.mode != "load" or pretrain.load_from is None:
            return None
        folder = RunFolder.open(Path(pretrain.load_from))
        if folder.read_config().pretrain.mode not in ("centralized", "load"):
            return cls(b"", frozenset())
        return cls._read(folder)

    @classmethod
    def _read(cls, folder: RunFolder) -> CentralSet:
        remedy = "load an encoder whose folder is whole, or pre-train anew"
        try:
            content = folder.read_json(folder.central)
            salt, digests = bytes.fromhex(content["salt"]), content["digests"]
            if not (isinstance(digests, list) and all(isinstance(digest, str) for digest in digests)):
                raise TypeError
            return cls(salt, frozenset(digests))
        except FileNotFoundError:
            problem = "the record does not say which examples the encoder saw"
            raise RunFolderError(problem, field="central.json", value=str(folder.path), remedy=remedy) from None
        except (KeyError, TypeError, ValueError) as error:
            raise RunFolderError(f"unreadable: {type(error).__name__}", field="central.json", value=str(folder.path), remedy=remedy) from None

    def as_dict(self) -> dict[str, Any]:
        """The content of `central.json`; sorted, so that it shows no order of the examples."""
        return {"salt": self.salt.hex(), "digests": sorted(self.digests)}

    def check(self, held: Iterable[Dataset]) -> None:
        """Refuse a set that shares an example with what clients hold, for training or for tests.

        Raises:
            PrivacyError: it does; which examples, and how many, is not said.
        """
        if self.digests and any(not self.digests.isdisjoint(content_digests(data, self.salt)) for data in held):
            problem = "the server's set holds examples of the clients, and is learned in the clear"
            remedy = "pre-train on examples that no client holds, or federated"
            raise PrivacyError(problem, field="pretrain", value="not shown", remedy=remedy)
