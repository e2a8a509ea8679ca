"""Lies of a server in the messages of a sum, each told to one real client of a stage.

A table by message: what becomes of its body. Every lie is well signed, since a server has its own
key; a colluding client's key is used where a lie needs one. After design and cases in
`docs/secure-sum.md`: Bell et al., CCS 2020 (arXiv 2006.05748) §4 for survivor sets that are shown
to two halves; Pasquini et al., CCS 2022 (arXiv 2111.07380) for models that differ by client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from secure_fl.audit.checks.scene import Scene
from secure_fl.audit.checks.stage import Stage
from secure_fl.crypto.envelope import Phase, body_of
from secure_fl.errors import AuditError
from secure_fl.federation.wire import route
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.messages import Advertise, Dealers, OpenRequest, Survivors


@dataclass(frozen=True)
class Spoken:
    """A message of the server's that is about to be replaced.

    Attributes:
        stage: on which it was said.
        at: the reader's place among the clients.
        body: what it carries.
    """

    stage: Stage
    at: int
    body: bytes


Edit = Callable[[Spoken], bytes]
"""Another body."""


@dataclass(frozen=True)
class Told:
    """One lie, and what came of it.

    Attributes:
        lie: its name.
        word: what honest parties refused it with, in one stable word; empty where one did not.
        let_go: what the server got by it that it must not have: answers, shares, openings.
        told: whether the honest round came so far that it could be told.
    """

    lie: str
    word: str
    let_go: int = 0
    told: bool = True

    @property
    def taken(self) -> bool:
        """Whether it was told and not refused, or anything was let go."""
        return self.told and (not self.word or self.let_go > 0)


def flip(data: bytes, at: int) -> bytes:
    """The same bytes but for one bit."""
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _mole(at: int) -> int:
    """The place of a client that colludes, beside the one that is lied to."""
    return 1 if at == 0 else 0


# ADVERTISE: who takes part, and by which keys


def _two(said: Spoken) -> bytes:
    keys = unframe(said.body)
    return frames([keys[place] for place in sorted((said.at, _mole(said.at)))])


def _one_too_few(said: Spoken) -> bytes:
    others = [place for place in range(len(said.stage.names)) if place != said.at]
    shown = sorted([said.at, *others[: said.stage.round_plan.survivors_needed - 2]])
    keys = unframe(said.body)
    return frames([keys[place] for place in shown])


def _without_reader(said: Spoken) -> bytes:
    keys = unframe(said.body)
    return frames([key for place, key in enumerate(keys) if place != said.at])


def _forged_keys(said: Spoken) -> bytes:
    keys = [bytes(key) for key in unframe(said.body)]
    keys[_mole(said.at)] = flip(keys[_mole(said.at)], -1)
    return frames(keys)


def _low_order(said: Spoken) -> bytes:
    keys, mole = [bytes(key) for key in unframe(said.body)], _mole(said.at)

    def low(old: bytes) -> bytes:
        return replace(Advertise.decode(old), masking=bytes(32)).encode()

    keys[mole] = said.stage.resigned(keys[mole], low, said.stage.names[mole])
    return frames(keys)


# SHARE and AGREE: who stays


def _dealers_without_reader(said: Spoken) -> bytes:
    return Dealers(tuple(p for p in Dealers.decode(said.body).positions if p != said.at)).encode()


def _two_dealers(said: Spoken) -> bytes:
    return Dealers(tuple(sorted((said.at, _mole(said.at))))).encode()


def survivors_of(stage: Stage, places: tuple[int, ...]) -> bytes:
    """A set of survivors with its own right view."""
    one = stage.attempt.sums[0]
    return Survivors(one._book.view(one._dealers, places), places).encode()


def _two_survivors(said: Spoken) -> bytes:
    return survivors_of(said.stage, tuple(sorted((said.at, _mole(said.at)))))


def _other_view(said: Spoken) -> bytes:
    return replace(Survivors.decode(said.body), view=bytes(32)).encode()


def _survivors_without_reader(said: Spoken) -> bytes:
    return survivors_of(said.stage, tuple(p for p in range(len(said.stage.names)) if p != said.at))


# OPEN_COUNTS and OPEN_POOLS: shares


def _asked(change: Callable[[OpenRequest], OpenRequest]) -> Edit:
    return lambda said: change(OpenRequest.decode(said.body)).encode()


def _switched(request: OpenRequest) -> OpenRequest:
    gone = request.survivors[-1]
    return replace(request, survivors=request.survivors[:-1], dropped=(*request.dropped, gone))


def _both_kinds(request: OpenRequest) -> OpenRequest:
    return replace(request, dropped=(*request.dropped, request.survivors[-1]))


def _evidence(change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> Edit:
    return _asked(lambda request: replace(request, evidence=change(request.evidence)))


def _without(request: OpenRequest, stage: Stage) -> OpenRequest:
    return replace(request, evidence=request.evidence[: stage.round_plan.shares_needed - 1])


def _too_few_signed(said: Spoken) -> bytes:
    return _without(OpenRequest.decode(said.body), said.stage).encode()


def _pool_for_head(said: Spoken) -> bytes:
    """A client's block of a pool in place of its block of counts."""
    request, sender = OpenRequest.decode(said.body), said.stage.names[0]
    uploads = (data for who, _, data in said.stage.said if who == sender)
    upload = next(data for data in uploads if route(data).phase == Phase.UPLOAD)
    return replace(request, evidence=(bytes(unframe(upload)[1]), *request.evidence[1:])).encode()


# APPLY: sums


def _one_more(said: Spoken) -> bytes:
    sums = unframe(said.body)
    return frames([*sums, sums[-1]])


def _few_to_authority(said: Spoken) -> bytes:
    request, needed = OpenRequest.decode(said.body), said.stage.round_plan.shares_needed
    signed = frames(unframe(request.evidence[1])[: needed - 1])
    evidence = (request.evidence[0], signed, *request.evidence[2:])
    return replace(request, evidence=evidence).encode()


def _held_to_authority(said: Spoken) -> bytes:
    request = OpenRequest.decode(said.body)
    return replace(request, evidence=(*request.evidence[:-1], _closed(said.stage))).encode()


def _closed_for_open(said: Spoken) -> bytes:
    """The sum of a block that stays closed, as the server holds it, in place of one that opens."""
    return frames([*unframe(said.body)[:-1], _closed(said.stage)])


def _closed(stage: Stage) -> bytes:
    """The sum of a block that stays closed, its masks still in it; the server gives it out once."""
    one = stage.attempt.sums[0]
    opened = one.plan.shape.after_counts(one.passing)
    closed = [block for block in range(1, one.plan.shape.blocks) if block not in opened]
    if not closed:
        remedy = "nothing: the other lies are told all the same"
        raise AuditError("no pool stays closed", "pools", one.passing, remedy)
    return one._adder.finish(closed[-1])


def _no_claims(_: Spoken) -> bytes:
    return frames([])


@dataclass(frozen=True)
class Act:
    """Lies that are told in place of one message.

    Attributes:
        phase, chunk: of the message.
        lies: by name.
        counted: lies that there are only where pools are counted and one of them stays closed.
        by_clients: lies that there are only where clients prove counts and open sums themselves.
        to_authority: whether an authority is lied to, where there is one.
    """

    phase: Phase
    chunk: int
    lies: Mapping[str, Edit]
    counted: tuple[str, ...] = ()
    by_clients: tuple[str, ...] = ()
    to_authority: bool = False

    def tell(self, scene: Scene) -> Iterator[Told]:
        """Each to another client; a new stage where there are more lies than clients."""
        names, readers = self._apply(scene), 1 if self.to_authority else scene.clients
        for start in range(0, len(names), readers):
            stage = Stage(scene)
            held = stage.stop(self.phase, self.chunk, to_authority=self.to_authority)
            parties = [stage.authority] if self.to_authority else stage.clients
            pairs = zip(names[start : start + readers], parties, strict=False)
            for at, (name, reader) in enumerate(pairs):
                if reader is None or reader.name not in held:
                    yield Told(name, "not told", told=False)
                    continue
                body = self.lies[name](Spoken(stage, at, body_of(held[reader.name])))
                data = stage.resigned(held[reader.name], lambda _, body=body: body)  # type: ignore[misc]
                answered = stage.answers(reader, data)
                yield Told(name, answered.word, of_the_sum(answered.sent))

    def _apply(self, scene: Scene) -> list[str]:
        if self.to_authority and not by_authority(scene):
            return []
        left = () if scene.hides_a_pool else self.counted
        left += self.by_clients if by_authority(scene) else ()
        return [name for name in self.lies if name not in left]


def by_authority(scene: Scene) -> bool:
    """Whether an authority opens the sums."""
    security = scene.config.security
    return security.protection == "bfv+masked" and security.key_holder == "authority"


def of_the_sum(sent: tuple[bytes, ...]) -> int:
    """Answers that go on with the sum."""
    return sum(route(each).phase < Phase.HELLO for each in sent)


ACTS = (
    Act(
        Phase.ADVERTISE,
        0,
        {
            "truncated cohort: two clients": _two,
            "truncated cohort: one below the minimum": _one_too_few,
            "keys without the reader's own": _without_reader,
            "keys with a forged signature": _forged_keys,
            "a colluder's key of low order": _low_order,
        },
    ),
    Act(
        Phase.SHARE,
        1,
        {
            "dealers without the reader": _dealers_without_reader,
            "truncated cohort: two dealers": _two_dealers,
        },
    ),
    Act(
        Phase.AGREE,
        0,
        {
            "truncated cohort: two survivors": _two_survivors,
            "survivors without the reader": _survivors_without_reader,
            "survivors of another view": _other_view,
        },
    ),
    Act(
        Phase.OPEN_COUNTS,
        0,
        {
            "survivor set switched at the counts": _asked(_switched),
            "both kinds of shares at the counts": _asked(_both_kinds),
            "too few signatures": _too_few_signed,
            "no signature": _evidence(lambda _: ()),
            "a forged signature": _evidence(lambda s: (flip(s[0], -1 - 66), *s[1:])),
            "one signature many times": _evidence(lambda signed: signed[:1] * len(signed)),
        },
    ),
    Act(
        Phase.OPEN_POOLS,
        0,
        {
            "survivor set switched at the pools": _asked(_switched),
            "both kinds of shares at the pools": _asked(_both_kinds),
            "claimed counts: the server's word": _evidence(lambda _: (b"counts",)),
            "claimed counts: no proof": _evidence(lambda _: ()),
            "claimed counts: a head twice": _evidence(lambda p: (p[1], *p[1:])),
            "claimed counts: a head changed": _evidence(lambda p: (flip(p[0], -1), *p[1:])),
            "claimed counts: a seed changed": _evidence(lambda p: (*p[:-2], flip(p[-2], 3), p[-1])),
            "claimed counts: a pool's block": _pool_for_head,
        },
        by_clients=(
            "claimed counts: a head twice",
            "claimed counts: a seed changed",
            "claimed counts: a pool's block",
        ),
    ),
    Act(
        Phase.APPLY,
        0,
        {"one pool more": _one_more, "a closed pool's sum for an open one's": _closed_for_open},
        counted=("a closed pool's sum for an open one's",),
        by_clients=("one pool more", "a closed pool's sum for an open one's"),
    ),
    Act(
        Phase.APPLY,
        1,
        {"what others signed kept back": _no_claims},
        by_clients=("what others signed kept back",),
    ),
    Act(
        Phase.OPEN_COUNTS,
        0,
        {
            "to the authority: another view": _asked(lambda r: replace(r, view=bytes(32))),
            "to the authority: no signature": _evidence(lambda e: (e[0], frames([]), *e[2:])),
            "to the authority: too few signatures": _few_to_authority,
            "to the authority: claimed counts": _evidence(lambda e: (*e[:2], e[3], *e[3:])),
            "to the authority: no proof of counts": _evidence(lambda e: e[:2]),
            "to the authority: keys kept back": _evidence(
                lambda e: (frames(unframe(e[0])[:-1]), *e[1:])
            ),
        },
        to_authority=True,
    ),
    Act(
        Phase.OPEN_POOLS,
        0,
        {
            "to the authority: one pool more": _evidence(lambda sums: (*sums, sums[-1])),
            "to the authority: a set switched": _asked(lambda r: replace(r, view=bytes(32))),
            "to the authority: a sum still masked": _held_to_authority,
        },
        counted=("to the authority: a sum still masked",),
        to_authority=True,
    ),
)
"""Every lie that replaces one message."""
