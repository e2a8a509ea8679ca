"""Secrets are found in whatever a file holds them, and fields by the table of tags."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from secure_fl.audit.checks.canaries import Canaries
from secure_fl.audit.checks.disk import _check_folder, _outside, _Seen
from secure_fl.config import FederationConfig
from secure_fl.errors import RunFolderError
from secure_fl.federation.run_folder.manifest import Manifest

VALUES = np.random.default_rng(0).random(64).astype(np.float32)
KEY = bytes(range(100, 132))


def canaries() -> Canaries:
    found = Canaries()
    found.pixels("an example", VALUES)
    found.numbers("an update", np.arange(1000, 1060, 7))
    found.labels("labels", np.arange(40) * 7 % 3)
    found.bytes("a key", KEY)
    return found


def as_safetensors(path: Path) -> None:
    save_file({"x": torch.from_numpy(VALUES.astype(np.float64))}, path)


WAYS: dict[str, tuple[str, Any]] = {
    "float32 in the middle": ("an example", b"head" + VALUES.tobytes()),
    "float64": ("an example", VALUES.astype("<f8").tobytes()),
    "a picture": ("an example", np.round(VALUES * 255).astype(np.uint8).tobytes()),
    "json": ("an example", json.dumps([float(value) for value in VALUES]).encode()),
    "integers": ("an update", np.arange(1000, 1060, 7).astype("<i4").tobytes()),
    "labels": ("labels", json.dumps((np.arange(40) * 7 % 3).tolist()).encode()),
    "hex": ("a key", b"key: " + KEY.hex().encode()),
    "base64": ("a key", base64.b64encode(KEY)),
    "base64, one further": ("a key", base64.b64encode(b"?" + KEY + b"more")),
    "base64, two further": ("a key", base64.b64encode(b"??" + KEY)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_secret_is_found_in_every_spelling(way: str, tmp_path: Path) -> None:
    name, data = WAYS[way]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(data)
    assert {(file, what) for file, what, _ in canaries().found_in(tmp_path)} == {
        ("deep/file", name)
    }


def test_a_secret_is_found_within_safetensors(tmp_path: Path) -> None:
    as_safetensors(tmp_path / "model.safetensors")
    assert {what for _, what, _ in canaries().found_in(tmp_path)} == {"an example"}


def test_nothing_is_found_by_chance(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).bytes(1 << 20)
    (tmp_path / "noise").write_bytes(noise + base64.b64encode(noise) + bytes(1 << 16))
    assert list(canaries().found_in(tmp_path)) == []


def test_rows_that_may_be_anywhere_are_no_canaries() -> None:
    made = Canaries()
    made.numbers("an update", np.zeros(100))
    made.numbers("an update", np.ones(100, np.int64))
    made.bytes("a key", b"short")
    assert made.forms == {}


# Fields


@pytest.mark.parametrize("experiments", [True, False])
@pytest.mark.parametrize(
    "document",
    [
        {"phase": "pretrain", "round": 1, "seconds": 2.0},
        {"phase": "pretrain", "metrics": {"choices": {"0": 1}, "ledger": {"length": 1}}},
        {"phase": "pretrain", "secret": 1},
        {"metrics": {"examples": [1, 2]}},
        {"metrics": {"loss": 1.0}},
    ],
)
def test_fields_are_judged_as_the_writer_judges_them(
    document: dict[str, Any], experiments: bool
) -> None:
    """Two readings of one table: what writes files, and what looks at them."""
    config = FederationConfig.model_validate({"evaluate": {"enabled": experiments}})
    manifest = Manifest.of(config)
    outside = list(_outside(manifest._rules("metrics.jsonl"), document, experiments))
    try:
        written = manifest.view("metrics.jsonl", document) == document
    except RunFolderError:
        written = False
    assert written == (not outside)


def test_modes_and_fields_of_a_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "model").mkdir(mode=0o700)
    for name, content in {
        "model/model.json": {"shape": [1], "names": ["x"]},
        "own.txt": {},
    }.items():
        (tmp_path / name).write_text(json.dumps(content))
        (tmp_path / name).chmod(0o600)
    (tmp_path / "own.txt").chmod(0o640)
    seen = _Seen()
    _check_folder(tmp_path, Manifest.of(FederationConfig()), seen, fresh=False)
    assert seen.loose == {"own.txt"}
    assert seen.untagged == {"model/model.json: /names"}
    _check_folder(tmp_path, Manifest.of(FederationConfig()), seen, fresh=True)
    assert seen.untagged == {"model/model.json: /names", "own.txt: all of it"}
