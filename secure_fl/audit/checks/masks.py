"""What a server holds of one round: residues that say nothing about what was put into them.

Two rounds are played whose sums are equal and whose summands are not. Uploads are taken apart as
far as the key reaches, which the auditor of a simulation has, and compared with what was put in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chisquare, norm

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.scene import Scene, made_up, why_not
from secure_fl.audit.checks.sources import Drawn, watched
from secure_fl.audit.checks.stage import Stage
from secure_fl.audit.derivations import mask_words
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.subject import Subject
from secure_fl.audit.which_rounds import spread
from secure_fl.crypto.envelope import Phase, body_of
from secure_fl.crypto.key_streams import WORDS, Slots
from secure_fl.federation.wire import route
from secure_fl.privacy.claims import Adversary
from secure_fl.secure_sum.block_codec import Adder, from_bytes, server_cipher
from secure_fl.secure_sum.framing import unframe
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.plan import RoundPlan

_ALARM = 1e-3
_BINS = 64
_WIDTH = 9000
_WORDS = 8
"""Of each mask that are made a second time, from its seeds."""
_MOST = {Depth.MINUTES: 8, Depth.HOUR: 16, Depth.NIGHT: 48}
_PAIRS = {Depth.MINUTES: 3, Depth.HOUR: 8, Depth.NIGHT: 24}
"""Of neighbouring rounds, over the whole run, the last two among them."""
Held = dict[tuple[int, int], list[Slots]]
"""By round of a pair and client: the slots of each block, under their masks."""


@dataclass(frozen=True)
class _Seen:
    """What is seen of the residues of two rounds, or of several pairs together.

    Attributes:
        otherwise: whether what lies over a block is not the streams of its seeds.
        equal: slots that are what was put in, or whose mask is that of another round.
        lowest: smallest p of a chi-square test of uniformity.
        correlation: largest |z| of a correlation with what was put in.
        tests: how many there were.
        residues: that were looked at.
    """

    equal: int = 0
    lowest: float = 1.0
    correlation: float = 0.0
    tests: int = 0
    residues: int = 0
    otherwise: bool = False

    def __or__(self, other: _Seen) -> _Seen:
        return _Seen(
            self.equal + other.equal,
            min(self.lowest, other.lowest),
            max(self.correlation, other.correlation),
            self.tests + other.tests,
            self.residues + other.residues,
            self.otherwise or other.otherwise,
        )

    @property
    def shows(self) -> bool:
        """Whether anything of the inputs shows, with a false alarm below 1e-3."""
        level = _ALARM / (2 * max(1, self.tests))
        seen = bool(self.equal) or self.otherwise
        return seen or self.lowest < level or self.correlation > norm.isf(level / 2)


@dataclass(frozen=True)
class Masks:
    """Uniformity, equality and correlation of masked residues.

    **Guarantee**: no mask at all, one that comes again, and one that covers a part of a block only,
    are each found; an honest run is called broken with probability 1e-3 at the most.

    **Not covered**: whether AES-CTR and X25519 are what they are taken for.
    """

    name: str = "masks"
    tried: str = (
        "whether what the server holds of a round tells apart two rounds with equal sums, or shows "
        "anything of what was put in"
    )

    def refused(self, subject: Subject) -> str:
        return why_not(subject)

    def estimate(self, subject: Subject, depth: Depth) -> float:
        return 0.15 * _PAIRS[depth] * min(_MOST[depth], subject.config.partition.clients)

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        scene = Scene.of(subject, _MOST[depth], _WIDTH)
        outcome = partial(Outcome, self.name, self.tried, Adversary.SERVER, "")
        seen, under = _Seen(), ""
        firsts = spread(scene.rounds, _PAIRS[depth], seed, length=2)
        for done, first in enumerate(firsts):
            base = made_up(scene, scene.alone, seed + done)
            stage = Stage(scene, partial(_turned, base, scene.clients), rounds=2, first=first)
            with watched() as drawn:
                stage.run()
            if not stage.plans:
                return outcome("not tried", f"no round begins: {stage.server.failed}")
            held, put_in = _held(stage)
            seen |= _compared(held, put_in, stage.plans[0])
            seen |= _Seen(otherwise=_otherwise(stage, held, put_in, drawn))
            under = f"{stage.plans[0].shape.blocks} blocks ({stage.plans[0].protection})"
            progress((done + 1) / len(firsts))
        if not seen.tests:
            return outcome("not tried", "no round comes to its uploads")
        return outcome(
            "broken" if seen.shows else "held",
            _said(seen, f"{seen.residues} residues of {under}"),
            false_alarm=_ALARM,
            figures=_figures(seen),
        )


def _turned(base: Callable[[int, int], Blocks], clients: int, client: int, number: int) -> Blocks:
    """In each round every client sends what the next one sent before: the sums stay."""
    return base((client + number) % clients, 0)


def _held(stage: Stage) -> tuple[Held, Held]:
    """Uploads as the server got them, without encryption, and what was put into each."""
    uploads = {
        (route(data).round - stage.first, sender): data
        for sender, _, data in stage.said
        if sender in stage.names and route(data).phase == Phase.UPLOAD
    }
    plan, found, put_in = stage.plans[0], Held(), Held()
    for (number, sender), data in sorted(uploads.items()):
        bodies = [body_of(bytes(part)) for part in unframe(data)]
        slots = [_slots(stage, plan, block, body) for block, body in enumerate(bodies)]
        client = stage.names.index(sender)
        found[number, client] = slots
        put_in[number, client] = _packed(plan, stage.given(client, stage.first + number))
    return found, put_in


def _slots(stage: Stage, plan: RoundPlan, block: int, body: bytes) -> Slots:
    if not plan.encrypted:
        return from_bytes(body, plan.numbers(block))
    adder = Adder(plan, server_cipher(plan))
    adder.add(block, adder.read(block, body))
    [holder] = stage.shared._holders.values()
    assert holder is not None
    return holder.decrypt(adder.finish(block), plan.numbers(block), cut=plan.cut(block))


def _packed(plan: RoundPlan, blocks: Blocks) -> list[Slots]:
    """What a client put in, as it lies in the slots before it is masked."""
    vector, shape = blocks.vector, plan.shape
    found = []
    for block in range(shape.blocks):
        slots = np.zeros(plan.numbers(block), np.uint64)
        packed = plan.layout.pack(vector.block(shape, block))
        slots[: len(packed)] = packed
        found.append(slots)
    return found


def _otherwise(stage: Stage, held: Held, put_in: Held, drawn: Drawn) -> bool:
    """Whether some block's mask is not the streams of its seeds, by the protocol's text."""
    modulus = stage.plans[0].layout.modulus
    for one in drawn.masked:
        at = one.round - stage.first, stage.names.index(one.client)
        if at not in held:
            continue
        over = _less(held[at][one.block], put_in[at][one.block], modulus)[:_WORDS]
        streams = [mask_words(seed, len(over), modulus) for seed, _ in one.terms]
        signs = [sign for _, sign in one.terms]
        for found, words in zip(over.tolist(), zip(*streams, strict=True), strict=False):
            if None in words:
                continue
            total = sum(sign * (word or 0) for sign, word in zip(signs, words, strict=True))
            if found != total % modulus:
                return True
    return False


def _compared(held: Held, put_in: Held, plan: RoundPlan) -> _Seen:
    modulus = plan.layout.modulus
    first, second = (
        {client: slots for (at, client), slots in held.items() if at == number} for number in (0, 1)
    )
    equal = sum(
        int((slots == put_in[key][block]).sum())
        for key, blocks in held.items()
        for block, slots in enumerate(blocks)
    )
    for client in first.keys() & second.keys():
        for block, (one, other) in enumerate(zip(first[client], second[client], strict=True)):
            mine, its = put_in[0, client][block], put_in[1, client][block]
            left = _less(one, mine, modulus), _less(other, its, modulus)
            equal += int((left[0] == left[1]).sum())
    tests = list(_tests(first, second, put_in, plan))
    ps = [p for p, _ in tests]
    residues = sum(len(slots) for blocks in held.values() for slots in blocks)
    farthest = max((z for _, z in tests), default=0.0)
    return _Seen(equal, min(ps, default=1.0), farthest, len(tests), residues)


def _tests(
    first: dict[int, list[Slots]],
    second: dict[int, list[Slots]],
    put_in: Held,
    plan: RoundPlan,
) -> Iterator[tuple[float, float]]:
    """(p of uniformity, |z| of a correlation) of each block: alone, from round to round, and in
    the sum that stays closed.
    """
    modulus = plan.layout.modulus
    for block in range(plan.shape.blocks):
        truth = np.concatenate([_turns(put_in[0, each][block], modulus) for each in sorted(first)])
        mine = np.concatenate([first[each][block] for each in sorted(first)])
        yield from _of(mine, truth, modulus)
        both = sorted(first.keys() & second.keys())
        if both and len(both) == len(first):
            theirs = np.concatenate([second[each][block] for each in both])
            later = [_turns(put_in[1, each][block], modulus) for each in both]
            yield from _of(_less(theirs, mine, modulus), np.concatenate(later) - truth, modulus)


def _of(slots: Slots, truth: NDArray[np.float64], modulus: int) -> Iterator[tuple[float, float]]:
    if len(slots) < 20 * _BINS:
        return
    turns = _turns(slots, modulus)
    high = np.bincount(((turns + 0.5) * _BINS).astype(int).clip(0, _BINS - 1), minlength=_BINS)
    low = np.bincount((slots % np.uint64(_BINS)).astype(int), minlength=_BINS)
    moved, found = truth - truth.mean(), turns - turns.mean()
    spread = sqrt(float((moved @ moved) * (found @ found)))
    z = abs(float(moved @ found)) * sqrt(len(slots)) / spread if spread else 0.0
    for counts in (high, low):
        yield float(chisquare(counts).pvalue), z


def _turns(slots: Slots, modulus: int) -> NDArray[np.float64]:
    """Residues as parts of a turn, [-0.5, 0.5)."""
    found: NDArray[np.float64] = (slots.astype(np.float64) / float(modulus) + 0.5) % 1.0 - 0.5
    return found


def _less(one: Slots, other: Slots, modulus: int) -> Slots:
    """A difference of residues."""
    if modulus == WORDS:
        return one - other
    return (one + np.uint64(modulus) - other) % np.uint64(modulus)


def _figures(seen: _Seen) -> tuple[Figure, ...]:
    level = _ALARM / (2 * seen.tests)
    return (
        Figure(
            "slots that show what was put in, or a mask that came before",
            float(seen.equal),
            limit=0.0,
        ),
        Figure(
            "smallest p of uniform residues (the limit is from below)", seen.lowest, limit=level
        ),
        Figure(
            "largest correlation with what was put in, in standard errors",
            seen.correlation,
            limit=float(norm.isf(level / 2)),
        ),
    )


def _said(seen: _Seen, under: str) -> str:
    if seen.otherwise:
        return f"{under}: a mask is not what the whole of its seeds gives"
    if seen.shows:
        return (
            f"{under} show what was put in: {seen.equal} slots are it, or repeat a mask; smallest "
            f"p {seen.lowest:.1e}, correlation {seen.correlation:.1f} standard errors"
        )
    return (
        f"{under} are uniform and uncorrelated with what was put in, also from one round to "
        "another with equal sums"
    )


MASKS = Masks()
