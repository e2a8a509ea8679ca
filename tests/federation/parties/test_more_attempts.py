"""A round that fails is tried again without whom it blames, as long as nothing can be open."""

from __future__ import annotations

from dataclasses import replace

import torch
from federation.parties.toy_federation import Made, ToyAnswers, expected, make

from secure_fl.crypto.envelope import Phase, open_envelope, sign_envelope
from secure_fl.crypto.shares import Share
from secure_fl.engines.queue import Tap
from secure_fl.errors import PrivacyError, TrainingError
from secure_fl.federation.state import State
from secure_fl.federation.wire import route
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.messages import Revealed

LOST = ("client-0005", "client-0006")
LIAR = "client-0004"


def showing_other_shares(made: Made, liar: str, data: bytes) -> bytes:
    """What a client reveals, with another share of each secret."""
    attempt, phase = made.server._attempt, route(data).phase
    assert attempt is not None
    plan = attempt.plans[0]
    said = Revealed.decode(open_envelope(data, made.roster, plan.expect(phase, "client"))[1])
    others = (
        (block, owner, replace(Share.from_bytes(share), value=7).to_bytes())
        for block, owner, share in said.shares
    )
    body = replace(said, shares=tuple(others)).encode()
    return sign_envelope(made.identities[liar], plan.header(phase, liar), body)


def lying(made: Made, phase: Phase) -> Tap:
    """In round 0 two uploads are lost, and one of the five survivors shows other shares."""

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if header.round or (header.phase == Phase.UPLOAD and sender in LOST):
            return data if header.round else None
        lies = (header.phase, sender) == (phase, LIAR)
        return showing_other_shares(made, LIAR, bytes(data)) if lies else data

    return tap


def test_a_round_is_tried_again_without_whom_it_blames() -> None:
    made = make(7, "masked", rounds=1)
    made.run(lying(made, Phase.OPEN_COUNTS))
    assert made.server.failed is None
    state = made.clients[0].state
    assert state is not None
    assert state.facts["survivors"] == [6]
    others = [client for client in range(7) if client != 4]
    torch.testing.assert_close(state.tensors["pools"], expected(others, 1))
    assert made.clients[4].over
    assert made.clients[4].state == state


def test_a_round_whose_pools_may_be_open_is_not() -> None:
    made, calls = make(7, "masked", rounds=1), set[int]()
    false = lying(made, Phase.OPEN_POOLS)

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        calls.update([route(data).round] if route(data).phase == Phase.BEGIN else [])
        return false(sender, to, data)

    made.run(tap)
    assert calls == {0}
    assert made.server.failed is not None


def test_three_attempts_are_all() -> None:
    """Each round blames another; the fourth is never called."""
    made, calls = make(16, "masked", rounds=1), set[int]()
    lost = [f"client-{number:04d}" for number in (11, 12, 13, 14, 15)]

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        calls.update([header.round] if header.phase == Phase.BEGIN else [])
        liar = f"client-{header.round:04d}"
        gone = lost[: 5 - header.round]
        if header.phase == Phase.UPLOAD and sender in gone:
            return None
        lies = (header.phase, sender) == (Phase.OPEN_COUNTS, liar)
        return showing_other_shares(made, liar, bytes(data)) if lies else data

    made.run(tap)
    assert calls == {0, 1, 2}
    assert made.server.failed is not None


class Failing(ToyAnswers):
    """A client that cannot answer in the first round, or whose budget is spent."""

    def releases(self, state: State, position: int) -> tuple[()]:
        if self.client == 2 and state.place.round == 0:
            raise PrivacyError("spent", field="epsilon", value=1, remedy="none")
        return ()

    def answer(self, state: State, position: int) -> Blocks:
        if self.client == 3 and state.place.round == 0:
            raise TrainingError("diverged", field="loss", value="nan", remedy="none")
        return super().answer(state, position)


def test_who_cannot_answer_sits_out_and_is_named() -> None:
    made = make(7, "masked", rounds=2, answers=Failing)
    made.run()
    assert made.server.failed is None
    said = {(told["sender"], told["reason"]) for told in made.server.said}
    assert said == {("client-0002", "over-budget"), ("client-0003", "no-answer")}
    state = made.clients[2].state
    assert state is not None
    assert state.facts["survivors"] == [5, 7]
    assert {client.state for client in made.clients} == {state}


class Beyond(ToyAnswers):
    """A client whose vector is beyond what its clamp allows."""

    def answer(self, state: State, position: int) -> Blocks:
        blocks = super().answer(state, position)
        return replace(blocks, pools=blocks.pools * (1 if self.client != 4 else 500))


def test_a_group_whose_sum_is_refused_is_left_out_with_its_reason() -> None:
    made = make(9, "masked", rounds=1, groups=4, answers=Beyond)
    made.run()
    assert made.server.failed is None
    states = {client.state for client in made.clients}
    assert len(states) == 1
    assert next(iter(states)).facts["groups"] == [1, ["out-of-range"]]  # type: ignore[union-attr]


def test_a_sum_that_everybody_refuses_ends_the_federation_for_that_reason() -> None:
    made = make(7, "masked", rounds=1, answers=Beyond)
    made.run()
    assert made.server.failed.reason == "out-of-range"  # type: ignore[union-attr]
