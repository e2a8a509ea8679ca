"""The set that pre-training had at the server: known by content, so that no run with privacy finds
examples of its own clients in it.

An encoder trained there saw every example without noise. So before anything is trained, a run with
differential privacy compares that set, its own or that of the run whose encoder it loads, with what
its clients hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from secure_fl.config import FederationConfig, PretrainConfig
from secure_fl.data.dataset import Dataset, Splits
from secure_fl.data.digests import content_digests
from secure_fl.data.joining import join
from secure_fl.data.sources import load_source
from secure_fl.errors import PrivacyError, RunFolderError
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.files import is_file, read_json

_SALT = 16
"""Bytes of a salt, new for each run, so that records of different runs do not compare."""


@dataclass(frozen=True)
class _Record:
    """The content of `central.json`: which examples a server has trained on, as salted digests."""

    salt: str
    digests: list[str]


@dataclass(frozen=True)
class CentralSet:
    """Digests of the examples at the server, under a salt of their own; none where no server had
    a set.

    **Guarantee**: `check` refuses clients of whose examples one is in the set, as `content_digests`
    knows examples.

    **Assumes**: the set is the server's own. Its record, like its model, tells whoever holds a
    candidate whether it was in the set.

    **Not covered**: examples that were changed before they came to the server; weights that a
    caller brings along.
    """

    salt: bytes
    digests: frozenset[str]

    @classmethod
    def behind(cls, pretrain: PretrainConfig, data: Dataset | None) -> CentralSet | None:
        """The set that the encoder of a run is trained on at a server, in that run or in one before
        it; None where no server may have one. Raises RunFolderError: the record of the run whose
        encoder is loaded does not tell, or is damaged.

        Args:
            data: the set of this run's own server, in mode `centralized`.
        """
        if data is not None:
            salt = os.urandom(_SALT)
            return cls(salt, frozenset(content_digests(data, salt)))
        if pretrain.mode != "load" or pretrain.load_from is None:
            return None
        folder = RunFolder.open(Path(pretrain.load_from), "pretrain.load_from")
        if folder.read_config().pretrain.mode not in ("centralized", "load"):
            return cls(b"", frozenset())
        return cls.recorded(folder)

    @classmethod
    def checked(
        cls,
        pretrain: PretrainConfig,
        data: Dataset | None,
        held: Iterable[Dataset],
        resumed: RunFolder | None = None,
    ) -> CentralSet | None:
        """The set that a server trains a run's encoder on, or has trained it on, checked to hold no
        private example of the clients. Raises PrivacyError: as `check`; RunFolderError: as `behind`
        and `recorded`.

        Args:
            data: the set of this run's own server, in mode `centralized`.
            held: the clients' examples that are compared with it.
            resumed: a run that has loaded its encoder already, and whose own record says what that
                has seen.
        """
        if resumed is not None and pretrain.mode == "load":
            seen: CentralSet | None = cls.recorded(resumed)
        else:
            seen = cls.behind(pretrain, data)
        if seen is not None:
            seen.check(held)
        return seen

    @classmethod
    def recorded(cls, folder: RunFolder) -> CentralSet:
        """What a run's record says that its encoder has seen, or RunFolderError."""
        remedy = "load an encoder whose folder is whole, or pre-train anew"
        if not is_file(folder.central):
            problem = "the record does not say which examples the encoder saw"
            raise RunFolderError(problem, "central.json", str(folder.path), remedy)
        content = read_json(folder.central, _Record, remedy)
        try:
            return cls(bytes.fromhex(content.salt), frozenset(content.digests))
        except ValueError:
            problem = "is damaged: salt"
            raise RunFolderError(problem, "central.json", str(folder.path), remedy) from None

    def as_dict(self) -> dict[str, Any]:
        """The content of `central.json`; sorted, so that it shows no order of the examples."""
        return {"salt": self.salt.hex(), "digests": sorted(self.digests)}

    def check(self, held: Iterable[Dataset]) -> None:
        """Refuse a set that shares an example with what clients hold, for training or for tests.
        Raises PrivacyError: it does; which examples, and how many, is not said.
        """
        if self.digests and any(
            not self.digests.isdisjoint(content_digests(data, self.salt)) for data in held
        ):
            problem = "the server's set holds examples of the clients, and is learned in the clear"
            remedy = "pre-train on examples that no client holds, or federated"
            raise PrivacyError(problem, "pretrain", "not shown", remedy)


def central_data(config: FederationConfig, like: Dataset) -> Dataset | None:
    """The set of centralized pre-training, None in other modes. Raises DataError: it cannot be
    read, or looks otherwise.

    Args:
        like: a client's examples, which it must look like.
    """
    source = config.pretrain.source
    if config.pretrain.mode != "centralized" or source is None:
        return None
    data, _ = load_source(source, config.data, config.seed)
    first = torch.tensor([0])
    join([like.take(first), data.take(first)], "pretrain.source")
    return data


def compared(config: FederationConfig, sources: Iterable[Splits]) -> list[Dataset]:
    """Examples as they were before clients' transforms: what is looked for in a set that a server
    has seen. None without differential privacy, or where no server has a set.
    """
    private = config.privacy.unit != "none"
    if not private or config.pretrain.mode not in ("centralized", "load"):
        return []
    return [part for split in sources for part in split if part is not None]
