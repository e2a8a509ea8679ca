"""The game of membership: in every slot a coin decides which of two examples a client trains on;
what it releases is scored; then the coins are opened.

Both examples of a slot are candidates whatever the coin says, so that members and others differ by
coins alone, not in how they were drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from secure_fl.audit.attacks.likelihoods import decoded, lira, rmia
from secure_fl.audit.attacks.membership_figures import LOSS, Looked, log_odds
from secure_fl.audit.attacks.membership_gradients import Directions
from secure_fl.audit.attacks.membership_replay import Moved, Phase, Replay
from secure_fl.audit.attacks.rates import Scores
from secure_fl.audit.game import Coins
from secure_fl.data.dataset import Dataset
from secure_fl.data.joining import join
from secure_fl.data.partitions import ClientData
from secure_fl.pools.pool_set import PoolModel
from secure_fl.seeds import derive_seed

MODELS: Mapping[Phase, str] = {"pretrain": "encoder", "cluster": "pool model"}
DECODED = "update decoding"
_POPULATION = 200


@dataclass(frozen=True)
class Slots:
    """Pairs of candidates, one of each to be trained on.

    Attributes:
        first, second: the candidates `[k]` of either side.
        always: examples that are trained on whatever the coins say.
        others: examples that no model is trained on; the candidates where there are none.
    """

    first: Dataset = field(repr=False)
    second: Dataset = field(repr=False)
    always: Dataset = field(repr=False)
    others: Dataset = field(repr=False)

    @classmethod
    def of(cls, client: ClientData, most: int, seed: int, among: int | None = None) -> Self:
        """A client's training examples against its test examples, at most so many slots; `among` so
        many of the training examples, all by default, where a large client's would take too long.
        """
        train, test = client.train, client.test
        test = test if train.labelled else test.unlabelled()
        usable = (train.y >= 0) | torch.tensor(not train.labelled)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        order = torch.cat([order[usable[order]], order[~usable[order]]])
        known = set(_bytes(train.x))
        fresh = torch.tensor([each not in known for each in _bytes(test.x)], dtype=torch.bool)
        test = test.take(fresh)
        count = min(int(usable.sum()), len(test), most)
        first, second = train.take(order[:count]), test.take(torch.arange(count))
        rest = test.take(torch.arange(count, min(len(test), count + _POPULATION)))
        others = rest if len(rest) >= 2 else join([first, second], "candidates")
        return cls(first, second, train.take(order[count:among]), others)

    def __len__(self) -> int:
        return len(self.first)

    def trained(self, coins: Coins) -> Dataset:
        """What is trained on: the first candidate of a slot where its coin says so."""
        both, count = self.candidates, len(self)
        index = torch.arange(count) + count * torch.from_numpy(~coins)
        return join([both.take(index), self.always], self.first.name)

    @cached_property
    def candidates(self) -> Dataset:
        """All of them: the first of each slot, then the second."""
        return join([self.first, self.second], self.first.name)

    @cached_property
    def looked_at(self) -> Dataset:
        """The candidates, what is always trained on, and the others."""
        return join([self.candidates, self.always, self.others], self.first.name)

    @property
    def known(self) -> int:
        """How many of these may have been trained on."""
        return 2 * len(self) + len(self.always)


Trains = Callable[[Dataset], Mapping[Phase, Moved]]


@dataclass(frozen=True)
class Attacked:
    """What an attack makes of one game.

    Attributes:
        name: of the attack, and of the model that it looks at.
        scores: of the candidates `[2k]`, higher for rather trained on.
    """

    name: str
    scores: Scores = field(repr=False)

    @property
    def by_slot(self) -> Scores:
        """How much rather the first candidate of each slot than the second, `[k]`."""
        count = len(self.scores) // 2
        return self.scores[:count] - self.scores[count:]


def attack(
    replay: Replay,
    slots: Slots,
    released: Mapping[Phase, Moved],
    shadows: int,
    trains: Trains,
    seed: int,
    heard: Callable[[], None] = lambda: None,
) -> list[Attacked]:
    """All attacks on what was released, with models of the attacker's own.

    Args:
        replay: how models are made of vectors.
        slots: the candidates.
        released: by the training that is attacked.
        shadows: how many models of its own the attacker trains, an even number of at least 4; or
            none, which leaves out what takes some.
        trains: how.
        seed: of the attacker's coins and views.
        heard: told after each training.
    """
    inside, own = _shadows(slots, shadows, trains, seed, heard)
    factory, found = replay.factory, list[Attacked]()
    views = derive_seed(seed, "membership views")
    looked = Looked(slots.looked_at, factory.augment, factory.compute, views)
    for phase, name in MODELS.items():
        if phase not in released:
            continue
        target, *others = (
            looked.figures(_model(replay, phase, each, each[phase].end))
            for each in (released, *own)
        )
        found += [
            Attacked(f"{attacked} on the {name}", scores)
            for attacked, scores in _scored(target, others, inside, slots).items()
        ]
        weights = _decoded(replay, slots, phase, released, seed)
        found.append(Attacked(f"{DECODED} on the {name}", weights))
    return found


def _shadows(
    slots: Slots, shadows: int, trains: Trains, seed: int, heard: Callable[[], None]
) -> tuple[list[Coins], list[Mapping[Phase, Moved]]]:
    """The attacker's own trainings, and which candidates were in each: in turn some and all others,
    so that every candidate is in half of them.
    """
    rng, inside, own = np.random.default_rng(seed), list[Coins](), list[Mapping[Phase, Moved]]()
    for _ in range(shadows // 2):
        coins = rng.random(len(slots)) < 0.5
        for each in (coins, ~coins):
            inside.append(np.concatenate([each, ~each]))
            own.append(trains(slots.trained(each)))
            heard()
    return inside, own


def _model(replay: Replay, phase: Phase, made: Mapping[Phase, Moved], vector: Tensor) -> PoolModel:
    """The model of a vector, on the encoder that pools began with."""
    encoder = None
    if phase == "cluster" and "pretrain" in made:
        encoder = replay.model("pretrain", made["pretrain"].end, None).encoder
    return replay.model(phase, vector, encoder)


def _scored(
    target: dict[str, Scores],
    shadows: Sequence[dict[str, Scores]],
    inside: Sequence[Coins],
    slots: Slots,
) -> dict[str, Scores]:
    """Each figure by itself, and those that take shadows, `[2k]` each."""
    count, known = 2 * len(slots), slots.known
    made = {name: values[:count] for name, values in target.items()}
    if not shadows:
        return made

    def together(figures: dict[str, Scores]) -> Scores:
        return np.stack(
            [log_odds(row) if name == LOSS else row for name, row in figures.items()], 1
        )

    of_shadows = np.stack([together(each) for each in shadows])
    made["LiRA"] = lira(together(target)[:count], of_shadows[:, :count], np.stack(inside))
    if LOSS in target:
        losses = np.stack([each[LOSS] for each in shadows])
        own = target[LOSS]
        made["RMIA"] = rmia(own[:count], losses[:, :count], own[known:], losses[:, known:])
    return made


def _decoded(
    replay: Replay, slots: Slots, phase: Phase, made: Mapping[Phase, Moved], seed: int
) -> Scores:
    """What the first update says of the candidates, `[2k]`: half of each slot's weight, with both
    signs. All that stands still is known to the attacker.
    """
    moved, count, config = made[phase], len(slots), replay.factory.facts.config
    model = _model(replay, phase, made, moved.start)
    frozen = phase == "cluster" and config.pools.encoder == "frozen"
    known = slots.looked_at.take(torch.arange(slots.known))
    places = torch.cat([torch.arange(count), torch.arange(slots.known - count)])
    rows, where = Directions(replay, known, places, seed).of(model, model.top if frozen else model)
    if config.privacy.unit == "example":
        rows = rows / (rows.norm(dim=1, keepdim=True) / config.privacy.clip).clamp_min(1.0)
    first, second, always = rows.split([count, count, len(slots.always)])
    common = ((first + second).sum(0) / 2 + always.sum(0))[None]
    decay = moved.start[where].double()[None]
    directions = torch.cat([first - second, common, decay]).numpy()
    weights = decoded(moved.first[where].double().numpy(), directions)[:count]
    return np.concatenate([weights, -weights]) / 2


def _bytes(x: Tensor) -> list[bytes]:
    return [row.numpy().tobytes() for row in x]
