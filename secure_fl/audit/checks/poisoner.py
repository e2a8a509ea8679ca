"""Clients that lie in their updates: how far one moves a model, and two capture a pool.

Updates become integers, are summed and divided as the run does it, on the run's own grid, with
fewer coordinates. Robust sums after Yin et al., ICML 2018; capture of clusters after the discussion
of IFCA's assignment in Ghosh et al., NeurIPS 2020 (arXiv 2006.04088).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add

import torch
from torch import Tensor

from secure_fl.audit.check import Depth
from secure_fl.audit.checks.scene import Scene
from secure_fl.audit.checks.stage import Stage
from secure_fl.audit.outcome import Figure, Outcome
from secure_fl.audit.subject import Subject
from secure_fl.federation.factory.grouping import Grouping
from secure_fl.federation.factory.updates import Updates
from secure_fl.federation.summing import Summed
from secure_fl.privacy.noise import NoiseSource
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.robust import draw_groups

_WIDTH = 32
_ROUNDS = {Depth.MINUTES: 12, Depth.HOUR: 30, Depth.NIGHT: 60}
_SLACK = 1e-6
OFF, ON = "defence off", "defence on"


@dataclass(frozen=True)
class Room:
    """How the run sums updates of one of its steps, with fewer coordinates.

    Attributes:
        updates: the run's.
        clients: in a round.
        grouping: by which sums are robust; None where they are not.
    """

    updates: Updates
    clients: int
    grouping: Grouping | None = None

    @classmethod
    def of(cls, subject: Subject) -> Room:
        """Of the run's pools, or of its pre-training where there are none."""
        config, facts = subject.config, subject.factory.facts
        name = "cluster" if config.pools.enabled else "pretrain"
        settings = config.pools if config.pools.enabled else config.pretrain
        updates = Updates.of(subject.factory, name, config.security.min_pool_clients)
        grid = replace(updates.grid, pooled=_WIDTH, shared=0, wide=(), weighted=False)
        level = updates.level and replace(updates.level, pooled=_WIDTH, shared=0)
        narrow = replace(updates, grid=grid, level=level, grouping=None, compared=False)
        return cls(narrow, settings.cohort_size(facts.clients))

    @property
    def limit(self) -> float:
        """The most that a client's coordinate, or at client level its update's norm, may be."""
        return self.updates.grid.limit if self.updates.level is None else self.updates.level.bound

    @property
    def pools(self) -> int:
        """K."""
        return self.updates.grid.pools

    def summand(self, update: Tensor, pool: int) -> Blocks:
        """A client's integers, without noise, as its own code makes them."""
        level = self.updates.level
        if level is None:
            return self.updates.grid.blocks(update, pool)
        stream = NoiseSource.fresh().stream(client=0, round=0, purpose="audit")
        inside = None if level.bit_noise is None else True
        return level.blocks(level.encode(update, stream=stream), pool, inside=inside)

    def lie(self, pool: int, towards: Tensor) -> Blocks:
        """What a client writes that leaves its clamp out: as much as still opens, in the direction
        of signs `[W]`.
        """
        level = self.updates.level
        size = self.clients if self.grouping is None else self.grouping.size
        bound = self.updates.grid.codec.bound if level is None else level.largest_fields[0]
        made = self.summand(torch.zeros(_WIDTH), pool)
        made.pools[pool] = (towards.sign() * (size - 1) * bound).long()
        return made

    def moved(self, blocks: Sequence[Blocks]) -> Tensor:
        """How the pools move by these clients' integers, float64 `[K, W]`."""
        if self.grouping is None:
            total = reduce(add, blocks)
            return self.updates.moved(Summed(total, len(blocks)), None).pooled
        names = [str(number) for number in range(len(blocks))]
        groups = draw_groups(names, self.grouping.size, b"audit")
        sums = [
            Summed(reduce(add, [blocks[int(name)] for name in group]), len(group))
            for group in groups
        ]
        return self.grouping.means(self.updates.grid, sums, self.updates.minimum)[1]

    def robust(self, config_size: int | None) -> Room | None:
        """The same with sums over groups; None where there is none of them."""
        size = config_size or max(2, self.updates.minimum * self.pools)
        clients = max(self.clients, 5 * size)
        if self.updates.level is not None:
            return None
        return replace(self, grouping=Grouping("median", size, 1), clients=clients)


@dataclass(frozen=True)
class Poisoner:
    """An over-norm client, one that leaves its clamp out, and one or two that capture a pool.

    **Guarantee**: `broken` where an update that goes through the run's own code moves a mean by
    more than a client's share of the clamp (or clip), or where a sum opens that is beyond all
    clamps, or in which a client counted itself twice.

    **Not covered**: what a client does within its clamp, or without its code: reported as figures,
    since nobody can check a client's vector under encryption, and the claims say so.
    """

    name: str = "poisoner"
    tried: str = "how far one client moves a model, and whether beyond its share of the clamp"

    def refused(self, subject: Subject) -> str:
        config = subject.config
        trained = config.pools.enabled or config.pretrain.trains
        return "" if trained else "no updates of models are summed"

    def estimate(self, subject: Subject, depth: Depth) -> float:
        return 0.5 + 0.03 * _ROUNDS[depth]

    def run(
        self, subject: Subject, depth: Depth, seed: int, progress: Callable[[float], None]
    ) -> Outcome:
        room = Room.of(subject)
        share = _over_norm(room, seed)
        progress(0.3)
        opened = _beyond(subject)
        progress(0.6)
        config = subject.config.security
        robust = room.robust(config.group_size if config.robust != "none" else None)
        figures = [share, *_unclamped(room, robust, seed)]
        figures += _captured(room, robust, _ROUNDS[depth], seed)
        over = share.limit is not None and share.value > share.limit * (1 + _SLACK)
        outcome = partial(Outcome, self.name, self.tried, "a client that lies", "")
        return outcome(
            "broken" if over or opened else "held",
            _said(share, over, opened),
            figures=tuple(figures),
        )


def honest_updates(room: Room, seed: int, clients: int) -> list[Tensor]:
    """Small made-up updates, a tenth of what is allowed."""
    drawn = torch.Generator().manual_seed(seed)
    scale = room.limit / 10 / (_WIDTH**0.5 if room.updates.level is not None else 1.0)
    return [scale * torch.randn(_WIDTH, generator=drawn) for _ in range(clients)]


def _over_norm(room: Room, seed: int) -> Figure:
    """The mean with a client of a million times the limit, less that with zeros in its place."""
    updates = honest_updates(room, seed, room.clients)
    huge = 1e6 * room.limit * torch.ones(_WIDTH)
    blocks = [room.summand(each, 0) for each in updates[1:]]
    zero = room.summand(torch.zeros(_WIDTH), 0)
    moved = (room.moved([room.summand(huge, 0), *blocks]) - room.moved([zero, *blocks]))[0]
    level = room.updates.level
    found = float(moved.abs().max()) if level is None else float(moved.norm())
    what = "coordinate" if level is None else "norm"
    name = f"{what} of the mean that an over-norm client moves, through the run's own clamp"
    return Figure(name, found, limit=room.limit / room.clients, setting=OFF)


def _beyond(subject: Subject) -> list[str]:
    """What opens, between real parties, of one client that lies: a number beyond all clamps; and,
    where counts are exact, any number of one that counts itself twice.
    """
    if subject.config.security.protection == "plain":
        return []  # nothing is checked, and the claims say so
    scene = Scene.of(subject, 6, 4)
    opening, shape = scene.form.opening, scene.form.shape
    only_counts = shape.counted and shape.head_fields == shape.pools
    beyond = scene.clients * opening.bound + opening.margin + 1
    tries = {"a sum beyond all clamps": (1, beyond)}
    if only_counts and opening.head_bound == opening.count_unit and not opening.margin:
        tries["the update of a client that counted itself twice"] = (2, 1)
    return [said for said, (units, number) in tries.items() if _opens(scene, units, number)]


def _opens(scene: Scene, units: int, number: int) -> bool:
    """Whether a number of the first client, which counts itself so often, comes into a state."""
    opening, shape = scene.form.opening, scene.form.shape

    def vector(client: int, _: int) -> Blocks:
        head = torch.zeros(shape.head_fields, dtype=torch.int64)
        # one is elsewhere, so that no count alone is larger than clients are many
        place = shape.pools - 1 if client == 1 else 0
        if shape.counted:
            head[place] = opening.count_unit * (1 if client else units)
        pools = torch.zeros(shape.pools, shape.width, dtype=torch.int64)
        pools[0, 0] = 0 if client else number
        return Blocks(head, torch.zeros(shape.shared, dtype=torch.int64), pools)

    stage = Stage(scene, vector)
    stage.run()
    states = [client.state for client in stage.clients if client.state is not None]
    return any(bool(state.tensors["pools"].abs().max() >= number) for state in states)


def _unclamped(room: Room, robust: Room | None, seed: int) -> list[Figure]:
    """What a client moves that writes into its fields whatever still opens."""
    found = []
    for each, setting in ((room, OFF), (robust, ON)):
        if each is None:
            continue
        updates = honest_updates(each, seed, each.clients)
        blocks = [each.summand(update, 0) for update in updates]
        honest = each.moved(blocks)[0]
        blocks[0] = each.lie(0, torch.ones(_WIDTH))
        moved = float((each.moved(blocks)[0] - honest).abs().max())
        name = "coordinate of the mean that a client moves that leaves its clamp out, in clamps"
        found.append(Figure(name, moved / each.limit, setting=setting))
    return found


def _captured(room: Room, robust: Room | None, rounds: int, seed: int) -> list[Figure]:
    """The share of honest clients in one pool after some rounds, with up to two who capture it."""
    if room.pools < 2:
        return []
    found = []
    for each, setting in ((room, OFF), (robust, ON)):
        for pulling in range(3) if each is not None else ():
            assert each is not None
            if pulling < each.clients // 2:
                share = _occupancy(each, pulling, rounds, seed)
                who = f"{pulling} of {each.clients} clients shove others away"
                name = f"share of honest clients in the captured pool, {who}"
                found.append(Figure(name, share, chance=1 / room.pools, setting=setting))
    return found


def _occupancy(room: Room, pulling: int, rounds: int, seed: int) -> float:
    """Clients want points around K places, and choose the nearest pool. Who captures the first
    pool goes into another one, and shoves that away, so that its members come.
    """
    drawn = torch.Generator().manual_seed(seed)
    scale, honest = room.limit, room.clients - pulling
    places = 3 * scale * torch.randn(room.pools, _WIDTH, generator=drawn)
    spread = 0.3 * scale * torch.randn(honest, _WIDTH, generator=drawn)
    wants = places[torch.arange(honest) % room.pools] + spread
    pools = (places + 0.5 * scale * torch.randn(room.pools, _WIDTH, generator=drawn)).double()
    for _ in range(rounds):
        choices = torch.cdist(wants.double(), pools).argmin(1)
        blocks = [
            room.summand(0.3 * (want - pools[int(pool)].float()), int(pool))
            for want, pool in zip(wants, choices, strict=True)
        ]
        for number in range(pulling):
            shoved = 1 + number % (room.pools - 1)
            blocks.append(room.lie(shoved, (pools[shoved] - wants.double().mean(0))))
        pools = pools + room.moved(blocks)
    return float((torch.cdist(wants.double(), pools).argmin(1) == 0).double().mean())


def _said(share: Figure, over: bool, opened: Sequence[str]) -> str:
    if over:
        return f"an over-norm client moves the mean by {share.value:.3g}, not {share.limit:.3g}"
    if opened:
        return f"{' and '.join(opened)} was opened"
    return (
        f"an over-norm client moves the mean by {share.value:.3g} of at most {share.limit:.3g}; "
        "sums beyond all clamps, and of clients that count twice, stay closed; what a client does "
        "without the run's code, see figures"
    )


POISONER = Poisoner()
