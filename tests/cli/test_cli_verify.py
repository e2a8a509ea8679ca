"""`secure-fl verify`: its exit codes, what it prints, and that it needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli.conftest import Command
from federation.verify.records import config, run

WITHOUT_TORCH = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("there is no torch here")
sys.meta_path.insert(0, Missing())
from secure_fl.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = config(pools={"enabled": False})
    return run(tmp_path_factory.mktemp("finished") / "run", chosen)


def test_a_record_that_fits_is_said_to_without_torch(folder: Path) -> None:
    line = [sys.executable, "-c", WITHOUT_TORCH, "verify", str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, check=True, encoding="utf-8")
    assert done.stderr == ""
    assert done.stdout.endswith("everything fits\n")
    for word in ("transcript", "signatures", "ledger", "claims", "not covered", ".lock"):
        assert word in done.stdout


def test_a_changed_byte_is_named_and_a_folder_without_a_record_refused(
    folder: Path, command: Command, tmp_path: Path
) -> None:
    model = folder / "model" / "encoder.safetensors"
    whole = model.read_bytes()
    try:
        model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        told = json.loads(command("verify", folder, "--json", code=1).stdout)
        done = command("verify", folder, code=1)
    finally:
        model.write_bytes(whole)
    assert told["ok"] is False
    (found,) = told["findings"]
    assert (found["file"], found["field"]) == ("model/encoder.safetensors", "content")
    assert told["checked"].keys() >= {"transcript", "rounds", "signatures", "ledger", "files"}
    assert told["not_covered"].keys() == {".lock*"}
    assert "model/encoder.safetensors: content: not the bytes" in done.stderr
    assert "1 do not fit" in done.stdout
    assert "holds no record" in command("verify", tmp_path, code=2).stderr
