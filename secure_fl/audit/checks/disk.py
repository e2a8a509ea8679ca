"""A reader of the disk: what a run's folder, and folders of its parties, hold.

Canaries are examples, labels, updates, pools, noise keys, masks' seeds and private keys of a short
run. Its folder is searched while it runs and afterwards.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from safetensors import safe_open

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.canaries import Canaries
from secure_fl.audit.checks.scene import Scene
from secure_fl.audit.checks.short_run import Watch, elsewhere, made_up_examples, run, short
from secure_fl.audit.checks.stage import Stage
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig
from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.identities import Identity
from secure_fl.errors import SecureFLError
from secure_fl.federation.client import Client
from secure_fl.federation.parties.keyring import Keyring
from secure_fl.federation.protections.client_level import ClientLevel
from secure_fl.federation.protections.protection import Protection
from secure_fl.federation.releases.run_state import RunState
from secure_fl.federation.run_folder.manifest import Manifest
from secure_fl.federation.run_folder.tags import ANY, BELOW, EXPERIMENTER
from secure_fl.federation.steps.step import Answer
from secure_fl.federation.wire import route
from secure_fl.files import is_lock, parse_json, read_bytes, read_json
from secure_fl.privacy.noise import NoiseStream
from secure_fl.run import Federation
from secure_fl.secure_sum import setup
from secure_fl.secure_sum.grid import Blocks

_OPEN = ("plain",)


@dataclass
class _Seen:
    """What was seen in folders.

    Attributes:
        canaries: (file, what, spelling).
        loose: files and folders that others may read.
        untagged: files and fields that the manifest does not say.
    """

    canaries: set[tuple[str, str, str]] = field(default_factory=set)
    loose: set[str] = field(default_factory=set)
    untagged: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Disk:
    """Every file of a short run, of party folders, and of the audited folder.

    **Guarantee**: `broken` where a canary is in a file in one of the spellings that are looked for,
    or in what the run prints, private results or their key outlive it, a file of it or of its state
    directory may be read by others, or a field is written that the manifest does not name. Of the
    audited folder, whose modes a copy may have lost, modes are a figure.

    **Not covered**: other spellings (compressed, or under a key); blocks of deleted files.
    """

    name: str = "disk"
    tried: str = "whether whoever reads the disk finds examples, updates, choices or keys"

    def refused(self, subject: Subject) -> str:
        return ""

    def estimate(self, subject: Subject, depth: Depth) -> float:
        return 5.0 if subject.config.privacy.unit == "none" else 9.0

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        seen = _Seen()
        kinds = Counter(_short_run(subject.config, seed, seen))
        progress(0.6)
        if subject.config.security.protection not in _OPEN:
            kinds.update(_party_folders(subject, seen))
        searched = sum(kinds.values())
        progress(0.9)
        own = _Seen()
        if subject.folder is not None:
            _check_folder(subject.folder, Manifest.of(subject.config), own, fresh=False)
        broken = seen.canaries or seen.loose or seen.untagged or own.untagged
        outcome = partial(Outcome, self.name, self.tried, "reader of the disk", "")
        return outcome(
            "broken" if broken else "held",
            _said(seen, own, searched),
            figures=(
                Figure("secrets found in files", float(len(seen.canaries)), limit=0.0),
                Figure("spellings that were looked for", float(searched)),
                *(Figure(f"of these, of {what}", float(n)) for what, n in sorted(kinds.items())),
                Figure(
                    "files of a fresh run that others may read", float(len(seen.loose)), limit=0.0
                ),
                Figure("files of the audited folder that others may read", float(len(own.loose))),
                Figure(
                    "files and fields outside of the manifest",
                    float(len(seen.untagged | own.untagged)),
                    limit=0.0,
                ),
            ),
        )


# The run's own folder


def _short_run(config: FederationConfig, seed: int, seen: _Seen) -> list[str]:
    """A run in its folder, looked at after each round; what each spelling looked for was of."""
    small, canaries = short(config), Canaries()
    data = made_up_examples(small.partition.clients, seed)
    with elsewhere() as folder, _overheard(canaries):
        out = folder / "run"

        def look() -> None:
            seen.canaries.update(canaries.found_in(out))
            if (folder / "state").is_dir():  # made when something is sealed
                _check_modes(folder / "state", seen)

        said = folder / "said"
        try:
            with said.open("w") as stream, redirect_stdout(stream), redirect_stderr(stream):
                run(
                    small,
                    data,
                    out,
                    callbacks=[Watch(look=look)],
                    begins=partial(_examples, canaries),
                )
            told = canaries.found_in_file(said)
            seen.canaries.update(("what it prints", what, kind) for what, kind in told)
        finally:
            look()
        for place, left in ((folder / "state", "key"), (out, "*.sealed")):
            found = {path.relative_to(folder).as_posix() for path in place.rglob(left)}
            seen.canaries.update((file, "private results", "after the end") for file in found)
        _check_folder(out, Manifest.of(small), seen, fresh=True)
    return [name for name, _ in canaries.forms.values()]


def _examples(canaries: Canaries, federation: Federation) -> None:
    """Every client's labels, and some of its examples."""
    for client in federation.clients:
        for part in (client.train, client.test):
            canaries.labels("labels", part.y.numpy())
            for number in range(0, len(part), 4):
                canaries.pixels("an example", part.x[number].numpy())


@contextmanager
def _overheard(canaries: Canaries) -> Iterator[None]:
    """Take down what is secret of a run in this process: what its parts were given and made."""
    with ExitStack() as stack:
        for where, name, hear in _HEARD:
            honest = getattr(where, name)
            stack.enter_context(patch.object(where, name, hear(honest, canaries)))
        yield


def _seeds(honest: Any, canaries: Canaries) -> Any:
    def heard(*arguments: Any, **rest: Any) -> Any:
        found = honest(*arguments, **rest)
        for each in found:
            canaries.bytes("a mask's seed", each)
        return found

    return heard


def _identities(honest: Any, canaries: Canaries) -> Any:
    def heard(name: str, role: str = "client") -> Identity:
        found: Identity = honest(name, role)
        for key in (found._sign, found._agree):
            canaries.bytes("a private key", key.private_bytes_raw())
        return found

    return heard


def _keys(honest: Any, canaries: Canaries) -> Any:
    def heard(self: RunState, *arguments: Any) -> Any:
        found = honest(self, *arguments)
        canaries.bytes("the key of private results", found)
        return found

    return heard


def _made_keys(honest: Any, canaries: Canaries) -> Any:
    def heard(self: Keyring, *arguments: Any, **rest: Any) -> Any:
        found = honest(self, *arguments, **rest)
        canaries.bytes("the federation's key", self.secret)
        if self._own is not None:
            canaries.bytes("the key of sums", self._own.secret.data[:64])
        return found

    return heard


def _streams(honest: Any, canaries: Canaries) -> Any:
    def heard(self: NoiseStream, key: bytes, *arguments: Any, **rest: Any) -> None:
        canaries.bytes("the key of noise", key)
        honest(self, key, *arguments, **rest)

    return heard


def _blocks(honest: Any, canaries: Canaries) -> Any:
    def heard(*arguments: Any, **rest: Any) -> Answer:
        found: Answer = honest(*arguments, **rest)
        keep_blocks(canaries, found.blocks)
        return found

    return heard


def _trained(honest: Any, canaries: Canaries) -> Any:
    def heard(self: Protection, ask: Any, updates: Any, trained: Any, *rest: Any) -> Answer:
        canaries.numbers("an update", trained.change.numpy())
        found: Answer = honest(self, ask, updates, trained, *rest)
        return found

    return heard


def keep_blocks(canaries: Canaries, blocks: Blocks) -> None:
    """A client's integers, and what they say as floats."""
    for row in (*blocks.pools, blocks.shared):
        values = row.numpy()
        if np.abs(values).max(initial=0) > 99:
            canaries.numbers("an update", values)
            canaries.numbers("an update", values.astype(np.float64))


_HEARD: tuple[tuple[Any, str, Callable[[Any, Canaries], Any]], ...] = (
    (setup, "self_seeds", _seeds),
    (Identity, "generate", _identities),
    (RunState, "new_key", _keys),
    (Keyring, "make", _made_keys),
    (NoiseStream, "__init__", _streams),
    (Client, "answered", _blocks),
    (Protection, "sent", _trained),
    (ClientLevel, "sent", _trained),
)


# Folders of parties


def _party_folders(subject: Subject, seen: _Seen) -> list[str]:
    """Parties of the run's sum with folders of their own, looked at in the middle of a round."""
    scene, canaries = Scene.of(subject, 6, 200), Canaries()
    with elsewhere() as folder, _overheard(canaries):
        stage, looked = Stage(scene, folder=folder / "parties"), set[object]()
        for number in range(scene.clients):
            keep_blocks(canaries, stage.given(number, 0))

        def tap(sender: str, _: str, data: bytes | memoryview) -> bytes | memoryview:
            header = route(data)
            at = header.phase, header.chunk
            if sender == "server" and at in _LOOKED_AT and at not in looked:
                looked.add(at)
                for client in stage.clients:
                    canaries.bytes("the federation's key", client._seated().keyring.secret)
                found = canaries.found_in(stage.folder or folder)
                seen.canaries.update((f"party {file}", what, kind) for file, what, kind in found)
                _check_modes(stage.folder or folder, seen)
            return data

        try:
            stage.run(tap)
        finally:
            stage.close()
    return [name for name, _ in canaries.forms.values()]


_LOOKED_AT = ((Phase.SHARE, 1), (Phase.OPEN_COUNTS, 0), (Phase.APPLY, 0))


# What holds of any folder


def _check_folder(folder: Path, manifest: Manifest, seen: _Seen, *, fresh: bool) -> None:
    """Modes and fields; `fresh`: nobody but the run has put a file there."""
    _check_modes(folder, seen)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or is_lock(path):
            continue
        if not manifest.covers(name):
            seen.untagged |= {f"{name}: all of it"} if fresh else set()
            continue
        try:
            rule = manifest._rules(name)
            for document in _documents(path):
                found = _outside(rule, document, manifest.experiments)
                seen.untagged.update(f"{name}: {where}" for where in found)
        except SecureFLError:
            continue  # damaged, which `verify` says


def _outside(rule: Any, value: Any, experiments: bool, where: str = "") -> Iterator[str]:
    """Fields that have no tag, or are the experimenter's where none of these is written. Read off
    the table of tags itself, not by what writes files.
    """
    if rule is None or (rule == EXPERIMENTER and not experiments):
        yield where or "all of it"
    elif isinstance(value, dict) and isinstance(rule, Mapping) and BELOW not in rule:
        for name, item in value.items():
            below = rule.get(name, rule.get(ANY))
            yield from _outside(below, item, experiments, f"{where}/{name}")
    elif isinstance(value, list) and not isinstance(rule, str):
        for item in value:
            yield from _outside(rule, item, experiments, where)


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    """What a file says, as the manifest names it."""
    if path.suffix == ".json":
        yield read_json(path, dict[str, Any], "restore it")
    if path.suffix == ".jsonl":
        for number, line in enumerate(read_bytes(path, most=1 << 32).splitlines(), 1):
            told: Any = {"field": path.name, "value": f"line {number}", "remedy": "restore it"}
            yield parse_json(line, dict[str, Any], **told)
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as tensors:
            yield dict.fromkeys(tensors.keys(), 0)


def _check_modes(folder: Path, seen: _Seen) -> None:
    for path in (folder, *folder.rglob("*")):
        if stat.S_IMODE(path.lstat().st_mode) & 0o077:
            seen.loose.add(path.relative_to(folder).as_posix())


def _said(seen: _Seen, own: _Seen, searched: int) -> str:
    if seen.canaries:
        shown = sorted(f"{what} in {file} ({kind})" for file, what, kind in seen.canaries)
        return f"{len(shown)} secrets in files: {'; '.join(shown[:5])}"
    if seen.untagged or own.untagged:
        return f"outside of the manifest: {', '.join(sorted(seen.untagged | own.untagged)[:5])}"
    if seen.loose:
        return f"others may read {len(seen.loose)} files: {', '.join(sorted(seen.loose)[:5])}"
    loose = f"; of the audited folder others may read {len(own.loose)} files" if own.loose else ""
    return (
        f"none of {searched} spellings of examples, labels, updates and keys is in a file, modes "
        f"are 0600 and 0700, and every field is the manifest's{loose}"
    )


DISK = Disk()
