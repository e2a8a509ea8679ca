"""Some thousand messages to each kind of party; a million by `python -m fuzz.party_fuzz`."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from fuzz import party_fuzz
from fuzz.party_fuzz import KINDS, Kind, fuzz

from secure_fl.crypto.identities import Member
from secure_fl.errors import SecureFLError
from secure_fl.federation.parties.client import FederationClient
from secure_fl.federation.parties.participant import Participant
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.messages import OpenRequest

COUNT = int(os.environ.get("SECURE_FL_FUZZ", "6000"))
TO_A_CLIENT = [
    "PLAN", "KEYS", "MAKE", "SECRET", "PREPARE", "BEGIN", "ADVERTISE", "SHARE", "AGREE",
    "OPEN_COUNTS", "OPEN_POOLS", "APPLY", "PARTS", "RESULTS", "STATE", "END",
]  # fmt: skip
TO_A_SERVER = [
    "HELLO", "JOIN", "KEYS", "SECRET", "ADVERTISE", "SHARE", "UPLOAD", "AGREE", "OPEN_COUNTS",
    "OPEN_POOLS", "APPLY", "PART", "RESULT", "STATE",
]  # fmt: skip
TO_AN_AUTHORITY = [
    "PLAN", "KEYS", "MAKE", "SECRET", "BEGIN", "OPEN_COUNTS", "OPEN_POOLS", "PARTS", "END",
]  # fmt: skip


def test_parties_refuse_whatever_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message that each reads was tried with another body, signed, where it belongs."""
    monkeypatch.setattr(party_fuzz, "EACH", 5)
    kinds = [KINDS[0], KINDS[2], KINDS[4], KINDS[5]]
    inside = set[tuple[str, str, str]]()
    for seed in range(3, 8):  # keys are drawn anew, so no seed alone reaches every message for sure
        tally = fuzz(COUNT, random.Random(seed), kinds)
        inside |= {(role, phase, word) for role, phase, _, word in tally.inside}
        inside |= {(role, phase, "tried") for role, phase, _, _ in tally.inside}
        if not wanted() - inside:
            break
    assert wanted() <= inside
    assert tally.messages >= COUNT
    assert tally.signed > COUNT // 4
    assert tally.runs >= 3
    assert len(tally.reasons) > 25


def wanted() -> set[tuple[str, str, str]]:
    """What must have been refused, with a right header; of an authority's, tried."""
    found = {("client", phase, "refused") for phase in TO_A_CLIENT}
    found |= {("server", phase, "refused") for phase in TO_A_SERVER}
    found |= {("authority", phase, "tried") for phase in TO_AN_AUTHORITY}
    taken = [("client", "APPLY"), ("server", "UPLOAD"), ("server", "SHARE")]
    return found | {(role, phase, "taken") for role, phase in taken}


def one_pass(kind: Kind = KINDS[0], count: int = 1_500) -> None:
    fuzz(count, random.Random(5), [kind])


def test_a_planted_crash_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """In how a client refuses what somebody else signed."""
    refuse = Participant._refuse

    def crashing(self: Any, data: bytes, error: SecureFLError) -> list[bytes]:
        1 // (getattr(error, "reason", "") != "wrong-signature")
        return refuse(self, data, error)

    monkeypatch.setattr(FederationClient, "_refuse", crashing)
    with pytest.raises(ZeroDivisionError):
        one_pass()


def test_a_crash_deep_inside_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only a signed request of the right form comes to, for other survivors than before."""
    same = RoundClient._same_sets

    def crashing(self: Any, request: OpenRequest) -> None:
        1 // (request.survivors == self._state.survivors)
        same(self, request)

    monkeypatch.setattr(RoundClient, "_same_sets", crashing)
    with pytest.raises(ZeroDivisionError):
        one_pass(count=6_000)


def test_a_planted_forgery_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parties that take a member's word without its signature."""
    monkeypatch.setattr(Member, "verify", lambda *_: None)
    with pytest.raises((AssertionError, SecureFLError)):
        one_pass()


def test_a_party_that_is_moved_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = Participant._refuse

    def noting(self: Any, data: bytes, error: SecureFLError) -> list[bytes]:
        self._progress.last = (len(data), b"")
        return refuse(self, data, error)

    monkeypatch.setattr(FederationClient, "_refuse", noting)
    with pytest.raises(AssertionError, match="moved"):
        one_pass()


def test_memory_that_is_filled_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    held = list[bytes]()

    def keeping(*_: Any) -> None:
        held.append(b"\1" * (8 << 20))

    monkeypatch.setattr(party_fuzz, "MOST_MEMORY", 1 << 20)
    monkeypatch.setattr(party_fuzz.Run, "before", keeping)
    with pytest.raises(AssertionError):
        one_pass()
    assert held


def test_a_run_without_end_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(party_fuzz, "MOST_DELIVERED", 20)
    with pytest.raises(party_fuzz.EndlessError):
        one_pass()
