"""What is sent in a federation whose rounds are prepared gives away what it would without.

Each test fails on a planted fault. The algebra of two rounds' masks is in `secure_sum`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import pytest
import torch
from federation.parties.test_riding import Lockstep
from federation.parties.toy_federation import ToyAnswers, make
from secure_sum.test_secrecy_ahead import values_in
from secure_sum.test_secrecy_of_rounds import envelopes

from secure_fl.crypto.envelope import Phase, read_header
from secure_fl.errors import SecureFLError
from secure_fl.federation.parties.client_round import ClientRound
from secure_fl.federation.state import State
from secure_fl.federation.wire import route
from secure_fl.secure_sum import setup
from secure_fl.secure_sum.grid import Blocks

OPENING = (Phase.UPLOAD, Phase.AGREE, Phase.OPEN_COUNTS, Phase.OPEN_POOLS, Phase.APPLY)


def whole(answers: Callable[[int], ToyAnswers] = ToyAnswers) -> Lockstep:
    """A run of three rounds, of which two are prepared."""
    lockstep = Lockstep(make(4, "masked", rounds=3, answers=answers))
    lockstep.run()
    assert lockstep.made.server.failed is None
    return lockstep


def used(lockstep: Lockstep) -> Counter[tuple[str, bytes]]:
    """What clients sent of their rounds."""
    return values_in(
        data for sender, _, data in lockstep.sent if not sender and route(data).phase < Phase.HELLO
    )


def test_nothing_of_a_prepared_round_was_used_before() -> None:
    found = used(whole())
    assert max(found.values()) == 1
    kinds = Counter(kind for kind, _ in found)
    assert kinds == {"key": 3 * 4 * 2, "commitment": 3 * 4, "box": 3 * 4 * 3, "block": 3 * 4 * 4}


def test_keys_kept_for_the_next_round_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: clients that draw their keys once."""
    drawn = cycle([setup.X25519PrivateKey.generate() for _ in range(8)])

    class Again:
        generate = staticmethod(lambda: next(drawn))

    monkeypatch.setattr(setup, "X25519PrivateKey", Again)
    found = used(whole())
    assert {kind for (kind, _), count in found.items() if count > 1} == {"key"}


def early(lockstep: Lockstep) -> set[Phase]:
    """What clients sent of a round, beyond its set-up, before it was called."""
    begun, found = set[int](), set[Phase]()
    for _, _, data in lockstep.sent:
        header = route(data)
        begun |= {header.round} if header.phase == Phase.BEGIN else set()
        found |= {header.phase} if header.phase in OPENING and header.round not in begun else set()
    return found


def test_of_a_prepared_round_only_its_set_up_is_sent() -> None:
    """No vector, no signature on survivors and no share leaves while the round before runs."""
    assert early(whole()) == set()


def test_a_client_that_answers_as_soon_as_it_can_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a prepared round counts as begun."""
    honest = ClientRound.prepare

    def prepare(self: ClientRound) -> list[bytes | memoryview]:
        self._begun = True
        return honest(self)

    monkeypatch.setattr(ClientRound, "prepare", prepare)
    lockstep = Lockstep(make(4, "masked", rounds=3))
    with suppress(SecureFLError):
        lockstep.run()
    assert early(lockstep) == {Phase.UPLOAD}


@dataclass(frozen=True)
class Choosing(ToyAnswers):
    """All clients choose by a list; three or more of them choose pool 0."""

    choices: tuple[int, ...] = ()

    def answer(self, state: State, position: int) -> Blocks:
        blocks, choice = super().answer(state, position), self.choices[self.client]
        chosen = torch.tensor([1 - choice, choice])
        values = blocks.pools.sum(dim=0, keepdim=True)
        return replace(blocks, head=chosen, pools=values * chosen[:, None])


def outside(choices: tuple[int, ...]) -> list[tuple[object, ...]]:
    """Lengths, order and headers of all that is sent."""
    names = ("body_hash", "key_fingerprint", "roster_digest")
    blank: dict[str, Any] = dict.fromkeys(names, bytes(32)) | {"parameters": "any"}
    lockstep = whole(lambda number: Choosing(number, choices))
    return [
        (sender, to, len(data), *(replace(read_header(part), **blank) for part in envelopes(data)))
        for sender, to, data in lockstep.sent
        if route(data).phase < Phase.HELLO or route(data).phase == Phase.PREPARE
    ]


def test_riding_shows_no_choice() -> None:
    assert outside((1, 0, 0, 0)) == outside((0, 0, 0, 1))


def test_a_choice_that_decides_when_keys_are_sent_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted: who chooses pool 1 says its keys only when it is asked again."""
    honest = ClientRound.prepare

    def prepare(self: ClientRound) -> list[bytes | memoryview]:
        answers: Any = self._seat.answers
        return [] if answers.choices[answers.client] else honest(self)

    monkeypatch.setattr(ClientRound, "prepare", prepare)
    assert outside((1, 0, 0, 0)) != outside((0, 0, 0, 1))
