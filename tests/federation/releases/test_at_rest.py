"""What lies in a run's folder: for its owner only, no single client's result in the clear, and
nothing of it lost to a full disk.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from federation.folders import CLIENTS, ROUNDS, private_config, recorded_rounds, resumed, stopped
from helpers import StopAfter, tiny_config

from secure_fl import Callback, Dataset, Federation
from secure_fl.errors import FileError, RunFolderError, SecureFLError
from secure_fl.federation.releases import box as release_box
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.run_state import state_directory

CLIENT = {"unit": "client", "noise": 2.0, "epsilon": 500.0, "min_clients": 3}


@pytest.fixture(params=[0o000, 0o022, 0o077])
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    """Files and folders with another mode than 0600 and 0700."""
    found = [(path, 0o700 if path.is_dir() else 0o600) for path in [folder, *folder.rglob("*")]]
    return [str(path) for path, wanted in found if stat.S_IMODE(path.stat().st_mode) != wanted]


@pytest.mark.usefixtures("mask")
def test_all_that_a_run_writes_is_its_owner_s(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs" / "run"
    monkeypatch.setenv("SECURE_FL_STATE", str(tmp_path / "state"))
    seen: list[str] = []

    class Look(Callback):
        def on_client(self, done: int, total: int) -> None:
            seen.extend(open_to_others(out))

    config = tiny_config(
        privacy={"unit": "example", "noise": 8.0, "epsilon": 500.0},
        pretrain={"rounds": 1},
        pools={"rounds": 2},
    )
    with pytest.raises(KeyboardInterrupt):
        Federation(config, data=images, callbacks=[Look(), StopAfter(5)]).run(out)
    assert open_to_others(tmp_path / "state") == []
    assert any((tmp_path / "state").rglob("key"))
    Federation(config, data=images).run(out, resume=True)
    assert seen == open_to_others(tmp_path / "runs") == []
    names = {str(path.relative_to(out)) for path in out.rglob("*")}
    assert {
        "ledger.json",
        "model/pools.safetensors",
        "summary.json",
        "embedding.json",
        "private-results.made",
        ".lock",
    } <= names
    (out / "summary.json").chmod(0o644)
    assert open_to_others(out) == [str(out / "summary.json")], "this test can see it"


def readable(folder: Path, results: list[torch.Tensor]) -> list[str]:
    """Files that hold the bytes of a result, or a good part of them."""
    parts = [result.numpy().tobytes()[:64] for result in results if result.numel() >= 8]
    assert parts
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and any(part in path.read_bytes() for part in parts)
    ]


@pytest.mark.parametrize("unsealed", [False, True], ids=["sealed", "planted fault"])
def test_no_single_client_s_noised_vector_can_be_read_off_the_disk(
    unsealed: bool, tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One share of the noise protects little: choice and update could be read off the file."""
    made: list[torch.Tensor] = []
    once = ReleaseBox.once

    def watched(self: ReleaseBox, *arguments: Any, **more: Any) -> dict[str, torch.Tensor]:
        result = once(self, *arguments, **more)
        made.extend(result.values())
        return result

    monkeypatch.setattr(ReleaseBox, "once", watched)
    if unsealed:
        monkeypatch.setattr(release_box, "seal_with", lambda key, data, context: data)
        monkeypatch.setattr(release_box, "open_with", lambda key, data, context: data)
    out = tmp_path / "run"
    config = tiny_config(privacy=CLIENT, pools={"start": "pretrained"}, evaluate={"enabled": False})
    with pytest.raises(KeyboardInterrupt):
        Federation(config, data=images, callbacks=[StopAfter(3, midway=True, at_end=True)]).run(out)
    assert len(list((out / "private-results").rglob("*.sealed"))) == 2 * 4, (
        "the round under way, and the one before"
    )
    assert bool(readable(out, made)) == unsealed
    assert not [path for path in out.rglob("*") if path.is_file() and _key() in path.read_bytes()]
    Federation(config, data=images).run(out, resume=True)
    assert not (out / "private-results").exists()
    assert not list(state_directory().rglob("key")), "gone with the run"


def _key() -> bytes:
    (key,) = state_directory().rglob("key")
    return key.read_bytes()


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECURE_FL_STATE", str(tmp_path / "state"))


def test_a_run_that_is_ended_twice_leaves_nothing_either(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def killed(self: ReleaseBox) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ReleaseBox, "close", killed)
        with pytest.raises(KeyboardInterrupt):
            Federation(private_config(), data=images).run(out)
    assert (out / "summary.json").exists()
    assert list(state_directory().rglob("key"))
    resumed(out, images)
    assert not list(state_directory().rglob("key"))
    assert not (out / "private-results").exists()


def test_a_summary_is_written_again_after_it_was_deleted(tmp_path: Path, images: Dataset) -> None:
    """Also in a private run with sketches, whose stored results are gone by then: nothing is asked,
    so nothing is charged.
    """
    config = tiny_config(privacy={"unit": "example", "noise": 8.0, "epsilon": 500.0})
    first = Federation(config, data=images).run(tmp_path / "run").summary.privacy
    (tmp_path / "run" / "summary.json").unlink()
    assert (
        Federation(config, data=images).run(tmp_path / "run", resume=True).summary.privacy == first
    )


@pytest.mark.parametrize("full_at", range(1, 55, 3))
def test_a_disk_that_fills_up_loses_nothing(
    full_at: int, tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write from some moment on fails; the error is typed, and with space again the run goes
    on to the same end.
    """
    out, write, writes = tmp_path / "run", os.write, [0]

    def limited(handle: int, data: Any) -> int:
        writes[0] += 1
        if writes[0] >= full_at:
            raise OSError(28, "No space left on device")
        return write(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", limited)
        with pytest.raises(SecureFLError, match="No space left on device"):
            Federation(private_config(), data=images).run(out)
    if not (out / "config.toml").exists():
        shutil.rmtree(out)
        return
    assert resumed(out, images).summary.privacy.releases == ROUNDS * CLIENTS
    assert recorded_rounds(out) == ROUNDS


def test_half_a_line_is_cut_where_no_checkpoint_counts_it_and_refused_where_one_does(
    tmp_path: Path, images: Dataset
) -> None:
    out = tmp_path / "run"
    stopped(out, images, 2)
    whole = (out / "metrics.jsonl").read_bytes()
    for torn in (whole + b'{"phase": "pre', whole + b"\0\0\0"):
        (out / "metrics.jsonl").write_bytes(torn)
        with pytest.raises(KeyboardInterrupt):
            Federation(private_config(), data=images, callbacks=[StopAfter(0, midway=True)]).run(
                out, resume=True
            )
        assert (out / "metrics.jsonl").read_bytes() == whole
    (out / "metrics.jsonl").write_bytes(whole[:-5])
    with pytest.raises(RunFolderError, match="has lost rounds"):
        resumed(out, images)
    damaged = whole.replace(b'"clients": 2', b'"clients": "2"', 1)
    (out / "metrics.jsonl").write_bytes(damaged)
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl: is damaged: clients"):
        resumed(out, images)


def test_folders_that_cannot_be_read_are_typed(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    stopped(out, images, 1)
    real = Path.iterdir

    def denied(self: Path) -> Iterator[Path]:
        if self.name == "checkpoints":
            raise PermissionError(13, "Permission denied")
        return real(self)

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(FileError, match="checkpoints: cannot be read: Permission denied"):
        resumed(out, images)
    assert len(json.loads((out / "ledger.json").read_text())["releases"]) == CLIENTS


def test_what_can_be_resumed_has_all_that_a_run_begins_with(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that dies as it begins leaves no run, or one that knows its clients' examples and those
    at the server.
    """
    pretrain = {"mode": "centralized", "source": {"name": "digits", "limit": 40}}
    config = tiny_config(
        pretrain=pretrain, privacy={"unit": "example", "noise": 8.0, "epsilon": 500.0}
    )
    federation = Federation(config, data=images, callbacks=[_StopAtOnce()])
    fsync = os.fsync
    resumable = list[set[str]]()
    for dies_at in range(1, 16):
        out, synced = tmp_path / str(dies_at), [0]

        def dying(handle: int, at: int = dies_at, synced: list[int] = synced) -> None:
            synced[0] += 1
            if synced[0] == at:
                raise KeyboardInterrupt
            fsync(handle)

        monkeypatch.setattr(os, "fsync", dying)
        with pytest.raises(KeyboardInterrupt):
            federation.run(out)
        if (out / "config.toml").exists():
            resumable.append({path.name for path in out.iterdir()})
    assert resumable
    assert all(
        {"partition.json", "central.json", "manifest.json", "metrics.jsonl", "ledger.json"} <= names
        for names in resumable
    )


def test_a_state_in_the_run_s_own_folder_is_refused_and_nothing_is_written_there(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    stopped(out, images, 2)
    before = {path for path in out.rglob("*") if path.name != ".lock"}
    monkeypatch.setenv("SECURE_FL_STATE", str(out / "state"))
    with pytest.raises(RunFolderError, match="lies in the run's own folder"):
        resumed(out, images)
    assert {path for path in out.rglob("*") if path.name != ".lock"} == before


class _StopAtOnce(Callback):
    def on_phase(self, name: str, rounds: int, done: int) -> None:
        raise KeyboardInterrupt
