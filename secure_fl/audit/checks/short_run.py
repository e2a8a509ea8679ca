"""A short run in a temporary folder, protected as the audited one is, with made-up examples.

What a run leaves on a disk, and what it refuses to go on from, is seen on this one: nothing in the
audited folder is changed, and the user's own state directory is not touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

from secure_fl import run as whole
from secure_fl.callbacks.base import Callback
from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Dataset
from secure_fl.federation.run_folder.metrics import RoundRecord
from secure_fl.run import Federation

_CLASSES, _EACH = 3, 24
_STATE = "SECURE_FL_STATE"


@contextmanager
def elsewhere() -> Iterator[Path]:
    """A temporary folder, in which the user's state directory lies meanwhile."""
    with TemporaryDirectory(prefix="secure-fl-audit-") as name:
        folder = Path(name)
        with patch.dict(os.environ, {_STATE: str(folder / "state")}):
            yield folder


def made_up_examples(clients: int, seed: int = 0) -> Dataset:
    """Random pictures of 8 x 8, whose bytes are nowhere else."""
    drawn = torch.Generator().manual_seed(seed)
    count = clients * _EACH
    x = torch.rand(count, 1, 8, 8, generator=drawn)
    y = torch.randint(0, _CLASSES, (count,), generator=drawn)
    y[:_CLASSES] = torch.arange(_CLASSES)
    return Dataset.from_arrays(x, y, classes=_CLASSES, name="made up for an audit")


def short(config: FederationConfig, *, rounds: int = 1, pools: bool = True) -> FederationConfig:
    """Few rounds of few clients with a small model, with the run's protection, unit and record."""
    security, unit = config.security, config.privacy.unit
    clients = 2 * security.min_pool_clients
    training: dict[str, Any] = {"local_epochs": 1, "batch_size": 16, "rounds": rounds}
    tables: dict[str, dict[str, Any]] = {
        "partition": {"kind": "iid", "clients": clients},
        "model": {"encoder": "convnet", "features": 16},
        "pretrain": training,
        "pools": {**training, "count": 1 if unit == "client" else 2, "start": "pretrained"},
        "evaluate": {"enabled": config.evaluate.enabled, "probe_epochs": 1},
        "security": {
            "protection": security.protection,
            "key_holder": security.key_holder,
            "min_pool_clients": security.min_pool_clients,
        },
        "runtime": {"device": "cpu", "threads": 1},
        "privacy": {"delta": config.privacy.delta},
    }
    if not (pools and config.pools.enabled):
        tables["pools"] = {"enabled": False}
    if unit != "none":
        # noise so large that the statement of a budget takes no search
        tables["privacy"] |= {"unit": unit, "noise": 8.0, "epsilon": 1e5, "features": 16}
        tables["objective"] = {"name": "align_uniform"}
    return FederationConfig.model_validate(tables)


class StoppedError(BaseException):
    """A run is to end here, as by a kill."""


class EndAtOnce(Callback):
    """Ends a run, as by a kill, once it has been let go on."""

    def on_phase(self, name: str, rounds: int, done: int) -> None:
        raise StoppedError


@dataclass
class Watch(Callback):
    """Looks at a run while it goes on.

    Attributes:
        stop: rounds after which it ends as by a kill; 0 for never.
        look: called after each round, and when clients have answered.
    """

    stop: int = 0
    look: Any = None
    rounds: int = field(default=0, init=False)

    def on_client(self, done: int, total: int) -> None:
        if self.look is not None and done == total:
            self.look()

    def on_round(self, record: RoundRecord) -> None:
        self.rounds += 1
        if self.look is not None:
            self.look()
        if self.rounds == self.stop:
            raise StoppedError


def run(
    config: FederationConfig,
    data: Dataset,
    out: Path,
    *,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    begins: Callable[[Federation], None] = lambda _: None,
) -> None:
    """The run, to its end or to where a callback stops it; `begins` is given it before. That no
    path of a private loss couples examples is checked when it begins, and not again. Raises
    SecureFLError: it is refused.
    """
    checked = patch.object(whole, "check_paths", lambda *_: None) if resume else nullcontext()
    try:
        with checked:
            federation = Federation(config, data=data, callbacks=callbacks)
            begins(federation)
            federation.run(out, resume=resume, progress=False)
    except StoppedError:
        return
