"""Members of a pool: what all but one learn of the last one, and whether the minimum is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add

import torch
from torch import Tensor

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.poisoner import OFF, ON, Room, honest_updates
from secure_fl.audit.checks.scene import Scene, made_up, why_not
from secure_fl.audit.checks.stage import Stage
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.subject import Subject
from secure_fl.crypto.envelope import Phase
from secure_fl.errors import ConfigError
from secure_fl.privacy.claims import Adversary
from secure_fl.privacy.client_level import ClientLevel
from secure_fl.privacy.noise import NoiseSource
from secure_fl.secure_sum.grid import Blocks

_MOST = {Depth.MINUTES: 16, Depth.HOUR: 32, Depth.NIGHT: 64}
_FEWEST = 3


@dataclass(frozen=True)
class PoolMate:
    """Opened sums less what colluders put in, and pools that are a member short of the minimum.

    **Guarantee**: `broken` where a pool below `min_pool_clients` opens between real parties, where
    the rule of opening lets one pass whose count lacks a step, noised or not, or where a minimum
    below 3 is accepted.

    **Not covered**: m − 1 colluders in a pool of m: without client-level noise they have the last
    one's update, as the claims say; the figures show how exactly.
    """

    name: str = "pool-mate"
    tried: str = "whether fewer than min_pool_clients open a pool, and what mates learn of the last"

    def refused(self, subject: Subject) -> str:
        if not subject.config.pools.enabled:
            return "there are no pools"
        return why_not(subject)

    def estimate(self, subject: Subject, depth: Depth) -> float:
        return 0.2 + 0.05 * min(_MOST[depth], subject.config.partition.clients)

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        config = subject.config
        below = _opened_below(subject, _MOST[depth], seed)
        progress(0.6)
        early = _passed_early(subject, _MOST[depth])
        accepted = [least for least in range(_FEWEST) if _accepts(config.security, least)]
        figures = [
            Figure("fields of pools below the minimum that were opened", float(below), limit=0.0),
            Figure("pools that pass by a count below the minimum's", float(early), limit=0.0),
            Figure("minimums below 3 that settings take", float(len(accepted)), limit=0.0),
            *_learned(Room.of(subject), config.security.min_pool_clients, seed),
        ]
        outcome = partial(Outcome, self.name, self.tried, Adversary.MODEL, "client")
        return outcome(
            "broken" if below or early or accepted else "held",
            _said(below, early, accepted, config.security.min_pool_clients),
            figures=tuple(figures),
        )


def _opened_below(subject: Subject, most: int, seed: int) -> int:
    """Fields that open of a pool with one member less than the run's minimum."""
    scene, least = Scene.of(subject, most), subject.config.security.min_pool_clients
    if not scene.hides_a_pool:
        return 0
    last, few = scene.form.shape.pools - 1, scene.clients - (least - 1)

    def chosen(client: int, _: int) -> int:
        return last if client >= few else 0

    stage = Stage(scene, made_up(scene, chosen, seed))
    stage.run()
    states = [client.state for client in stage.clients if client.state is not None]
    return max((int((each.tensors["pools"][last] != 0).sum()) for each in states), default=0)


def _passed_early(subject: Subject, most: int) -> int:
    """Pools that the opening's rule lets pass by a count that lacks the smallest step of the
    minimum's: on noised counts, which have many steps a member, half a member less shows here.
    """
    stage = Stage(Scene.of(subject, most))
    if not stage.stop(Phase.ADVERTISE) or not stage.round_plan.shape.counted:
        return 0
    plan, room, passed = stage.round_plan, Room.of(subject), set[int]()
    sent, level = room.summand(honest_updates(room, 0, 1)[0], 0), room.updates.level
    lacking = subject.config.security.min_pool_clients * int(sent.head[0]) - 1
    for pool in range(plan.shape.pools):
        head = torch.zeros(plan.shape.head_fields, dtype=torch.int64)
        head[pool] = lacking
        for survivors in range(plan.survivors_needed, len(plan.cohort) + 1):
            passed |= set(plan.passing(head.numpy(), survivors))
        if level is not None:
            passed |= set(level.open_head(head, level.n_min).passing.nonzero().flatten().tolist())
    return len(passed)


def _accepts(security: object, least: int) -> bool:
    kind = type(security)
    try:
        kind.model_validate({"min_pool_clients": least})  # type: ignore[attr-defined]
    except (ConfigError, ValueError):
        return False
    return True


def _learned(room: Room, members: int, seed: int) -> Iterator[Figure]:
    """Cosines between the last member's update and an opened sum less the colluders' own."""
    off = replace(room, updates=replace(room.updates, level=None))
    for setting, one in ((OFF, off), (ON, _with_noise(room, members))):
        full = 10 if setting == ON else 1  # at client level as long as the clip, else uncut
        updates = [full * each for each in honest_updates(one, seed, members)]
        sent = [_sent(one, update) for update in updates]
        others = [_sent(one, torch.zeros_like(updates[0])) for _ in range(one.clients - members)]
        total = reduce(add, [*sent, *others]).pools[0]
        for colluding in sorted({1, members - 1}):
            known = sum(each.pools[0] for each in sent[1 : 1 + colluding])
            found = _cosine(total - known, updates[0])
            name = (
                f"cosine of what {colluding} of {members} in a pool make out with the last one's "
                "update"
            )
            yield Figure(name, found, chance=0.0, setting=setting)


def _with_noise(room: Room, members: int) -> Room:
    """The run's own client-level noise; where it has none, noise of a multiplier of 1."""
    if room.updates.level is not None:
        return room
    bound, clients = room.limit, max(room.clients, members + 1)
    width = room.updates.grid.pooled
    level = ClientLevel(1, width, bound, 1 << 12, 1.0, clients, clients, minimum=members)
    return replace(room, clients=clients, updates=replace(room.updates, level=level))


def _sent(room: Room, update: Tensor) -> Blocks:
    blocks, level = room.summand(update, 0), room.updates.level
    if level is None:
        return blocks
    stream = NoiseSource.fresh().stream(client=0, round=0, purpose="audit of a pool mate")
    return level.noised(blocks, stream)


def _cosine(one: Tensor, other: Tensor) -> float:
    left, right = one.double(), other.double()
    return float(left @ right / (left.norm() * right.norm()).clamp_min(1e-30))


def _said(below: int, early: int, accepted: list[int], least: int) -> str:
    if below:
        return f"a pool of {least - 1} opened, below min_pool_clients = {least}"
    if early:
        return f"{early} pools pass by a count below that of min_pool_clients = {least}"
    if accepted:
        return f"settings take min_pool_clients = {accepted}: of two, each reads the other"
    return (
        f"a pool of {least - 1} stays closed below min_pool_clients = {least}, and no smaller "
        "minimum than 3 is taken; what mates learn in an open pool is in the figures"
    )


POOL_MATE = PoolMate()
