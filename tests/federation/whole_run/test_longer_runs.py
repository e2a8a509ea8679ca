"""Runs that go on for more rounds than they were made for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from federation.folders import charged_rounds, private_config
from helpers import StopAfter, make_images, tiny_config, weights

from secure_fl import Dataset, Federation, FederationConfig
from secure_fl.errors import PrivacyError, RunFolderError
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.privacy.ledger import PrivacyLedger


@pytest.fixture(scope="module")
def data() -> Dataset:
    return make_images(120)


def config(rounds: int, **tables: dict[str, Any]) -> FederationConfig:
    return tiny_config(**{**tables, "pools": {"rounds": rounds, **tables.get("pools", {})}})


def phases(out: Path) -> list[str]:
    return [json.loads(line)["phase"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("protection", ["plain", "masked"])
def test_a_longer_run_ends_where_one_made_so_long_does(
    tmp_path: Path, data: Dataset, protection: str
) -> None:
    tables = {
        "security": {"protection": protection},
        "pools": {"count": 1 if protection == "masked" else 2, "start": "pretrained"},
    }
    short, long = config(3, **tables), config(5, **tables)
    direct = Federation(long, data=data).run(tmp_path / "direct")
    Federation(short, data=data).run(tmp_path / "run")
    told = Federation(long, data=data).run(tmp_path / "run", resume=True)
    assert bool((weights(told) == weights(direct)).all())
    assert phases(tmp_path / "run") == phases(tmp_path / "direct")
    assert told.summary.pools.accuracy == direct.summary.pools.accuracy
    assert told.summary.costs["cluster"].rounds == 5
    folder = RunFolder.open(tmp_path / "run")
    assert [each.pools.rounds for each, _ in folder.begun_as()] == [3, 5]
    assert folder.read_config() == Federation(long, data=data).config


def test_the_default_start_is_not_asked_for_sketches_again(tmp_path: Path) -> None:
    """Protected runs noise their sketches, whose budget one release uses up; after the warm-up
    nobody needs them.
    """
    data = make_images(200)
    tables = {"security": {"protection": "masked"}, "partition": {"clients": 6}}
    Federation(config(3, **tables), data=data).run(tmp_path / "run")
    charged = len(PrivacyLedger.load(tmp_path / "run" / "ledger.json").releases)
    told = Federation(config(4, **tables), data=data).run(tmp_path / "run", resume=True)
    ledger = PrivacyLedger.load(tmp_path / "run" / "ledger.json")
    assert (len(ledger.releases), told.summary.costs["cluster"].rounds) == (charged, 4)
    assert not ledger.lost(RunFolder.open(tmp_path / "run").marks())


def test_a_killed_extension_goes_on(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = Federation(config(5), data=data).run(tmp_path / "direct")
    Federation(config(3), data=data).run(tmp_path / "made")

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    for place in (
        "run_folder.folder.RunFolder.rewind",
        "run_folder.configs.RunConfigs.write",
        "run_folder.folder.go_back",
    ):
        out = shutil.copytree(tmp_path / "made", tmp_path / place)
        with monkeypatch.context() as patch:
            patch.setattr(f"secure_fl.federation.{place}", cut)
            with pytest.raises(KeyboardInterrupt):
                Federation(config(5), data=data).run(out, resume=True)
        rounds = RunFolder.open(out).read_config().pools.rounds
        resumed = Federation(config(5), data=data).run(out, resume=True)
        assert bool((weights(resumed) == weights(direct)).all()), (place, rounds)
    out = shutil.copytree(tmp_path / "made", tmp_path / "midway")
    stopped = Federation(config(5), data=data, callbacks=[StopAfter(1, midway=True)])
    with pytest.raises(KeyboardInterrupt):
        stopped.run(out, resume=True)
    with pytest.raises(RunFolderError, match="not finished"):
        RunFolder.open(out).read_summary()
    resumed = Federation(config(5), data=data).run(out, resume=True)
    assert bool((weights(resumed) == weights(direct)).all())


def test_pretraining_goes_on_where_nothing_has_begun_from_it(tmp_path: Path, data: Dataset) -> None:
    only: dict[str, dict[str, Any]] = {"pools": {"enabled": False}}
    direct = Federation(tiny_config(**only, pretrain={"rounds": 4}), data=data).run(
        tmp_path / "direct"
    )
    Federation(tiny_config(**only), data=data).run(tmp_path / "run")
    told = Federation(tiny_config(**only, pretrain={"rounds": 4}), data=data).run(
        tmp_path / "run", resume=True
    )
    assert bool((weights(told) == weights(direct)).all())
    assert phases(tmp_path / "run") == ["pretrain"] * 4 + ["measure"]
    Federation(config(3), data=data).run(tmp_path / "pools")
    before = sorted(
        (path.name, path.read_bytes())
        for path in (tmp_path / "pools").glob("*.*")
        if path.is_file()
    )
    with pytest.raises(RunFolderError, match="begun from this encoder") as caught:
        Federation(config(3, pretrain={"rounds": 4}), data=data).run(
            tmp_path / "pools", resume=True
        )
    assert caught.value.field == "pretrain.rounds"
    assert before == sorted(
        (path.name, path.read_bytes())
        for path in (tmp_path / "pools").glob("*.*")
        if path.is_file()
    )


@pytest.mark.parametrize(
    ("tables", "named", "message"),
    [
        ({"pools": {"rounds": 4, "lr": 0.2}}, "pools.lr", "differs in pools.lr;"),
        ({"seed": 3}, "seed", "another configuration"),
        ({"evaluate": {"knn": 4}}, "evaluate.knn", "only pretrain.rounds and pools.rounds"),
        ({"pools": {"rounds": 2}}, "pools.rounds", "3 rounds are done"),
    ],
)
def test_nothing_else_may_change(
    tmp_path: Path, data: Dataset, tables: dict[str, Any], named: str, message: str
) -> None:
    Federation(config(3), data=data).run(tmp_path / "run")
    base = config(3).model_dump()
    changed = {
        **base,
        **{
            name: {**base[name], **value} if isinstance(value, dict) else value
            for name, value in tables.items()
        },
    }
    with pytest.raises(RunFolderError, match=message) as caught:
        Federation(FederationConfig(**changed), data=data).run(tmp_path / "run", resume=True)
    assert caught.value.field == named
    assert RunFolder.open(tmp_path / "run").read_summary().status == "finished"


def test_a_schedule_that_has_ended_is_refused(tmp_path: Path, data: Dataset) -> None:
    cosine: dict[str, dict[str, Any]] = {"pools": {"schedule": "cosine"}}
    Federation(config(3, **cosine), data=data).run(tmp_path / "run")
    with pytest.raises(RunFolderError, match="come to its end"):
        Federation(config(4, **cosine), data=data).run(tmp_path / "run", resume=True)


def longer(rounds: int, **privacy: object) -> FederationConfig:
    return private_config(pretrain={"rounds": rounds}, privacy={"noise": None, **privacy})


@pytest.mark.parametrize(
    "privacy", [{"noise": 8.0, "epsilon": 3.0}, {"epsilon": 3.0}], ids=["set", "calibrated"]
)
def test_more_private_rounds_are_charged_and_the_budget_holds(
    tmp_path: Path, data: Dataset, privacy: dict[str, Any]
) -> None:
    out = tmp_path / "run"
    Federation(longer(4, **privacy), data=data).run(out)
    first = PrivacyLedger.load(out / "ledger.json")
    with pytest.raises(PrivacyError, match="more rounds, with the noise") as caught:
        Federation(longer(400, **privacy), data=data).run(out, resume=True)
    most = int(caught.value.remedy.split()[2].rstrip(","))
    assert caught.value.field == "pretrain.rounds"
    assert RunFolder.open(out).read_config().pretrain.rounds == 4, (
        "refused before anything was written"
    )
    if "noise" not in privacy:
        assert most == 4
        return
    assert 4 < most < 400
    with pytest.raises(KeyboardInterrupt):
        Federation(
            longer(5, **privacy), data=data, callbacks=[StopAfter(0, midway=True, at_end=True)]
        ).run(out, resume=True)
    told = Federation(longer(5, **privacy), data=data).run(out, resume=True)
    second = PrivacyLedger.load(out / "ledger.json")
    assert {release.key for release in first.releases} < {
        release.key for release in second.releases
    }
    assert charged_rounds(out) == {0, 1, 2, 3, 4}
    assert not second.lost(RunFolder.open(out).marks())
    assert second.budget is not None
    assert first.maximum(first.budget or second.budget) < told.summary.privacy.epsilon <= 3.0
    assert (
        len(second.releases)
        == len({(release.round, release.subjects) for release in second.releases})
        == 5 * 2
    )


def test_an_old_copy_of_the_ledger_does_not_help(tmp_path: Path, data: Dataset) -> None:
    out = tmp_path / "run"
    Federation(longer(2, noise=8.0, epsilon=30.0), data=data).run(out)
    old = (out / "ledger.json").read_bytes()
    Federation(longer(3, noise=8.0, epsilon=30.0), data=data).run(out, resume=True)
    (out / "ledger.json").write_bytes(old)
    with pytest.raises(PrivacyError, match="has lost releases"):
        Federation(longer(4, noise=8.0, epsilon=30.0), data=data).run(out, resume=True)
