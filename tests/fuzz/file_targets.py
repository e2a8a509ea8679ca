"""Whatever a file of a run, a model, a configuration or a key holds, reading it succeeds or raises
a typed error.

A target mutates one kind of document, as damage would and as somebody would who may write the
folder, and reads it as the software does.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from secure_fl.config import FederationConfig
from secure_fl.config_file import dump_config, load_config
from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.roster import Roster
from secure_fl.data.sources.npz import read_arrays
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.run_state import RunState
from secure_fl.federation.run_folder.checkpoint import load_checkpoint
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.whole_run.central import CentralSet
from secure_fl.finished.artifacts import load_card, load_encoder, load_pools
from secure_fl.privacy.chain import digest
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.report.page import write_report

Read = Callable[[random.Random], object]
Change = Callable[[bytes, random.Random], bytes]

_JUNK = [
    b"[" * 3000, b'{"a":' * 3000, b'"\\ud800"', "é\u202e\0".encode(), b"NaN", b"-Infinity",
    b"1e999", b"-0", b"1" * 5000, b"null", b"true", b"[]", b"{}", b'""', b"\xff\xfe", b"0.1", b"-1",
    b"\n", b"= =",
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, -1, 0, 2**31, 2**70, 10**400, 1.5, "", "x" * 500, [], {}, [[[]]], [None], {"a": 1},
    "\u202e", "00", {"self": 1},
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes with a few faults of one kind: flips, cuts, runs of ones, insertions, other values."""
    changed, kind = bytearray(data), rng.randrange(7)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(changed) or 1)
        match kind:
            case 0 if changed:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                del changed[at:]
            case 2:
                del changed[at : at + rng.randrange(1, 60)]
            case 3:
                changed[at : at + 4] = b"\xff" * 4
            case 4:
                changed[at:at] = rng.choice(_JUNK)
            case 5:
                changed[at:at] = changed[max(0, at - 50) : at]
            case _:
                start = changed.find(b":", at)
                ends = [changed.find(mark, start) for mark in (b",", b"}")]
                end = min((found for found in ends if found > 0), default=start + 1)
                changed[start + 1 : end] = rng.choice(_JUNK)
    return bytes(changed)


def another(value: Any, rng: random.Random) -> Any:
    """A JSON value with one part replaced, dropped, added or doubled."""
    if rng.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return rng.choice(_VALUES)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        replaced = [*value[:at], another(value[at], rng), *value[at + 1 :]]
        return rng.choice([replaced, value[:at], [*value, value[at]]])
    key = rng.choice(list(value))
    if rng.random() < 0.1:
        return {name: item for name, item in value.items() if name != key}
    if rng.random() > 0.1:
        return {**value, key: another(value[key], rng)}
    return {**value, rng.choice(["", "x", "self", "schema"]): 1}


def document(data: bytes, rng: random.Random) -> bytes:
    """A JSON document, damaged as bytes or as a value."""
    if rng.random() < 0.5:
        return mutated(data, rng)
    return json.dumps(another(json.loads(data), rng)).encode("utf-8", "surrogatepass")


def file_targets(run: Path, scratch: Path) -> Iterator[tuple[str, Read]]:
    """Kinds of documents by name; `run` is a finished private run's folder, which is written to and
    put right again each time.
    """
    folder = RunFolder.open(run)
    yield from _checkpoints(run)
    yield from _shown(run, folder, scratch)
    yield from _models(run, folder)
    yield from _records(run, folder)
    yield from _others(scratch)


def target(path: Path, change: Change, read: Callable[[], object]) -> Read:
    """Damages one file, reads it, and puts it right."""
    good = path.read_bytes()

    def attempt(rng: random.Random) -> object:
        path.write_bytes(change(good, rng))
        try:
            return read()
        finally:
            path.write_bytes(good)

    return attempt


def _checkpoints(run: Path) -> Iterator[tuple[str, Read]]:
    newest = max((run / "checkpoints").iterdir())
    manifest, tensors = newest / "manifest.json", newest / "state.safetensors"

    def load() -> object:
        return load_checkpoint(run / "checkpoints")

    yield "checkpoint manifest", target(manifest, document, load)
    yield "checkpoint manifest with its check", target(manifest, _checked, load)
    yield "checkpoint tensors", target(tensors, mutated, load)
    yield "checkpoint tensors with their hash", _hashed(newest, run)


def _shown(run: Path, folder: RunFolder, scratch: Path) -> Iterator[tuple[str, Read]]:
    """What a report is made of."""

    def report() -> object:
        return write_report([run], scratch / "page.html")

    yield "marks", target(folder.metrics, mutated, folder.marks)
    yield "metrics", target(folder.metrics, mutated, folder.read_metrics)
    yield "summary", target(folder.summary, document, report)
    yield "partition", target(folder.partition, document, report)
    yield "embedding", target(folder.embedding, document, report)


def _models(run: Path, folder: RunFolder) -> Iterator[tuple[str, Read]]:
    card, encoder = folder.model / "model.json", folder.model / "encoder.safetensors"
    yield "model card", target(card, document, lambda: (load_card(run), load_encoder(run)))
    yield "encoder", target(encoder, mutated, lambda: load_encoder(run))
    yield "pools", target(folder.model / "pools.safetensors", mutated, lambda: load_pools(run))


def _records(run: Path, folder: RunFolder) -> Iterator[tuple[str, Read]]:
    """What a run was told, and what it remembers."""

    def configuration() -> object:
        return folder.run, folder.read_config()

    def ledger() -> PrivacyLedger:
        return PrivacyLedger.load(folder.ledger)

    def results() -> object:
        return ReleaseBox(folder.results, RunState("fuzz")).answers("a")

    yield "run's configuration", target(folder.config, mutated, configuration)
    yield "ledger", target(folder.ledger, document, ledger)
    marked = target(folder.ledger, _digested, lambda: ledger().verify(folder.marks()))
    yield "ledger with its digest", marked
    folder.central.write_text(json.dumps({"salt": "00ff", "digests": ["0123", "4567"]}))
    central = target(folder.central, document, lambda: CentralSet.recorded(folder))
    yield "record of a server's set", central
    yield "list of results", target(run / "private-results.made", mutated, results)


def _others(scratch: Path) -> Iterator[tuple[str, Read]]:
    """Documents that are no part of a run's folder."""
    config, archive, private = scratch / "config.toml", scratch / "data.npz", scratch / "identity"
    config.write_text(dump_config(FederationConfig()))
    yield "configuration", target(config, mutated, lambda: load_config(config))
    yield "configuration of other values", target(config, _toml, lambda: load_config(config))
    yield "overrides", lambda rng: load_config(config, [_override(rng)])
    buffer, images = io.BytesIO(), np.random.default_rng(0).random((20, 1, 8, 8), np.float32)
    np.savez_compressed(buffer, x=images, y=np.arange(20) % 3)
    archive.write_bytes(buffer.getvalue())
    yield "npz", target(archive, mutated, lambda: read_arrays(archive))
    who = Identity.generate("clinic")
    who.save(private)
    yield "identity", target(private, document, lambda: Identity.load(private))
    yield "card", lambda rng: Member.from_card(document(who.card(), rng))
    signed = Roster("hospitals", (who.member,)).sign(who)
    yield "roster", lambda rng: Roster.open(document(signed, rng), who.member)
    state = RunState("fuzz")
    state.keep("made", PrivacyLedger().mark)
    mark = target(state.folder / "made.json", document, lambda: RunState("fuzz").mark("made"))
    yield "mark", mark


def _override(rng: random.Random) -> str:
    return mutated(b"pools.count=4", rng).decode(errors="replace")


def _toml(data: bytes, rng: random.Random) -> bytes:
    import tomllib

    value = another(tomllib.loads(data.decode()), rng)
    try:
        return tomli_w.dumps(value).encode()
    except (TypeError, ValueError, AttributeError):
        return mutated(data, rng)


def _checked(data: bytes, rng: random.Random) -> bytes:
    """A manifest that was changed together with the hash of itself."""
    content = another({**json.loads(data), "check": ""}, rng)
    if isinstance(content, dict):
        content["check"] = ""
        content["check"] = digest(content)
    return json.dumps(content).encode()


def _digested(data: bytes, rng: random.Random) -> bytes:
    """A ledger that was changed together with its digest."""
    content = json.loads(data)
    content.pop("digest")
    content = another(content, rng)
    return json.dumps(
        {**content, "digest": digest(content)} if isinstance(content, dict) else content
    ).encode()


def _hashed(newest: Path, run: Path) -> Read:
    """Tensors that were changed together with their hash."""
    tensors, manifest = newest / "state.safetensors", newest / "manifest.json"
    good, written = tensors.read_bytes(), manifest.read_bytes()

    def attempt(rng: random.Random) -> object:
        data = mutated(good, rng)
        content = {
            **json.loads(written),
            "sha256": {tensors.name: hashlib.sha256(data).hexdigest()},
            "check": "",
        }
        content["check"] = digest(content)
        tensors.write_bytes(data)
        manifest.write_text(json.dumps(content))
        try:
            return load_checkpoint(run / "checkpoints")
        finally:
            tensors.write_bytes(good)
            manifest.write_bytes(written)

    return attempt
