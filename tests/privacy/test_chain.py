"""A ledger's file cannot lose, gain, move or change a release without its chain or a mark taken of
it showing so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.errors import PrivacyError
from secure_fl.privacy.adjacency import Adjacency, PrivacyUnit
from secure_fl.privacy.chain import Chain, Mark, digest
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.ledger import Budget, PrivacyLedger, Release

BUDGET = Budget(50, 1e-5, PrivacyUnit.EXAMPLE, Adjacency.ZERO_OUT)
Entries = list[dict[str, Any]]


def release(number: int, *, steps: int = 4) -> Release:
    return Release(
        f"pretrain/{number}/0",
        "pretrain",
        number,
        "training",
        PrivacyUnit.EXAMPLE,
        (0,),
        GaussianEvent(5.0, 1.0, steps),
        "declared",
    )


def filled(*numbers: int) -> PrivacyLedger:
    ledger = PrivacyLedger(BUDGET)
    for number in numbers:
        ledger.record(release(number))
    return ledger


@given(
    entries=st.lists(st.integers(0, 3), max_size=6), others=st.lists(st.integers(0, 3), max_size=6)
)
def test_a_chain_holds_the_marks_of_its_beginnings_and_no_others(
    entries: list[int], others: list[int]
) -> None:
    chain, other = Chain("a", entries), Chain("a", others)
    assert chain.holds(other.mark) == (entries[: len(others)] == others)
    assert not chain.holds(Chain("b", entries).mark)
    assert not chain.holds(Mark(-1, chain.mark.head))


def test_a_ledger_holds_every_mark_that_was_taken_of_it_after_it_was_read_again(
    tmp_path: Path,
) -> None:
    ledger, marks = PrivacyLedger(BUDGET), []
    for number in (3, 0, 2, 1, 2):
        marks.append((f"round {number}", ledger.mark))
        ledger.record(release(number))
    marks.append(("the end", ledger.mark))
    ledger.save(tmp_path / "ledger.json")
    again = PrivacyLedger.load(tmp_path / "ledger.json")
    assert again.lost(marks) == []
    assert [
        entry["key"] for entry in json.loads((tmp_path / "ledger.json").read_text())["releases"]
    ] == [f"pretrain/{n}/0" for n in (3, 0, 2, 1)]
    again.record(release(9))
    assert again.lost(marks) == [], "a ledger that went on"


def rewritten(
    path: Path, change: Callable[[dict[str, Any]], None], *, chained: bool
) -> PrivacyLedger:
    """Somebody changed the file, wrote a fitting digest, and with `chained` all hashes anew too."""
    content = json.loads(path.read_text())
    content.pop("digest")
    change(content)
    if chained:
        chain = Chain({"ledger": content["format"], "budget": content["budget"]})
        for number, entry in enumerate(content["releases"]):
            chain.add({name: value for name, value in entry.items() if name != "hash"})
            entry["hash"] = chain.hash_of(number)
        content["mark"] = vars(chain.mark)
    path.write_text(json.dumps({**content, "digest": digest(content)}))
    return PrivacyLedger.load(path)


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "last dropped": lambda content: content["releases"].pop(),
    "first dropped": lambda content: content["releases"].pop(0),
    "all dropped": lambda content: content["releases"].clear(),
    "moved": lambda content: content["releases"].reverse(),
    "cheaper": lambda content: content["releases"][1]["event"].update(steps=1),
    "another subject": lambda content: content["releases"][1].update(subjects=[1]),
    "budget": lambda content: content["budget"].update(epsilon=1e6),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("chained", [False, True])
def test_no_change_of_the_file_goes_unseen(change: str, chained: bool, tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = filled(0, 1, 2)
    ledger.save(path)
    if not chained:
        with pytest.raises(PrivacyError, match="not the chain"):
            rewritten(path, CHANGES[change], chained=False)
        return
    problems = (
        rewritten(path, CHANGES[change], chained=True)
        .verify([("round 3 of metrics.jsonl", ledger.mark)])
        .problems
    )
    assert any(
        "has lost releases: round 3 of metrics.jsonl counts 3" in problem for problem in problems
    )


def test_without_the_chain_a_dropped_release_would_go_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: a digest over the content alone, as whoever shortens a file can
    write one.
    """
    path = tmp_path / "ledger.json"
    ledger = filled(0, 1, 2)
    ledger.save(path, state=False)
    monkeypatch.setattr(Chain, "holds", lambda self, mark: True)
    assert (
        rewritten(path, CHANGES["last dropped"], chained=True)
        .verify([("a record", ledger.mark)])
        .ok
    )


def test_files_of_another_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    filled(0).save(path)
    content = json.loads(path.read_text())
    content.pop("digest")
    content["format"] = 1
    path.write_text(json.dumps({**content, "digest": digest(content)}))
    with pytest.raises(PrivacyError, match="ledger"):
        PrivacyLedger.load(path)
