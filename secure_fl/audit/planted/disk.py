"""What a run could leave on a disk, or go on from, that it must not."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from secure_fl import run
from secure_fl.audit.check import Fault
from secure_fl.audit.planted.protocol import masked
from secure_fl.config import FederationConfig
from secure_fl.federation.releases import box
from secure_fl.federation.releases.budget import BudgetGate
from secure_fl.federation.releases.run_state import RunState
from secure_fl.federation.run_folder import folder
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.run_folder.manifest import Manifest
from secure_fl.files import write_json
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.noise import NoiseStream
from secure_fl.secure_sum import store


def client_level() -> FederationConfig:
    """A run whose clients' noised answers are stored until it ends."""
    return FederationConfig.model_validate(
        {
            "partition": {"clients": 12, "kind": "iid"},
            "pools": {"enabled": False},
            "evaluate": {"enabled": False},
            "privacy": {"unit": "client", "noise": 4.0, "epsilon": 10_000.0},
            "security": {"protection": "masked"},
        }
    )


def unsealed() -> AbstractContextManager[object]:
    """Private results lie in the run's folder as they are."""
    return patch.object(box, "seal_with", lambda _, data, __: bytes(data))


def party_unsealed() -> AbstractContextManager[object]:
    """Keys and states of a party lie in its folder as they are."""
    return patch.object(store, "seal_with", lambda _, data, __: bytes(data))


def key_in_the_folder() -> AbstractContextManager[object]:
    """The key of private results lies beside them."""
    honest = RunFolder.append

    def append(self: RunFolder, record: Any) -> None:
        honest(self, record)
        key = RunState(self.run).key()
        if key is not None:
            (self.path / "key").write_bytes(key)

    return patch.object(RunFolder, "append", append)


def untagged() -> AbstractContextManager[object]:
    """Every field is written, whoever it is for."""

    def view(_: Manifest, __: str, document: Mapping[str, Any]) -> dict[str, Any]:
        return dict(document)

    return patch.object(Manifest, "view", view)


def loose() -> AbstractContextManager[object]:
    """Files that everybody may read."""

    def written(path: Path, value: object, **_: Any) -> None:
        write_json(path, value, mode=0o644)

    return patch.object(folder, "write_json", written)


def ledger_believed() -> AbstractContextManager[object]:
    """Nobody compares a ledger with what the run's records count."""
    return patch.object(BudgetGate, "follows", lambda *_: None)


def chain_unread() -> AbstractContextManager[object]:
    """A ledger holds whatever a mark says."""
    return patch.object(PrivacyLedger, "lost", lambda *_: [])


def held_by_nobody() -> AbstractContextManager[object]:
    """Two processes may go on with one run."""
    return patch.object(run, "held", lambda _: nullcontext())


def keys_printed() -> AbstractContextManager[object]:
    """Keys of noise are told to whoever reads standard error."""
    honest = NoiseStream.__init__

    def made(self: NoiseStream, key: bytes, *, private: bool) -> None:
        honest(self, key, private=private)
        print("noise", key.hex(), file=sys.stderr)

    return patch.object(NoiseStream, "__init__", made)


def loose_key() -> AbstractContextManager[object]:
    """Everybody may read the key of private results."""
    honest = RunState.new_key

    def made(self: RunState) -> bytes:
        key = honest(self)
        self._key.chmod(0o644)
        return key

    return patch.object(RunState, "new_key", made)


def never_closed() -> AbstractContextManager[object]:
    """Private results and their key outlive their run."""
    return patch.object(box.ReleaseBox, "close", lambda _: None)


@contextmanager
def charged_late() -> Iterator[None]:
    """What is released is recorded when it has been answered."""
    admit, spent, waiting = BudgetGate.admit, BudgetGate.spent, list[Any]()

    def later(_: BudgetGate, *releases: Any) -> None:
        waiting.append(releases)

    def now(self: BudgetGate) -> Any:
        while waiting:
            admit(self, *waiting.pop(0))
        return spent(self)

    with patch.object(BudgetGate, "admit", later), patch.object(BudgetGate, "spent", now):
        yield


FAULTS = (
    Fault("keys in what a run prints", "disk", client_level, keys_printed),
    Fault("a key that others may read", "disk", client_level, loose_key),
    Fault("private results after the end", "disk", client_level, never_closed),
    Fault("charged after it is answered", "ledger-chain", client_level, charged_late),
    Fault("private results unsealed", "disk", client_level, unsealed),
    Fault("a party's keys in its folder", "disk", masked, party_unsealed),
    Fault("key in the folder", "disk", client_level, key_in_the_folder),
    Fault("fields without a tag", "disk", client_level, untagged),
    Fault("files that others may read", "disk", masked, loose),
    Fault("ledger shortened", "ledger-chain", client_level, ledger_believed),
    Fault("chain of the ledger unread", "ledger-chain", client_level, chain_unread),
    Fault("two processes on one run", "ledger-chain", client_level, held_by_nobody),
)
"""Of the checks of the disk and of the ledger."""
