"""The gate before every round: what clients are about to release is recorded, saved and held against the budget before they are asked.

Recording comes first, so a crash after a client has answered leaves its release in the ledger. A resumed round answers the same request with
the same noise: it is the same release, found in the ledger under the same key, and is charged once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

from torch import Tensor

from secure_fl.config import PrivacyConfig
from secure_fl.errors import PrivacyError
from secure_fl.federation.folder import RunFolder
from secure_fl.privacy.events import Event
from secure_fl.privacy.ledger import Budget, PrivacyLedger, Release
from secure_fl.privacy.units import Adjacency, PrivacyUnit

_LOADED = "loaded/"


class BudgetGate:
    """The ledger of a run with differential privacy, its budget, and the file that survives a crash. Without privacy it lets everything pass."""

    def __init__(self, config: PrivacyConfig, path: Path | None) -> None:
        self._path = path
        self.budget: Budget | None = None
        self.ledger: PrivacyLedger | None = None
        if config.unit != "none":
            self.budget = Budget(config.epsilon, config.delta, PrivacyUnit(config.unit), Adjacency(config.adjacency))
            known = path is not None and path.exists()
            self.ledger = PrivacyLedger.load(path) if known and path is not None else PrivacyLedger(self.budget)

    def admit(self, releases: Sequence[Release]) -> None:
        """Record a round's releases, or refuse the round.

        Raises:
            PrivacyError: somebody's budget would be passed; nothing is recorded, and nobody has been asked.
        """
        if self.ledger is None or not releases:
            return
        self.ledger.would_exceed(releases, self.budget)
        for release in releases:
            self.ledger.record(release)
        if self._path is not None:
            self.ledger.save(self._path)

    def load_encoder(self, folder: RunFolder) -> None:
        """Take over what an earlier run has released of the same clients: its encoder is the start of this one.

        An encoder from an unlabelled set at a server (`centralized`) has seen none of the clients' examples and costs nothing.

        Raises:
            PrivacyError: it was trained on clients' data without a ledger, or the two runs together pass the budget.
        """
        if self.ledger is None:
            return
        if folder.ledger.exists():
            releases = PrivacyLedger.load(folder.ledger).releases
            self.admit([replace(release, key=f"{_LOADED}{release.key}") for release in releases])
        elif folder.read_config().pretrain.mode != "centralized":
            remedy = "load an encoder that was trained with privacy, or on a set of the server's own (pretrain.mode = centralized)"
            raise PrivacyError("was trained without privacy", field="pretrain.load_from", value=str(folder.path), remedy=remedy)

    def already(self, client: int) -> tuple[Event, ...]:
        """What an earlier run has released of a client."""
        releases = () if self.ledger is None else self.ledger.releases
        return tuple(release.event for release in releases if release.key.startswith(_LOADED) and client in release.subjects)

    def spent(self) -> dict[str, object]:
        """What a round's record says of privacy: the largest ε of any subject so far, by the quick bound, which is never too low."""
        if self.ledger is None or self.budget is None:
            return {}
        return {"privacy": {"epsilon": self.ledger.maximum(self.budget, fine=False), "delta": self.budget.delta, "unit": str(self.budget.unit)}}


def digest_of(message: object) -> str:
    """SHA-256 in hex over a message's tensors and values: part of the noise's domain and of the release's key.

    Whoever asks the same round again with another model gets other noise and is charged again; noise never answers two questions.
    """
    digest = hashlib.sha256()
    for part in _flat(message):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _flat(value: object) -> Iterable[bytes]:
    if isinstance(value, Tensor):
        yield repr((value.dtype, tuple(value.shape))).encode()
        yield value.detach().cpu().contiguous().numpy().tobytes()
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__.encode()
        for field in fields(value):
            yield from _flat(getattr(value, field.name))
    else:
        yield repr(value).encode()
