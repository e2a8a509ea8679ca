"""A run whose ledger was deleted, shortened or put back is not resumed; one that was killed at any
moment is.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from federation.folders import (
    CLIENTS,
    ROUNDS,
    charged_rounds,
    private_config,
    recorded_rounds,
    resumed,
    stopped,
)
from helpers import StopAfter, tiny_config

from secure_fl import Callback, Dataset, Federation
from secure_fl.engines.parties import LocalParties
from secure_fl.errors import PrivacyError, RunFolderError
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.budget import BudgetGate
from secure_fl.federation.releases.run_state import state_directory
from secure_fl.privacy.ledger import PrivacyLedger


def forget_state() -> None:
    shutil.rmtree(state_directory(), ignore_errors=True)


def put_back(out: Path, ledgers: list[bytes], how: str) -> None:
    """What may have happened to a ledger since it was written."""
    ledger = out / "ledger.json"
    match how:
        case "deleted":
            ledger.unlink()
        case "emptied":
            ledger.write_text("")
        case "an older one":
            ledger.write_bytes(ledgers[0])
        case "another run's":
            other = PrivacyLedger(PrivacyLedger.load(ledger).budget)
            for release in reversed(PrivacyLedger.load(ledger).releases):
                other.record(release)
            other.save(ledger)
        case "begun anew":
            PrivacyLedger(PrivacyLedger.load(ledger).budget).save(ledger)


@pytest.mark.parametrize("state", ["with the state", "without the state"])
@pytest.mark.parametrize(
    "how", ["deleted", "emptied", "an older one", "another run's", "begun anew"]
)
def test_a_run_is_not_resumed_without_the_ledger_that_it_wrote(
    how: str, state: str, tmp_path: Path, images: Dataset
) -> None:
    out = tmp_path / "run"
    ledgers = stopped(out, images, 3)
    put_back(out, ledgers, how)
    if state == "without the state":
        forget_state()
    before = {
        path: path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }
    with pytest.raises(PrivacyError, match="ledger"):
        resumed(out, images)
    assert {path: path.read_bytes() for path in before} == before, (
        "nothing was released, nothing was cut"
    )


def understates(out: Path) -> bool:
    """Whether a finished run has more rounds in its record than in its ledger."""
    return len(charged_rounds(out)) < recorded_rounds(out)


def test_a_ledger_begun_anew_in_silence_would_be_caught(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: as it was, a missing ledger is an empty one, and nobody compares."""
    out = tmp_path / "run"
    put_back(out, stopped(out, images, 3), "begun anew")
    with monkeypatch.context() as patch:
        patch.setattr(BudgetGate, "follows", lambda self, marks: None)
        resumed(out, images)
    assert understates(out)
    stopped(tmp_path / "other", images, 3)
    resumed(tmp_path / "other", images)
    assert not understates(tmp_path / "other")


def test_records_and_checkpoints_each_find_a_shorter_ledger(
    tmp_path: Path, images: Dataset
) -> None:
    out = tmp_path / "run"
    ledgers = stopped(out, images, 3)
    forget_state()
    (out / "ledger.json").write_bytes(ledgers[1])
    with pytest.raises(PrivacyError, match=r"metrics\.jsonl counts 6"):
        resumed(out, images)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["metrics"]["ledger"]
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(PrivacyError, match="the last checkpoint counts 6"):
        resumed(out, images)
    shutil.rmtree(max((out / "checkpoints").iterdir()))
    assert resumed(out, images).summary.privacy.releases >= ROUNDS * CLIENTS


def test_a_ledger_ahead_of_its_checkpoints_is_what_a_crash_leaves(
    tmp_path: Path, images: Dataset
) -> None:
    out = tmp_path / "run"
    stopped(out, images, 2, midway=True)
    assert charged_rounds(out) == {0, 1, 2}
    assert recorded_rounds(out) == 2
    assert resumed(out, images).summary.privacy.releases == ROUNDS * CLIENTS


def test_a_whole_folder_put_back_is_found_by_the_state_directory(
    tmp_path: Path, images: Dataset
) -> None:
    out, copy = tmp_path / "run", tmp_path / "copy"

    class Copy(Callback):
        def on_round(self, record: object) -> None:
            if not copy.exists():
                shutil.copytree(out, copy, ignore=shutil.ignore_patterns(".lock*"))

    stopped(out, images, 3, callbacks=[Copy()])
    shutil.rmtree(out)
    copy.rename(out)
    with pytest.raises(PrivacyError, match="the user's state directory counts 6"):
        resumed(out, images)


def watched(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[bytes]]:
    """The different answers to each question, from now on."""
    given: dict[str, set[bytes]] = {}
    once = ReleaseBox.once

    def spy(self: ReleaseBox, key: str, *arguments: Any, **more: Any) -> Any:
        result = once(self, key, *arguments, **more)
        given.setdefault(key, set()).add(
            b"".join(tensor.numpy().tobytes() for tensor in result.values())
        )
        return result

    monkeypatch.setattr(ReleaseBox, "once", spy)
    return given


def charges(out: Path) -> list[str]:
    """The question of every charge."""
    return [
        release.key.partition("/again-")[0]
        for release in PrivacyLedger.load(out / "ledger.json").releases
    ]


@pytest.mark.parametrize("deleted", ["nothing", "results", "list", "both", "state", "everything"])
def test_as_many_answers_are_charged_as_were_given(
    deleted: str, tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both clients have answered the third round when the run dies; what was stored of it is
    deleted, and the run resumed.
    """
    given = watched(monkeypatch)
    out = tmp_path / "run"
    stopped(out, images, 2, midway=True)
    if deleted in ("results", "both", "everything"):
        shutil.rmtree(out / "private-results")
    if deleted in ("list", "both", "everything"):
        (out / "private-results.made").unlink()
    if deleted in ("state", "everything"):
        forget_state()
    resumed(out, images)
    keys = charges(out)
    assert all(len(answers) <= keys.count(key) for key, answers in given.items())
    lost = 0 if deleted in ("nothing", "list") else CLIENTS
    assert len(keys) == ROUNDS * CLIENTS + lost


KINDS: dict[str, dict[str, Any]] = {
    "sketch": {"privacy": {"unit": "example", "noise": 8.0, "epsilon": 900.0}},
    "choice": {
        "privacy": {
            "unit": "example",
            "noise": 8.0,
            "epsilon": 900.0,
            "choice": "exponential",
            "choice_every": 2,
        },
        "pools": {"start": "pretrained"},
    },
    "client": {
        "privacy": {"unit": "client", "noise": 2.0, "epsilon": 5000.0, "min_clients": 3},
        "pools": {"start": "pretrained"},
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_so_it_is_for_every_kind_of_release(
    kind: str, tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = watched(monkeypatch)
    config = tiny_config(
        **{"pretrain": {"rounds": 1}, "evaluate": {"enabled": False}, **KINDS[kind]}
    )
    out = tmp_path / "run"
    for stop in (1, 2, 1):
        with pytest.raises(KeyboardInterrupt):
            Federation(
                config, data=images, callbacks=[StopAfter(stop, midway=True, at_end=True)]
            ).run(out, resume=(out / "config.toml").exists())
        shutil.rmtree(out / "private-results")
        (out / "private-results.made").unlink()
    Federation(config, data=images).run(out, resume=True)
    assert max(len(answers) for answers in given.values()) > 1
    assert all(len(answers) <= charges(out).count(key) for key, answers in given.items())


def test_after_a_crash_between_charging_and_asking_the_round_is_charged_once(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, honest = tmp_path / "run", LocalParties.run
    left = [3]

    def killed(self: LocalParties, *asked: Any) -> object:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return honest(self, *asked)

    with monkeypatch.context() as patch:
        patch.setattr(LocalParties, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            Federation(private_config(), data=images).run(out)
    assert charged_rounds(out) == {0, 1, 2}
    assert resumed(out, images).summary.privacy.releases == ROUNDS * CLIENTS


def test_results_that_are_gone_from_an_older_checkpoint_on_are_charged_again(
    tmp_path: Path, images: Dataset
) -> None:
    out = tmp_path / "run"
    stopped(out, images, 3)
    for checkpoint in (out / "checkpoints").iterdir():
        shutil.rmtree(checkpoint)
    shutil.rmtree(out / "private-results")
    assert resumed(out, images).summary.privacy.releases == (ROUNDS + 3) * CLIENTS


def test_a_sketch_that_is_gone_is_released_and_charged_again(
    tmp_path: Path, images: Dataset
) -> None:
    config = tiny_config(
        privacy={"unit": "example", "noise": 8.0, "epsilon": 500.0},
        pretrain={"rounds": 1},
        evaluate={"enabled": False},
    )

    class InPools(StopAfter):
        def on_phase(self, name: str, rounds: int, done: int) -> None:
            self.left = 1 if name == "cluster" else 1000

    with pytest.raises(KeyboardInterrupt):
        Federation(config, data=images, callbacks=[InPools(1)]).run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "private-results")
    Federation(config, data=images).run(tmp_path / "run", resume=True)
    again = [
        release.phase
        for release in PrivacyLedger.load(tmp_path / "run" / "ledger.json").releases
        if "/again-" in release.key
    ]
    assert again == ["sketch"] * 4


def test_an_encoder_is_loaded_with_its_whole_ledger_or_not_at_all(
    tmp_path: Path, images: Dataset
) -> None:
    first = tmp_path / "first"
    ledgers = stopped(first, images, 3)
    config = private_config(
        pretrain={"mode": "load", "load_from": str(first)},
        pools={"enabled": True, "start": "random"},
        privacy={"choice": "exponential"},
    )
    with pytest.raises(RunFolderError, match="not finished"):
        Federation(config, data=images).run()
    resumed(first, images)
    before = PrivacyLedger.load(first / "ledger.json")
    whole = (first / "ledger.json").read_bytes()
    (first / "ledger.json").write_bytes(ledgers[1])
    with pytest.raises(PrivacyError, match="has lost releases"):
        Federation(config, data=images).run()
    (first / "ledger.json").write_bytes(whole)
    Federation(config, data=images).run(tmp_path / "second")
    loaded = [
        release
        for release in PrivacyLedger.load(tmp_path / "second" / "ledger.json").releases
        if release.key.startswith("loaded/")
    ]
    assert len(loaded) == 1, "equal clients have one history"
    assert loaded[0].event.count == sum(
        release.event.count for release in before.releases if release.subjects == (0,)
    )
    assert loaded[0].subjects == tuple(range(CLIENTS))
