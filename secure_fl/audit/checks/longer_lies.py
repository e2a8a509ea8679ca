"""Lies of a server that take more than one message of a sum: calls, plans and states that differ,
survivor sets shown to two halves, late uploads, sums that differ by client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from secure_fl.audit.checks.lies import Told, by_authority, flip, of_the_sum, survivors_of
from secure_fl.audit.checks.scene import Scene
from secure_fl.audit.checks.stage import Answered, Stage
from secure_fl.crypto.envelope import Phase, body_of, sign_envelope
from secure_fl.crypto.identities import Member
from secure_fl.crypto.roster import Roster
from secure_fl.errors import SecureFLError
from secure_fl.federation.wire import route
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.messages import (
    MASK_KEY,
    Agreement,
    OpenRequest,
    Revealed,
    Survivors,
)


def _refused(lie: str, answered: Answered) -> Told:
    return Told(lie, answered.word, of_the_sum(answered.sent))


# Plans


def plans(scene: Scene) -> Iterator[Told]:
    """Plans that a client that joined, or a new one, is shown."""
    stage = Stage(scene)
    coordinator, plan = stage.people["coordinator"], stage.plan
    joined, fresh = stage.clients[0], stage.clients[1]
    joined.receive(stage.signed)
    other = replace(plan, largest=plan.largest + 1)
    yield _refused("another plan", stage.answers(joined, other.sign(coordinator, stage.roster)))
    unsigned = plan.sign(stage.people["server"], stage.roster)
    yield _refused("a plan that the server signed", stage.answers(fresh, unsigned))
    header = replace(route(stage.signed), body_length=0, body_hash=bytes(32))
    same_name = sign_envelope(coordinator, header, other.encode())
    yield _refused("another plan under the same name", stage.answers(fresh, same_name))
    configuration = dict(plan.configuration)
    configuration["security"] = dict(configuration["security"]) | {"min_pool_clients": 2}
    lower = replace(plan, configuration=configuration).sign(coordinator, stage.roster)
    yield _refused("min_pool_clients lowered to 2", stage.answers(fresh, lower))
    few = Roster("audit", stage.roster.members[:-1], stage.roster.rotation_rounds)
    few = Roster.open(few.sign(coordinator), coordinator.member)
    smaller = replace(plan, roster=few.digest, clients=plan.clients[:-1])
    yield _refused("another roster", stage.answers(fresh, smaller.sign(coordinator, few)))


def rosters(scene: Scene) -> Iterator[Told]:
    """People on a roster whose keys are nobody's."""
    stage = Stage(scene)
    coordinator, one = stage.people["coordinator"], stage.people[stage.names[0]].member
    keys = {
        "a roster with a key of low order": (one.sign, bytes(32)),
        "a roster with a signing key of small order": (b"\x01" + bytes(31), one.agree),
    }
    for lie, (sign, agree) in keys.items():
        try:
            people = (*stage.roster.members, Member("mallory", "client", sign, agree))
            Roster.open(Roster("audit", people).sign(coordinator), coordinator.member)
        except SecureFLError as error:
            yield Told(lie, str(getattr(error, "reason", "refused")))
        else:
            yield Told(lie, "", 1)


# Calls


def calls(scene: Scene) -> Iterator[Told]:
    """Calls of rounds that were called before, or of another history."""
    stage = Stage(scene)
    stage.stop(Phase.BEGIN)
    changes: dict[str, dict[str, Any]] = {
        "models that nobody else has": {"state": "ab" * 32},
        "a transcript that nobody else follows": {"head": "ab" * 32},
        "truncated cohort: most left out": {"left_out": stage.names[2:]},
    }
    for place, (lie, changed) in enumerate(changes.items()):
        client = stage.clients[0 if "left_out" in changed else place]
        yield _refused(lie, stage.answers(client, stage.call(0, **changed)))
    yield from _again(scene)


def _again(scene: Scene) -> Iterator[Told]:
    stage = Stage(scene)
    stage.stop(Phase.AGREE)
    client, number = stage.clients[0], stage.attempt.call.number
    yield _refused("the round once more", stage.answers(client, stage.call(number, attempt=2)))
    yield _refused("the place once more", stage.answers(client, stage.call(number + 1)))
    stage = Stage(scene, rounds=2)
    stage.run()
    old = [data for who, _, data in stage.said if route(data).phase == Phase.AGREE]
    for data in old[:1]:
        yield _refused("a message of an earlier round", stage.answers(stage.clients[1], data))
    call = stage.call(stage.server.number + 1, place=[0, 0])
    yield _refused("an older place", stage.answers(stage.clients[1], call))
    yield from _after_an_opening(scene)


def _after_an_opening(scene: Scene) -> Iterator[Told]:
    """Sums may be open, and the same answers are asked for without one client: the difference is
    that client's.
    """
    stage, lie = Stage(scene), "the same answers again, without one client"
    said = list[str]()

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        shares = to == "server" and header.phase == Phase.OPEN_POOLS and sender in stage.names
        said.extend([sender] if shares else [])
        return None if said else data

    stage.run(tap)
    number = max(stage.server.number, 0) + 7
    again = stage.call(number, attempt=2, left_out=[stage.names[-1]])
    yield _refused(lie, stage.answers(stage.clients[0], again))


# Two survivor sets


def halves(scene: Scene) -> Iterator[Told]:
    """Two halves of the clients are shown two survivor sets, of which one is without the last of
    the first half; 2t − m − 1 colluders sign both. The claim is that as many do not suffice.
    """
    stage, lie = Stage(scene), "two survivor sets shown to two halves"
    held = stage.stop(Phase.AGREE)
    plan = stage.round_plan
    if plan.degree is not None:
        return
    needed, size = plan.shares_needed, len(stage.names)
    colluding = 2 * needed - plan.neighbourhood - 1
    if colluding < 0:  # two halves suffice by themselves
        yield Told(lie, "", 1)
        return
    honest = size - colluding
    first = range(needed - colluding)
    second = range(needed - colluding, honest)
    if not second:  # three of three: nobody may be missing, so there is no second set
        return
    target = first[-1]
    everybody = tuple(range(size))
    less = tuple(place for place in everybody if place != target)
    shares = [
        _half(stage, held, half, survivors, tuple(range(honest, size)))
        for half, survivors in ((first, everybody), (second, less))
    ]
    kinds = ((0, shares[0]), (MASK_KEY, shares[1]))
    got = [sum((kind, target) in each for each in half) + colluding for kind, half in kinds]
    both = all(found >= needed for found in got)
    refused = [word for half in shares for each in half for word in each if isinstance(word, str)]
    yield Told(lie, "" if not refused else refused[0], int(both))


def _half(
    stage: Stage,
    held: Mapping[str, bytes],
    half: range,
    survivors: tuple[int, ...],
    colluding: tuple[int, ...],
) -> list[set[Any]]:
    """Of each client of a half: places and owners of the shares that it lets go, or its word."""
    one = stage.attempt.sums[0]
    view = one._book.view(one._dealers, survivors)
    asked = Survivors(view, survivors).encode()
    signed = Agreement(view, len(survivors)).encode()
    agreed = [stage.of_sum(stage.names[place], Phase.AGREE, signed) for place in colluding]
    found = list[set[Any]]()
    for place in half:
        name = stage.names[place]
        answered = stage.answers(stage.clients[place], stage.resigned(held[name], lambda _: asked))
        agreed += [each for each in answered.sent if route(each).phase == Phase.AGREE]
        found.append({answered.word} - {""})
    dropped = tuple(place for place in one._dealers if place not in survivors)
    request = OpenRequest(view, survivors, dropped, tuple(agreed)).encode()
    opening = stage.of_sum("server", Phase.OPEN_COUNTS, request)
    for place, got in zip(half, found, strict=True):
        answered = stage.answers(stage.clients[place], opening)
        got |= {answered.word} - {""}
        for each in answered.sent:
            if route(each).phase == Phase.OPEN_COUNTS:
                got |= {entry[:2] for entry in Revealed.decode(body_of(each)).shares}
    return found


# Sums


def closed_pools(scene: Scene) -> Iterator[Told]:
    """Shares for pools below the minimum, asked of everybody in an honest opening."""
    if not scene.hides_a_pool:
        return
    stage, got = Stage(scene), list[bytes]()

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if to == "server" and sender in stage.names and route(data).phase == Phase.OPEN_POOLS:
            got.append(bytes(data))
        return data

    stage.run(tap)
    if not got:
        yield Told("shares of a pool of one", "not told", told=False)
        return
    shape = scene.form.shape
    alone = shape.first_pool + scene.alone(scene.clients - 1)
    shares = [entry for data in got for entry in Revealed.decode(body_of(data)).shares]
    gone = sum(block == alone for block, _, _ in shares)
    yield Told("shares of a pool of one", "" if gone else "below-minimum", gone)


def second_set(scene: Scene) -> Iterator[Told]:
    """A client that has signed one set of survivors is shown another one, long enough too: shares
    for both would open the one whom only one of them has.
    """
    stage = Stage(scene)
    if not stage.stop(Phase.OPEN_COUNTS):
        return
    client, others = stage.clients[0], tuple(range(len(stage.names) - 1))
    data = stage.of_sum("server", Phase.AGREE, survivors_of(stage, others))
    yield _refused("a second set of survivors to sign", stage.answers(client, data))


def late_upload(scene: Scene) -> Iterator[Told]:
    """One upload comes when the survivors are fixed without it, and the server adds it to pools."""
    stage, lie = Stage(scene), "a late upload added"
    late, kept = stage.names[0], list[bytes]()

    def tap(sender: str, _: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if sender == late and header.phase == Phase.UPLOAD and not kept:
            kept.append(bytes(data))
            return None
        if sender == "server" and header.phase == Phase.AGREE and kept[1:] == []:
            adder = stage.attempt.sums[0]._adder
            for block, envelope in enumerate(unframe(kept[0])):
                if block:
                    adder.add(block, adder.read(block, body_of(bytes(envelope))))
            kept.append(b"added")
        return data

    authority = by_authority(scene)
    phase = Phase.OPEN_POOLS if authority else Phase.APPLY
    held = stage.stop(phase, tap=tap, to_authority=authority)
    if len(kept) < 2:  # so few clients that nobody may be late
        return
    reader = stage.authority if authority else stage.clients[1]
    if reader is None or reader.name not in held:
        return
    yield _refused(lie, stage.answers(reader, held[reader.name]))


def other_sums(scene: Scene) -> Iterator[Told]:
    """One client is sent another sum than the others, well signed."""
    if by_authority(scene):
        return
    stage, victim = Stage(scene), 1
    name = stage.names[victim]

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if sender == "server" and to == name and (header.phase, header.chunk) == (Phase.APPLY, 0):
            return stage.resigned(bytes(data), _changed)
        return data

    held = stage.stop(Phase.APPLY, 1, tap=tap)
    said = [str(each["reason"]) for each in stage.server.said if each["sender"] == name]
    if said or not held:
        yield Told("another sum for one client", (said or [""])[0], 0 if said else 1)
        return
    claims = next(iter(held.values()))
    yield _refused("another sum for one client", stage.answers(stage.clients[victim], claims))


def _changed(body: bytes) -> bytes:
    *sums, last = [bytes(each) for each in unframe(body)]
    return frames([*sums, flip(last, 0)])


def histories(scene: Scene) -> Iterator[Told]:
    """All others were shown another history than one client, and sign it."""
    stage = Stage(scene)

    def tap(sender: str, _: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if sender == "server" and route(data).phase == Phase.AGREE:
            for client in stage.clients[1:]:
                client._progress.head = b"?" * 32
        return data

    held, reader = stage.stop(Phase.OPEN_COUNTS, tap=tap), stage.clients[0]
    if reader.name in held:
        yield _refused("two histories", stage.answers(reader, held[reader.name]))


# States


def states(scene: Scene) -> Iterator[Told]:
    """Sealed models for a client that missed a round: signed by too few, or by all for others."""
    stage, gone = Stage(scene, rounds=2), scene.clients - 1
    name, sent = stage.names[gone], list[bytes]()

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if (header.phase, sender, header.round) == (Phase.UPLOAD, name, 0):
            return None
        if header.phase == Phase.STATE and to == name:
            sent.append(bytes(data))
        return data

    stage.run(tap)
    if not sent:  # so few clients that nobody may be missing, or states come another way
        return
    late = Stage(scene, rounds=2, before=stage).clients[gone]
    late.receive(stage.signed)
    for grant in stage.server._keys.current:
        late.receive(grant)
    for lie, change in _STATES.items():
        if "few" in lie and by_authority(scene):  # its word is enough
            continue
        yield _refused(lie, stage.answers(late, _state(stage, sent[0], change)))


_STATES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a state that nobody signed": lambda parts: parts[:1],
    "a state of other models": lambda parts: [flip(parts[0], -1), *parts[1:]],
    "a state that too few signed": lambda parts: parts[:2],
}


def _state(stage: Stage, data: bytes, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    post = stage.wire.open(data, most=1 << 24, role="server")
    parts = change([bytes(part) for part in unframe(post.rest)])
    return stage.wire.sign(Phase.STATE, post.facts, frames(parts))


LONGER: tuple[Callable[[Scene], Iterator[Told]], ...] = (
    plans,
    rosters,
    calls,
    halves,
    second_set,
    closed_pools,
    late_upload,
    other_sums,
    histories,
    states,
)
"""All of them; each tells none where it does not apply."""
