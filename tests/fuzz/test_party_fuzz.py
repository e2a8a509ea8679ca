"""A few thousand messages to each kind of party; a million by `python -m fuzz.party_fuzz`."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from federation.parties.toy_federation import identities
from fuzz import party_fuzz
from fuzz.party_fuzz import KINDS, fuzz, fuzz_unsigned, target_at, whole_run

from secure_fl.crypto.envelope import Phase, read_header
from secure_fl.federation import wire

COUNT = int(os.environ.get("SECURE_FL_FUZZ", "3000"))


def test_parties_refuse_whatever_they_are_sent() -> None:
    tally = fuzz(COUNT, random.Random(3), [KINDS[2], KINDS[0]])
    assert tally.messages >= COUNT
    assert tally.signed > COUNT // 10
    assert len(tally.reasons) > 12


def planted(
    monkeypatch: pytest.MonkeyPatch, kind: int, name: str, instead: Any, where: Any = None
) -> None:
    """Fuzz a server (0) or a client (1) in which one function is another."""
    people = identities(4)
    target = target_at((Phase.AGREE, 0), KINDS[0], people, whole_run(KINDS[0], people))
    monkeypatch.setattr(where or type(target.parties[kind]), name, instead)
    fuzz_unsigned(target, target.parties[kind], 400, random.Random(5), party_fuzz.Tally())


def test_a_planted_crash_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        planted(monkeypatch, 1, "_take", lambda self, data: [][1 // (len(data) % 7) :])


def test_a_planted_forgery_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes a member's word without its signature."""

    def trusting(self: Any, data: bytes, *, most: int, role: str, sender: str | None = None) -> Any:
        header = read_header(data)
        facts = {"place": [0, 0], "plan": "", "about": "plan", "reason": "", "problem": ""}
        return wire.Post(header, facts | {"blamed": [], "head": "00" * 32, "state": ""}, b"")

    with pytest.raises((AssertionError, KeyError)):
        planted(monkeypatch, 0, "open", trusting, wire.Wire)


def test_a_party_that_is_moved_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def noting(self: Any, data: bytes) -> list[Any]:
        self._progress.head = bytes(32)[:-1] + data[:1]
        return []

    with pytest.raises(AssertionError, match="moved"):
        planted(monkeypatch, 1, "receive", noting)


def test_memory_that_is_filled_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    held = list[bytes]()

    def keeping(target: Any, party: Any, *rest: Any) -> None:
        held.append(bytes(8 << 20))
        held[-1] = b"\1" * len(held[-1])

    monkeypatch.setattr(party_fuzz, "MOST_MEMORY", 1 << 20)
    monkeypatch.setattr(party_fuzz, "fuzz_unsigned", keeping)
    with pytest.raises(AssertionError):
        fuzz(10_000, random.Random(1), KINDS[:1])
    assert held
