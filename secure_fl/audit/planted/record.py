"""Records that are changed once a run has ended, each as well as who changes it can."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from secure_fl.audit.check import Fault
from secure_fl.config import FederationConfig
from secure_fl.files import read_bytes, write_atomically
from secure_fl.privacy.events import IntegerEvent
from secure_fl.privacy.ledger import PrivacyLedger, Release
from secure_fl.run import Federation

Change = Callable[[Path], None]


def small(**tables: dict[str, Any]) -> FederationConfig:
    """Two rounds of three clients, who add noise to their sum; tables given are laid over it."""
    base: dict[str, dict[str, Any]] = {
        "data": {"sources": [{"name": "digits", "limit": 90}]},
        "partition": {"clients": 3},
        "model": {"encoder": "convnet", "features": 16},
        "pretrain": {"rounds": 2, "local_epochs": 1, "batch_size": 16},
        "pools": {"enabled": False},
        "evaluate": {"enabled": False},
        "security": {"protection": "plain"},
        "privacy": {"unit": "client", "noise": 2.0, "epsilon": 500.0, "min_clients": 3},
    }
    laid = {name: {**base.get(name, {}), **tables.get(name, {})} for name in base | tables}
    return FederationConfig(**laid)


@contextmanager
def afterwards(change: Change) -> Iterator[None]:
    """Within it, the folder of every run is changed once the run has ended."""
    run = Federation.run

    def changed(self: Federation, out: Path, **options: Any) -> object:
        result = run(self, out, **options)
        change(Path(out))
        return result

    with patch.object(Federation, "run", changed):
        yield


def rewritten(folder: Path, change: Callable[[tuple[Release, ...]], Iterable[Release]]) -> None:
    """A ledger of other releases, with the hashes, the digest and the ε that follow from them."""
    path = folder / "ledger.json"
    content = json.loads(read_bytes(path))
    before = PrivacyLedger.load(path)
    order = {entry["key"]: number for number, entry in enumerate(content["releases"])}
    after = PrivacyLedger(before.budget)
    for release in change(tuple(sorted(before.releases, key=lambda each: order[each.key]))):
        after.record(release)
    after.save(path, claims=content["claims"])


def _shortened(folder: Path) -> None:
    rewritten(folder, lambda releases: releases[:-1])


def _with_more_noise(folder: Path) -> None:
    rewritten(folder, lambda releases: map(twice_the_noise, releases))


def twice_the_noise(release: Release) -> Release:
    """A release that says it had noise of twice the deviation."""
    event = release.event
    assert isinstance(event, IntegerEvent)
    return replace(release, event=replace(event, variance=4 * event.variance))


def _understated(folder: Path) -> None:
    path = folder / "summary.json"
    content = json.loads(read_bytes(path))
    content["privacy"]["epsilon"] /= 2
    for claim in content["privacy"]["claims"]:
        claim["epsilon"] /= 2
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def _with_a_round_less(folder: Path) -> None:
    path = folder / "metrics.jsonl"
    lines = read_bytes(path).splitlines(keepends=True)
    write_atomically(path, b"".join(lines[:1] + lines[2:]))


def _with_another_model(folder: Path) -> None:
    path = folder / "model" / "encoder.safetensors"
    data = bytearray(read_bytes(path))
    data[-1] ^= 1
    write_atomically(path, bytes(data))


def _fault(name: str, check: str, change: Change) -> Fault:
    plant: Callable[[], AbstractContextManager[object]] = partial(afterwards, change)
    return Fault(name, check, small, plant, finished=True)


FAULTS = (
    _fault("finished ledger shortened", "record", _shortened),
    _fault("noise doubled in the ledger", "record", _with_more_noise),
    _fault("ε halved in the summary", "record", _understated),
    _fault("a round cut from the metrics", "record", _with_a_round_less),
    _fault("another model in the folder", "record", _with_another_model),
    _fault("finished ledger shortened, by its charges", "charges", _shortened),
    _fault("ε halved in the summary, by the account", "account", _understated),
)
