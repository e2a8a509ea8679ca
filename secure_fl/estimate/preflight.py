"""What would fail late, found before anything trains; and settings that do less than they say."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from secure_fl.config import FederationConfig
from secure_fl.config.method import for_training
from secure_fl.errors import DependencyError, FileError, RunFolderError
from secure_fl.federation.releases.run_state import state_directory
from secure_fl.federation.run_folder.folder import RunFolder, check_bare
from secure_fl.finished.artifacts import load_encoder

if TYPE_CHECKING:
    from secure_fl.run import Federation

_REPORT = ("matplotlib", "jinja2")


@dataclass(frozen=True)
class Warn:
    """A setting that works and does not do what it says."""

    field: str
    value: object
    said: str

    def __str__(self) -> str:
        return f"{self.field} = {self.value}: {self.said}"


def check_packages(config: FederationConfig) -> None:
    """Refuse a run for which a package is missing that one of its phases needs.

    Raises:
        DependencyError: it names the package, the setting that needs it, and how to get it.
    """
    private = config.privacy.unit != "none" or config.noises_sketches
    needed = [
        (
            "tenseal",
            config.security.protection.startswith("bfv"),
            f'security.protection = "{config.security.protection}"',
            "pip install tenseal",
        ),
        ("dp_accounting", private, "differential privacy", "pip install dp-accounting"),
    ]
    for package, wanted, by, remedy in needed:
        if wanted and util.find_spec(package) is None:
            raise DependencyError(
                f"not installed, and {by} needs it", field=package, value=None, remedy=remedy
            )


def check_loaded(federation: Federation) -> None:
    """Refuse to load from a run that has not finished, or whose encoder is another one.

    Raises:
        RunFolderError: there is no such run, it has not finished, or its model is damaged.
        ModelError: the encoder is not this run's.
    """
    config = federation.config
    if config.pretrain.mode != "load" or config.pretrain.load_from is None:
        return
    folder = RunFolder.open(Path(config.pretrain.load_from), "pretrain.load_from")
    try:
        folder.read_summary()
    except RunFolderError as error:
        raise RunFolderError(
            error.problem, field="pretrain.load_from", value=str(folder.path), remedy=error.remedy
        ) from None
    load_encoder(config.pretrain.load_from, federation.factory.make_encoder(0))


def check_folder(folder: Path, needed: int, *, private: bool) -> None:
    """Refuse a folder that cannot be written to, or has too little space, for the run, or for what
    a private one keeps apart from it.

    Args:
        needed: bytes that the run will write, about.

    Raises:
        FileError: it says which folder, and what is wrong.
        RunFolderError: the folder holds something already.
    """
    check_bare(folder)
    for path, least in [(folder, needed), *([(state_directory(), 2**16)] if private else [])]:
        there = next(
            parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists()
        )
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            remedy = (
                "check the path and its permissions, or choose another folder with --out "
                "(SECURE_FL_STATE for a private run's keys)"
            )
            raise FileError("cannot be written to", field="folder", value=str(path), remedy=remedy)
        free = shutil.disk_usage(there).free
        if free < least:
            problem = (
                f"has {free / 1e6:.0f} MB left, and the run will write about {least / 1e6:.0f} MB"
            )
            remedy = "make room, or choose a folder on another disk with --out"
            raise FileError(problem, field="folder", value=str(path), remedy=remedy)


def warnings(federation: Federation) -> Iterator[Warn]:
    """Settings that the data make do less than they say; numbers are the experimenter's."""
    config = federation.config
    yield from _large_batches(federation)
    yield from _trained(config)
    together = sum(len(client.train) for client in federation.clients)
    evaluate = config.evaluate
    if evaluate.enabled and config.pretrain.mode != "none" and evaluate.knn > together:
        said = f"of the clients' {together} training examples kNN will ask all, each time"
        yield Warn("evaluate.knn", evaluate.knn, said)
    for share in evaluate.fine_tune if evaluate.enabled else ():
        if share * together < max(2, federation.factory.facts.classes):
            said = f"of {together} examples that is fewer than there are classes"
            yield Warn("evaluate.fine_tune", share, said)
    missing = [name for name in _REPORT if util.find_spec(name) is None]
    if missing:
        said = f"needs {' and '.join(missing)}: pip install 'secure-fl[report]'"
        yield Warn("secure-fl report", "later", said)


def _large_batches(federation: Federation) -> Iterator[Warn]:
    """Batches that the smallest client cannot fill."""
    config = federation.config
    smallest = min(len(client.train) for client in federation.clients)
    batches = {}
    if config.pretrain.trains:
        batches["pretrain"] = config.pretrain.batch_size
    if config.pools.enabled:
        batches["pools"] = config.pools.batch_size
    for table, batch in batches.items():
        if batch > smallest:
            said = f"the smallest client has {smallest} training examples, all its batch will hold"
            yield Warn(f"{table}.batch_size", batch, said)


def _trained(config: FederationConfig) -> Iterator[Warn]:
    """Private training of an encoder where view moments could be, and would be worth more."""
    if config.privacy.unit != "example" or not config.pretrain.trains:
        return
    asked = next(for_training(dict(config)), "nothing else asks for training")
    said = f"where examples are private, view moments are the default and worth more; {asked}"
    yield Warn("pretrain.method", config.pretrain.method, said)
