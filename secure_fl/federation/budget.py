"""The gate before every round: what clients are about to release is recorded, saved and held against the budget before they are asked.

Recording comes first, so a crash after a client has answered leaves its release in the ledger. A resumed round answers the same request with
the same noise: it is the same release, found in the ledger under the same key, and is charged once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import count
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
    """The ledger of a run with differential privacy, its budget, and the file that survives a crash.

    Without privacy it holds what the run's sketches cost, and nothing where they are not noised.

    Attributes:
        covers_run: whether the budget is the whole run's, and not its sketches' alone.
    """

    def __init__(self, config: PrivacyConfig, path: Path | None, *, sketches: bool = False) -> None:
        """`sketches`: whether the run releases noised ones."""
        self._path = path
        self.budget: Budget | None = None
        self.ledger: PrivacyLedger | None = None
        self.covers_run = config.unit != "none"
        if self.covers_run or sketches:
            unit = PrivacyUnit(config.unit) if self.covers_run else PrivacyUnit.EXAMPLE
            epsilon = config.epsilon if self.covers_run else config.sketch_epsilon
            self.budget = Budget(epsilon, config.delta, unit, Adjacency(config.adjacency))
            known = path is not None and path.exists()
            self.ledger = PrivacyLedger.load(path) if known and path is not None else PrivacyLedger(self.budget)

    def admit(self, releases: Sequence[Release], lost: Callable[[str], bool] = lambda _: False) -> None:
        """Record a round's releases, or refuse the round.

        Args:
            lost: whether a release's result was made before and is gone: made again it has other noise, and is charged again.

        Raises:
            PrivacyError: somebody's budget would be passed; nothing is recorded, and nobody has been asked.
        """
        if self.ledger is None or not releases:
            return
        releases = [self._again(release) if lost(release.key) else release for release in releases]
        self.ledger.would_exceed(releases, self.budget)
        for release in releases:
            self.ledger.record(release)
        if self._path is not None:
            self.ledger.save(self._path)

    def _again(self, release: Release) -> Release:
        """The release under a key of its own."""
        assert self.ledger is not None
        known = {each.key for each in self.ledger.releases}
        number = next(number for number in count(1) if f"{release.key}/again-{number}" not in known)
        return replace(release, key=f"{release.key}/again-{number}")

    def load_encoder(self, folder: RunFolder, clients: int) -> None:
        """Take over what an earlier run has released: its encoder is the start of this one.

        Examples may be with other clients now. Each was with one client then, so every client is charged what the costliest one was. An
        encoder from an unlabelled set at a server (`centralized`) has seen none of the clients' examples and costs nothing.

        Raises:
            PrivacyError: it was trained on clients' data without a ledger or for another unit, or the two runs together pass the budget.
        """
        if self.ledger is None or self.budget is None or not self.covers_run:
            return
        before = folder.read_config()
        open_training = before.privacy.unit == "none"  # its ledger, if any, holds its sketches only
        if before.pretrain.mode != "centralized" and (open_training or not folder.ledger.exists()):
            remedy = "load an encoder that was trained with privacy, or on a set of the server's own (pretrain.mode = centralized)"
            raise PrivacyError("was trained without privacy", field="pretrain.load_from", value=str(folder.path), remedy=remedy)
        if folder.ledger.exists():
            earlier = PrivacyLedger.load(folder.ledger)
            spent = {row.subject: row.epsilon for row in earlier.table(self.budget, fine=False)}
            if not spent and open_training:
                return
            if not spent:
                remedy = f"load an encoder whose ledger is for one {self.budget.unit}"
                raise PrivacyError("protects another unit", field="pretrain.load_from", value=str(folder.path), remedy=remedy)
            costliest = max(spent, key=lambda subject: spent[subject])
            releases = [release for release in earlier.releases if costliest in release.subjects]
            self.admit([replace(release, key=f"{_LOADED}{release.key}", subjects=tuple(range(clients))) for release in releases])

    def state(self, claims: Sequence[Mapping[str, object]]) -> None:
        """Write the claims into the ledger's file."""
        if self.ledger is not None and self._path is not None:
            self.ledger.save(self._path, claims=claims)

    def already(self, client: int) -> tuple[Event, ...]:
        """What an earlier run has released of a client."""
        releases = () if self.ledger is None else self.ledger.releases
        return tuple(release.event for release in releases if release.key.startswith(_LOADED) and client in release.subjects)

    def spent(self) -> dict[str, object]:
        """What a round's record says of privacy: the largest ε of any subject so far, by the quick bound, which is never too low.

        Nothing where only sketches are noised: beside a round's loss it would read as if the round were private.
        """
        if self.ledger is None or self.budget is None or not self.covers_run:
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
    elif isinstance(value, dict | list | tuple):
        yield type(value).__name__.encode()
        for item in value.items() if isinstance(value, dict) else value:
            yield from _flat(item)
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__.encode()
        for field in fields(value):
            yield from _flat(getattr(value, field.name))
    else:
        yield repr(value).encode()
