"""The measurement runs at any size, counts wrong integers, and the page shows what is in
its CSV.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.harness import RESULTS
from bench.secure_sum import bar, page, systems
from secure_fl.secure_sum.blocks import BlockShape


def test_the_page_shows_the_newest_rows_of_the_csv(tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    copy.write_text(page.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    assert page.write_page(RESULTS, copy).read_text(encoding="utf-8") == page.PAGE.read_text(
        encoding="utf-8"
    ), "run: bar --page --repeats 0"
    row = {"P": "1", "K": "1", "system": "a", "figure": "b", "value": "1"}
    assert page.newest([row, {**row, "value": "2"}, {**row, "K": "4"}]) == [
        {**row, "value": "2"},
        {**row, "K": "4"},
    ]


def test_every_target_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar, "peaks", lambda *setting: (1.0, 2.0))
    found = bar.run(BlockShape(2, 300), 1, tmp_path)
    assert {line.verdict for line in found if line.target is not None} <= {"met", "NOT MET"}
    assert all(
        line.value == 0
        for line in found
        if line.figure == "wrong integers" and line.system in bar.PROTECTIONS
    )
    for system in bar.PROTECTIONS:
        judged = {line.figure for line in found if line.system == system and line.verdict}
        assert {"protect and serialise", "open", "upload", "wrong integers"} <= judged
    assert len(page.read_rows(page.CSV, tmp_path)) == len(found)
    assert bar.Line("a", "b", "ms", 15.1, target=15).verdict == "NOT MET"


def test_a_wrong_integer_is_counted() -> None:
    rounds, samples = (
        systems.SecureRounds("masked", "clients", BlockShape(1, 50)),
        systems.Samples(50),
    )
    name = next(iter(rounds.vectors))
    honest = rounds.vectors[name]
    sent, running = dict(rounds.vectors), rounds.begin()
    for client, vector in sent.items():
        running.add(running.protect(client, vector))
    rounds.vectors = sent | {
        name: systems.BlockVector(
            honest.head, [honest.pools[0] + np.eye(1, 50, 7, dtype=np.int64)[0]]
        )
    }
    rounds._note(running.open(), samples)
    assert samples.wrong == 1
