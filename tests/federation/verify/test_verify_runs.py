"""What runs write fits their own record: stopped, resumed, made longer; and one party's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federation.verify.records import (
    Written,
    as_written,
    chained,
    config,
    copied,
    lines_of,
    of_kind,
    run,
)
from helpers import StopAfter

from secure_fl.engines.parties import LocalParties
from secure_fl.errors import RunFolderError
from secure_fl.federation.verify.check import verify
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.secure_sum.steps import claimed


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("finished") / "run", config(pools={"enabled": False}))


@pytest.fixture(scope="module")
def under_way(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("under way") / "run"
    with pytest.raises(KeyboardInterrupt):
        run(folder, callbacks=[StopAfter(3, midway=True)])
    return folder


def said(folder: Path) -> list[tuple[str, str]]:
    """File and field of every finding."""
    return [(each.file, each.field) for each in verify(folder).findings]


@pytest.mark.parametrize(
    "tables",
    [
        {"security": {"protection": "bfv+masked", "key_holder": "authority"}},
        {
            "security": {"protection": "bfv+masked"},
            "privacy": {"unit": "example", "noise": 4.0, "epsilon": 60.0},
        },
        {"privacy": {"unit": "none"}, "evaluate": {"enabled": False}},
        {
            "partition": {"clients": 9},
            "privacy": {"unit": "none"},
            "pools": {"enabled": False},
            "security": {"protection": "masked", "robust": "median", "group_size": 3},
        },
        {"privacy": {"unit": "none"}, "security": {"protection": "plain"}},
    ],
    ids=["authority", "examples", "unprotected", "robust", "plain"],
)
def test_every_kind_of_run_fits_its_own_record(
    tmp_path: Path, tables: dict[str, dict[str, Any]]
) -> None:
    found = verify(run(tmp_path / "run", config(**tables)))
    assert found.findings == ()
    assert {"transcript", "rounds", "signatures", "checkpoints", "metrics", "files"} <= dict(
        found.checked
    ).keys()
    told = {file: why for file, why in found.uncovered.items() if file != ".lock*"}
    blind = tables.get("security", {}) == {"protection": "bfv+masked"}
    why = "counts of 2 sums, which their server could not read"
    assert told == ({"transcript.jsonl": why} if blind else {})


def test_a_run_that_was_stopped_resumed_and_made_longer_fits(
    under_way: Path, tmp_path: Path
) -> None:
    folder = copied(under_way, tmp_path / "run")
    with (folder / "transcript.jsonl").open("a") as file:
        file.write('{"before":"')
    assert said(folder) == [("transcript.jsonl", "last line")], "a kill in the middle of a line"
    run(folder, resume=True)
    assert said(folder) == []
    numbers = [entry["round"] for kind, entry, _ in as_written(lines_of(folder)) if kind == "sum"]
    assert numbers == sorted(set(numbers))
    run(folder, config(pools={"rounds": 3}), resume=True)
    assert said(folder) == []
    assert len([line for line in lines_of(folder) if line.entry.kind == "end"]) == 2


def test_a_sum_that_is_not_in_the_transcript_is_missed(under_way: Path, tmp_path: Path) -> None:
    folder = copied(under_way, tmp_path / "run")
    lines = (folder / "transcript.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "transcript.jsonl").write_bytes(b"".join(lines[:4]))
    files = {file.partition("/")[0] for file, _ in said(folder)}
    assert {"checkpoints", "metrics.jsonl"} <= files


def test_one_partys_folder_is_checked_for_what_it_holds(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    for name in ("transcript.jsonl", "ledger.json"):
        (folder / name).write_bytes((finished / name).read_bytes())
    (folder / "transcript.jsonl").write_bytes(
        b"".join(line.encode() + b"\n" for line in lines_of(finished) if line.entry.kind != "end")
    )
    found = verify(folder)
    assert found.findings == ()
    assert dict(found.checked).keys() == {"transcript", "rounds", "signatures", "ledger"}
    with pytest.raises(RunFolderError, match="no record"):
        verify(tmp_path)


def test_who_is_turned_away_is_written_down_and_the_record_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = LocalParties._tap

    def damaging(self: LocalParties, sender: str, to: str, data: bytes) -> bytes:
        data = bytes(seen(self, sender, to, data))
        upload = sender == "client-0003" and claimed(data)[1] == "upload"
        return data[:-1] + bytes([data[-1] ^ 1]) if upload else data

    monkeypatch.setattr(LocalParties, "_tap", damaging)
    folder = run(tmp_path / "run", config(pools={"enabled": False}))
    assert said(folder) == []
    entries = as_written(lines_of(folder))
    assert of_kind(entries, "refused") == {
        "sender": "client-0003",
        "phase": "upload",
        "reason": "bit-flipped",
        "by": "server",
        "round": 0,
    }
    total = of_kind(entries, "sum")
    assert total["missed"] == {"client-0003": "upload"}
    assert "client-0003" not in total["survivors"]


def test_a_clients_folder_is_held_against_its_own_marks(finished: Path, tmp_path: Path) -> None:
    """Every client's ledger has marks in the transcript; each folder must hold its owner's."""
    whole = PrivacyLedger.load(finished / "ledger.json")
    entries: Written = [
        each
        for each in as_written(lines_of(finished))
        if each[0] in ("plan", "joined", "round", "sum")
    ]
    for owner in range(6):
        ledger, folder = PrivacyLedger(whole.budget), tmp_path / str(owner)
        folder.mkdir()
        for release in whole.releases:
            if owner in release.subjects:
                ledger.record(replace(release, subjects=(owner,)))
        ledger.save(folder / "ledger.json")
        facts = {"client": f"client-000{owner}", **vars(ledger.mark)}
        entries.append(("ledger", facts, ()))
    data = b"".join(line.encode() + b"\n" for line in chained(entries))
    for owner in range(6):
        (tmp_path / str(owner) / "transcript.jsonl").write_bytes(data)
        assert said(tmp_path / str(owner)) == []
    PrivacyLedger(whole.budget).save(tmp_path / "3" / "ledger.json")
    assert ("ledger.json", "stated or releases") in said(tmp_path / "3")


def test_a_run_that_died_before_its_last_line_says_so(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "run")
    lines = (folder / "transcript.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "transcript.jsonl").write_bytes(b"".join(lines[:-1]))
    (folder / "digests.json").unlink()
    assert said(folder) == [("transcript.jsonl", "last line")]
    run(folder, config(pools={"enabled": False}), resume=True)
    assert said(folder) == []
