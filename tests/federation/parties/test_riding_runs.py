"""Runs whose rounds are prepared: fewer waits, the same models, a record that fits."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from federation.verify.records import config, lines_of, run

from secure_fl.crypto.envelope import Phase
from secure_fl.engines.parties import LocalParties
from secure_fl.federation.parties.server_flow import ServerFlow
from secure_fl.federation.transcript.entries import facts_of
from secure_fl.federation.verify.check import verify
from secure_fl.federation.wire import route

UNANSWERED = {(Phase.APPLY, 1), (Phase.STATE, 0), (Phase.END, 0)}
"""What everybody signed of the sums, the last message of a round; models; the end."""


def asked(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: tuple[str, str]) -> dict[int, int]:
    """A run; of each round that was called, how many times clients were asked for something."""
    honest, begun, found = LocalParties._tap, set[int](), defaultdict[int, set[object]](set)

    def tap(
        self: LocalParties, sender: str, to: str, data: bytes | memoryview
    ) -> bytes | memoryview:
        header = route(data)
        begun.update([header.round] if header.phase == Phase.BEGIN else [])
        if sender == "server" and to.startswith("client") and header.round in begun:
            found[header.round].add((header.phase, header.chunk))
        return honest(self, sender, to, data)

    monkeypatch.setattr(LocalParties, "_tap", tap)
    protection, holder = kind
    security = {"protection": protection, "key_holder": holder}
    rounds = {"pretrain": {"rounds": 2}, "pools": {"start": "random", "rounds": 3}}
    run(folder, config(privacy={"unit": "none"}, security=security, **rounds))
    monkeypatch.setattr(LocalParties, "_tap", honest)
    return {number: len(kinds - UNANSWERED) for number, kinds in found.items()}


@pytest.mark.parametrize(
    "kind",
    [
        ("masked", "clients"),
        ("bfv+masked", "clients"),
        pytest.param(("bfv+masked", "authority"), marks=pytest.mark.slow),
    ],
)
def test_from_the_second_round_on_clients_are_asked_five_times(
    kind: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without noise, which is drawn anew in each run, the models are those of any other run."""
    less = kind[1] == "authority"
    found = asked(tmp_path / "prepared", monkeypatch, kind)
    assert list(found.values()) == [8 - less, *[5 - less] * (len(found) - 1)]
    assert list(found) == list(range(len(found)))
    assert verify(tmp_path / "prepared").findings == ()
    monkeypatch.setattr(ServerFlow, "_prepare", lambda _: [])
    assert set(asked(tmp_path / "fresh", monkeypatch, kind).values()) == {8 - less}
    told = [
        [facts_of(line.entry) for line in lines_of(folder) if line.entry.kind == "state"]
        for folder in (tmp_path / "prepared", tmp_path / "fresh")
    ]
    assert len(told[0]) > 2
    assert told[0] == told[1]
