"""A server that lies to clients: each lie is refused with its own word, and by a check of its own.

`LIES` names, for each, the check that refuses it. It is told twice: to clients as they are, and to
clients whose check was taken out, which must not find that word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from federation.muted import without_check
from federation.parties.faulty import resigned
from federation.parties.toy_federation import Made, make, roster_of
from federation.parties.trials import Trial, chunk_of, trial

from secure_fl.crypto.envelope import Phase, sign_envelope
from secure_fl.federation.parties import client
from secure_fl.federation.parties.client import FederationClient
from secure_fl.federation.plan import Plan
from secure_fl.federation.wire import Wire, route, shown
from secure_fl.secure_sum import client as round_client
from secure_fl.secure_sum import key_directory
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.messages import Dealers, OpenRequest, Survivors
from secure_fl.secure_sum.setup import ClientSetup

LIED_TO = "client-0001"


def begin(made: Made, number: int, **changes: Any) -> bytes:
    """A call as the server signs it, at the state of the first client."""
    state = made.clients[0].state
    assert state is not None
    facts = {"place": shown(state.place), "attempt": 1, "left_out": []}
    facts |= {"state": state.digest.hex(), "head": bytes(32).hex()}
    wire = Wire(made.identities["server"], made.roster)
    wire.plan = made.plan.digest.hex()
    lines = changes.pop("lines", [])
    return wire.sign(Phase.BEGIN, facts | changes, frames(lines), number=number)


def reason(made: Made, client: FederationClient, data: bytes) -> str:
    """What a client signs instead of an answer; where it is silent, what it wrote down."""
    before = client.refusals.counts.copy()
    sent = client.receive(data)
    if len(sent) == 1 and route(sent[0].data).phase == Phase.REFUSE:
        wire = Wire(made.identities["server"], made.roster)
        return str(wire.open(sent[0].data, most=1 << 20, role="client").facts["reason"])
    noted = client.refusals.counts - before
    return next(iter(noted), "")


def joined(**more: Any) -> tuple[Made, FederationClient]:
    made = make(4, "masked", **more)
    client = made.clients[0]
    client.receive(made.signed)
    return made, client


# Lies about the plan


def weaker_noise(plan: Any) -> Any:
    """The same plan, but that less is asked of its sums."""
    configuration = dict(plan.configuration)
    configuration["security"] = dict(configuration["security"]) | {"protection": "plain"}
    return replace(plan, configuration=configuration)


def lie_weaker_plan_later() -> str:
    made, client = joined()
    other = weaker_noise(made.plan).sign(made.identities["coordinator"], made.roster)
    return reason(made, client, other)


def lie_weaker_plan_at_first() -> str:
    judge = lambda plan: None if plan.protection == "masked" else "not protected"  # noqa: E731
    made = make(4, "masked", judge=judge)
    other = weaker_noise(made.plan).sign(made.identities["coordinator"], made.roster)
    return reason(made, made.clients[0], other)


def lie_plan_under_the_same_name() -> str:
    """Less noise in the body, while the header still names the plan that others agreed to."""
    made, _ = joined()
    fresh = make(4, "masked", people=made.identities).clients[0]
    header = route(made.signed)
    body = weaker_noise(made.plan).encode()
    header = replace(header, body_length=0, body_hash=bytes(32))
    return reason(made, fresh, sign_envelope(made.identities["coordinator"], header, body))


def lie_other_roster() -> str:
    made, _ = joined()
    people = {name: one for name, one in made.identities.items() if name != "client-0003"}
    smaller = roster_of(people)
    plan = replace(made.plan, roster=smaller.digest, clients=made.plan.clients[:3])
    fresh = make(4, "masked", people=made.identities).clients[0]
    return reason(made, fresh, plan.sign(made.identities["coordinator"], smaller))


# Lies about the round


def lie_round_again() -> str:
    made, client = joined()
    client.receive(begin(made, 5))
    return reason(made, client, begin(made, 4, attempt=2))


def lie_place_again() -> str:
    made, client = joined()
    client.receive(begin(made, 5))
    return reason(made, client, begin(made, 6))


def lie_older_place() -> str:
    made = make(4, "masked", rounds=1)
    made.run()
    return reason(made, made.clients[0], begin(made, 9, place=[0, 0]))


def lie_small_cohort() -> str:
    made, client = joined()
    return reason(made, client, begin(made, 0, left_out=["client-0001", "client-0002"]))


def lie_other_state() -> str:
    made, client = joined()
    return reason(made, client, begin(made, 0, state="ab" * 32))


def lie_other_transcript() -> str:
    made, client = joined()
    return reason(made, client, begin(made, 0, head="ab" * 32))


def lie_past_the_end() -> str:
    made = make(4, "masked", rounds=1)
    made.run()
    made.clients[0]._progress.over = False  # as if it had not heard of the end
    return reason(made, made.clients[0], begin(made, 9))


def lie_after_the_end() -> str:
    """Rounds are left: another plan may have them by now."""
    made = make(4, "masked", rounds=2)
    made.server.closing = lambda: True
    made.run()
    return reason(made, made.clients[0], begin(made, 9))


# Lies to one client in the middle of a round


def told_otherwise(
    phase: Phase, chunk: int, body: Callable[[Made, bytes], bytes], key: str = "clients"
) -> str:
    """What one client says when its message of this kind has another body than the others'."""
    one: Trial = trial("masked" if key == "clients" else "bfv+masked", key, rounds=1)
    made = one.made

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if who != "server" or to != LIED_TO or chunk_of(data) != (phase, chunk, 0):
            return data
        return resigned(made, "server", bytes(data), lambda old: body(made, old))

    one.run(tap)
    words = {said["reason"] for said in made.server.said if said["sender"] == LIED_TO}
    assert len(words) <= 1
    return next(iter(words), "")


def lie_roster_without_oneself() -> str:
    return told_otherwise(
        Phase.ADVERTISE, 0, lambda made, body: frames([*unframe(body)[:1], *unframe(body)[2:]])
    )


def lie_short_roster() -> str:
    return told_otherwise(Phase.ADVERTISE, 0, lambda made, body: frames(unframe(body)[:3]))


def lie_left_out() -> str:
    return told_otherwise(Phase.SHARE, 1, lambda made, body: Dealers((0, 2, 3, 4)).encode())


def lie_survivors() -> str:
    return told_otherwise(
        Phase.AGREE, 0, lambda made, body: Survivors(bytes(32), (0, 1, 2, 3)).encode()
    )


def lie_survivors_at_the_opening() -> str:
    def body(made: Made, old: bytes) -> bytes:
        request = OpenRequest.decode(old)
        survivors, dropped = request.survivors[:-1], request.survivors[-1:]
        return replace(request, survivors=survivors, dropped=dropped).encode()

    return told_otherwise(Phase.OPEN_COUNTS, 0, body)


def lie_both_kinds() -> str:
    def body(made: Made, old: bytes) -> bytes:
        request = OpenRequest.decode(old)
        return replace(request, dropped=request.survivors[-1:]).encode()

    return told_otherwise(Phase.OPEN_COUNTS, 0, body)


def lie_signatures_missing() -> str:
    def body(made: Made, old: bytes) -> bytes:
        request = OpenRequest.decode(old)
        return replace(request, evidence=request.evidence[:2]).encode()

    return told_otherwise(Phase.OPEN_COUNTS, 0, body)


def lie_counts_without_proof() -> str:
    def body(made: Made, old: bytes) -> bytes:
        request = OpenRequest.decode(old)
        return replace(request, evidence=request.evidence[:-1]).encode()

    return told_otherwise(Phase.OPEN_POOLS, 0, body)


def lie_small_pool() -> str:
    """The sum of a pool that stays closed is sent along with the others."""
    return told_otherwise(
        Phase.APPLY, 0, lambda made, body: frames([*unframe(body), unframe(body)[-1]])
    )


def lie_sums() -> str:
    """One client is sent another sum, signed, and then what the others signed of theirs."""
    made = trial("masked", rounds=1).made
    client, words = made.clients[1], list[str]()

    def other(old: bytes) -> bytes:
        *blocks, last = [bytes(block) for block in unframe(old)]
        return frames([*blocks, bytes([last[0] ^ 1]) + last[1:]])

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        phase, chunk, _ = chunk_of(data)
        if who == "server" and phase == Phase.APPLY and to == LIED_TO and chunk == 0:
            return resigned(made, "server", bytes(data), other)
        if who == "server" and (phase, chunk) == (Phase.APPLY, 1) and not words:
            words.append(reason(made, client, bytes(data)))
        return data

    made.run(tap)
    return words[0]


def lie_claims() -> str:
    """Claims of which all but one are kept back: what one says of the sums is not the others'."""
    return told_otherwise(Phase.APPLY, 1, lambda made, body: frames([]))


# Lies about the state


def behind() -> tuple[Made, FederationClient, dict[str, bytes]]:
    """A client that has missed the first state, and the sealed states of both places."""
    made, sent = make(4, "masked", rounds=2), dict[str, bytes]()

    def tap(who: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if (header.phase, who) == (Phase.UPLOAD, "client-0003"):
            return None
        if header.phase == Phase.STATE and who == "server":
            sent.setdefault(str(len(sent)), bytes(data))
        return data

    made.run(tap)
    late = make(4, "masked", rounds=2, people=made.identities).clients[2]
    late.receive(made.signed)
    for grant in made.server._keys.current:
        late.receive(grant)
    return made, late, sent


def state_message(made: Made, data: bytes, change: Callable[[Any, list[bytes]], Any]) -> bytes:
    wire = Wire(made.identities["server"], made.roster)
    wire.plan = made.plan.digest.hex()
    post = wire.open(data, most=1 << 20, role="server")
    facts, parts = change(dict(post.facts), [bytes(part) for part in unframe(post.rest)])
    return wire.sign(Phase.STATE, facts, frames(parts))


def lie_state_of_few() -> str:
    made, late, sent = behind()
    return reason(made, late, state_message(made, sent["0"], lambda f, p: (f, p[:-1])))


def lie_state_of_another_client() -> str:
    """The signatures are of one state, the sealed bytes of another."""
    made, late, sent = behind()
    other = state_message(made, sent["1"], lambda f, p: (f, p))
    box = unframe(opened_by_server(made, other).rest)[0]
    return reason(made, late, state_message(made, sent["0"], lambda f, p: (f, [box, *p[1:]])))


def opened_by_server(made: Made, data: bytes) -> Any:
    wire = Wire(made.identities["server"], made.roster)
    wire.plan = made.plan.digest.hex()
    return wire.open(data, most=1 << 20, role="server")


def lie_state_of_another_call() -> str:
    """A late client's call names another state than the one that it is sent afterwards."""
    made, late, sent = behind()
    late.receive(begin(made, 9, place=[0, 1], state="cd" * 32))
    return reason(made, late, sent["0"])


def lie_old_state_again() -> str:
    """A state of an earlier place than the client's own is not taken: nothing goes back."""
    _, late, sent = behind()
    late.receive(sent["1"])
    assert late.state is not None
    place = late.state.place
    late.receive(sent["0"])
    return "" if late.state.place == place else "went back"


@dataclass(frozen=True)
class Lie:
    """A lie, and what finds it.

    Attributes:
        tell: tells it to a client; gives the client's word for it.
        word: that it has to be.
        where, name: the class or module, and the function in it, of the check that finds it; None
            where cryptography does, or two checks do that each are enough.
        check: words of that check in the function's source.
    """

    tell: Callable[[], str]
    word: str
    where: Any = None
    name: str = ""
    check: str = ""


LIES = {
    lie.tell.__name__.removeprefix("lie_"): lie
    for lie in [
        Lie(lie_weaker_plan_later, "other-plan", FederationClient, "_on_plan", "OTHER_PLAN"),
        Lie(lie_weaker_plan_at_first, "against-policy", FederationClient, "_accept", "objection"),
        Lie(lie_plan_under_the_same_name, "malformed", Plan, "open", "its digest is not"),
        Lie(lie_other_roster, "wrong-roster"),
        Lie(lie_round_again, "repeated", FederationClient, "_check_new", "REPEATED"),
        Lie(lie_place_again, "repeated", FederationClient, "_check_new", "REPEATED"),
        Lie(lie_older_place, "older-place", FederationClient, "_on_call", "OLDER_PLACE"),
        Lie(lie_small_cohort, "too-few"),
        Lie(lie_other_state, "forked", FederationClient, "_on_call", "digest != own.digest"),
        Lie(lie_other_transcript, "forked", FederationClient, "_on_call", "not the transcript"),
        Lie(lie_past_the_end, "older-place", FederationClient, "_begin", "the last"),
        Lie(lie_after_the_end, "older-place", FederationClient, "_on_call", "has ended"),
        Lie(lie_roster_without_oneself, "survivors-switched", ClientSetup, "_share", "own keys"),
        Lie(lie_short_roster, "too-few", key_directory.KeyBook, "of", "need("),
        Lie(lie_left_out, "survivors-switched"),
        Lie(lie_survivors, "survivors-switched", RoundClient, "_agree", "dealers or survivors"),
        Lie(
            lie_survivors_at_the_opening, "survivors-switched", RoundClient, "_same_sets", "signed"
        ),
        Lie(lie_both_kinds, "both-kinds-of-shares", RoundClient, "_same_sets", "BOTH_KINDS"),
        Lie(lie_signatures_missing, "not-agreed", RoundClient, "_open_counts", "check_agreed("),
        Lie(lie_counts_without_proof, "not-proved"),
        Lie(lie_small_pool, "below-minimum", round_client, "by_block", "BELOW_MINIMUM"),
        Lie(lie_sums, "forked", RoundClient, "_confirm", "FORKED"),
        Lie(lie_claims, "forked", RoundClient, "_confirm", "FORKED"),
        Lie(lie_state_of_few, "not-agreed", client, "check_claimed", "check_enough("),
        Lie(lie_state_of_another_client, "wrong-key"),
        Lie(lie_state_of_another_call, "forked", FederationClient, "_begin_late", "forked"),
        Lie(lie_old_state_again, "", FederationClient, "_on_state", "post.place <= "),
    ]
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_refused_with_its_word(name: str) -> None:
    assert LIES[name].tell() == LIES[name].word


@pytest.mark.parametrize("name", [name for name, lie in LIES.items() if lie.where is not None])
def test_without_its_check_a_lie_is_not_found(name: str) -> None:
    lie = LIES[name]
    with without_check(lie.where, lie.name, lie.check):
        try:
            found = lie.tell()
        except Exception:  # it went on, and failed somewhere else
            return
    assert found != lie.word
