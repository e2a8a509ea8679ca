"""Private runs whose record is checked, and a forger who puts changed records together again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from helpers import make_images, tiny_config

from secure_fl import Federation, FederationConfig
from secure_fl.federation.transcript.chain import Line, Transcript, read_lines
from secure_fl.federation.transcript.entries import facts_of
from secure_fl.federation.verify.rounds import Rounds
from secure_fl.privacy.chain import digest

DIGEST = "ab" * 32
FACTS: dict[str, dict[str, Any]] = {
    "plan": {
        "digest": DIGEST,
        "federation": "lab",
        "protection": "masked",
        "key_holder": "clients",
        "clients": ["a", "b"],
        "fewest": 2,
        "colluders": 1,
        "roster": DIGEST,
        "revision": 1,
        "versions": {"secure-fl": "1"},
        "configuration": DIGEST,
    },
    "joined": {"client": "a", "fingerprint": DIGEST, "policy": None},
    "refused": {"sender": "?", "phase": "plan", "reason": "noise", "by": "b", "round": None},
    "keys": {"fingerprint": DIGEST, "maker": "a", "first": 0, "last": 9},
    "round": {
        "round": 3,
        "place": [1, 2],
        "step": "cluster",
        "attempt": 1,
        "cohort": ["a", "b"],
        "left_out": [],
        "plan": DIGEST,
        "fewest": 2,
        "threshold": 2,
        "minimum": 2,
        "unit": 1,
        "pools": 2,
        "exact": True,
        "key": "00" * 32,
    },
    "sum": {
        "round": 3,
        "plan": DIGEST,
        "view": DIGEST,
        "survivors": ["a", "b"],
        "uploads": {"a": DIGEST, "b": DIGEST},
        "missed": {},
        "counts": [2, -1],
        "passing": [0],
        "digest": DIGEST,
    },
    "state": {"place": [1, 3], "digest": DIGEST, "checkpoint": None},
    "ledger": {"client": None, "length": 4, "head": DIGEST},
    "end": {"reason": "done", "files": {"model/encoder.safetensors": DIGEST}},
}
"""One entry of each kind."""

CLIENT = {"unit": "client", "noise": 2.0, "epsilon": 500.0, "min_clients": 5}

Written = list[tuple[str, dict[str, Any], tuple[bytes, ...]]]
"""Kind, facts and evidence of every entry."""


def config(**tables: dict[str, Any]) -> FederationConfig:
    """Six clients, client-level noise, masked sums: one round of pre-training and two of pools."""
    base: dict[str, dict[str, Any]] = {
        "partition": {"clients": 6},
        "pretrain": {"rounds": 1},
        "pools": {"rounds": 2, "local_epochs": 1},
        "evaluate": {"probe_epochs": 1},
        "security": {"protection": "masked"},
        "privacy": CLIENT,
    }
    if "privacy" in tables:
        base["privacy"] = {}
    return tiny_config(**{key: base.get(key, {}) | tables.get(key, {}) for key in base | tables})


def run(folder: Path, chosen: FederationConfig | None = None, **settings: Any) -> Path:
    """A run's folder."""
    federation = Federation(
        chosen or config(), data=make_images(120), callbacks=settings.pop("callbacks", ())
    )
    federation.run(folder, **settings)
    return folder


def copied(folder: Path, to: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(folder, to))


def lines_of(folder: Path) -> list[Line]:
    """A folder's transcript."""
    return list(read_lines((folder / "transcript.jsonl").read_bytes()))


def as_written(lines: Iterable[Line]) -> Written:
    """Entries, to be changed."""
    facts = ((line, json.loads(json.dumps(facts_of(line.entry)))) for line in lines)
    return [(line.entry.kind, said, line.evidence) for line, said in facts]


def chained(entries: Written) -> list[Line]:
    """The chain of these entries, all hashes made anew."""
    transcript = Transcript.new()
    for kind, facts, evidence in entries:
        transcript.append(kind, facts, evidence)
    return list(transcript.lines())


def forge(folder: Path, change: Callable[[Written], object] = lambda _: None) -> None:
    """Change a finished run's transcript, then make every digest and hash of the folder anew."""
    entries = as_written(lines_of(folder))
    change(entries)
    kept = json.loads((folder / "digests.json").read_text())
    for files in (entries[-1][1]["files"], kept["files"]):
        for name in files:
            files[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    lines = chained(entries)
    data = b"".join(line.encode() + b"\n" for line in lines)
    (folder / "transcript.jsonl").write_bytes(data)
    content = {"transcript": lines[-1].head.hex(), "files": kept["files"]}
    text = json.dumps({**content, "digest": digest(content)}, indent=1) + "\n"
    (folder / "digests.json").write_text(text)


def of_kind(entries: Written, kind: str) -> dict[str, Any]:
    """The facts of the last entry of a kind."""
    return [facts for each, facts, _ in entries if each == kind][-1]


def found_after(run_folder: Path, change: Callable[[Written], None]) -> set[str]:
    """Fields of which something is found in a record, which was right before the change."""
    entries = as_written(lines_of(run_folder))
    assert Rounds().read(chained(entries)).findings == []
    change(entries)
    found = Rounds().read(chained(entries)).findings
    return {each.field.partition(": ")[2].partition("[")[0] for each in found}
