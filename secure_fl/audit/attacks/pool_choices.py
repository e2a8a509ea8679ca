"""Guesses at a choice that is charged for: from noised counts, and from the exponential mechanism.

Both are played by the run's own mechanisms, many times with fresh noise. What is guessed is drawn
by a fair coin of as many sides as there are alternatives, so the share of right guesses under an
(ε, δ) claim between any two of them is at most `rates.allowed_guesses`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from secure_fl.audit.subject import Subject
from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.engines import embedded
from secure_fl.federation.asks import TrainPool
from secure_fl.federation.client import Client
from secure_fl.federation.factory.example_plan import chooses_by_loss
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.steps.order import steps_of
from secure_fl.federation.steps.program import StepProgram
from secure_fl.pools.pool_set import PoolSet
from secure_fl.privacy.accounting import Charge, epsilon_of
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.client_level import ClientLevel

_FIELDS = 8
_FAR = 2.0
"""Logit by which a pool's model prefers its label: losses of 0.1 and 2 nats."""


@dataclass(frozen=True)
class Guessed:
    """How often a choice was guessed.

    Attributes:
        channel: from what.
        right, trials: guesses.
        alternatives: that were equally likely.
        epsilon: that is charged for it, at the run's δ.
    """

    channel: str
    right: int
    trials: int
    alternatives: int
    epsilon: float


def from_counts(
    subject: Subject, trials: int, seed: int, heard: Callable[[float], None]
) -> list[Guessed]:
    """One round's opened sum at client level, all other clients' vectors known and taken off: what
    is left is the client's one-hot vector with the noise that is counted on. Nothing where the run
    has no such sum.

    Two guesses are made of it: the largest count, and the likeliest pool to whoever knows the
    client's update and reads the blocks as well.
    """
    plan = subject.factory.client_plan
    if plan is None or plan.pools is None or plan.pools.pools < 2:
        return []
    level: ClientLevel = replace(plan.pools, pooled=_FIELDS, shared=0)
    noise = embedded.new_noise()
    streams = [
        noise.stream(client=each, round=0, purpose="pool guess") for each in range(level.honest)
    ]
    update = torch.full((_FIELDS,), level.bound / _FIELDS**0.5)
    inside = None if level.bit_noise is None else True
    integers = level.encode(update, stream=streams[0])
    right = [0, 0]
    for number, choice in enumerate(np.random.default_rng(seed).integers(level.pools, size=trials)):
        total = level.noised(level.blocks(integers, int(choice), inside=inside), streams[0])
        for stream in streams[1:]:
            total = total + level.noised(level.absent(), stream)
        counts = total.head[: level.pools].double()
        all_told = counts * level.count_unit + total.pools.double() @ integers.double()
        for kind, told in enumerate((counts, all_told)):
            right[kind] += int(told.argmax()) == int(choice)
        heard((number + 1) / trials)
    charged = Charge(plan.pools.event(1), Adjacency.REPLACE_ONE)
    epsilon = epsilon_of([charged], subject.config.privacy.delta)
    names = ("one round's noised counts", "one round's noised counts and blocks")
    return [
        Guessed(name, count, trials, level.pools, epsilon)
        for name, count in zip(names, right, strict=True)
    ]


def from_choice(
    subject: Subject, trials: int, seed: int, heard: Callable[[float], None]
) -> list[Guessed]:
    """The pool that the exponential mechanism names, where one example's label decides which pool
    is best: what is guessed is that label. Nothing where no choice is released.
    """
    factory = subject.factory
    if not chooses_by_loss(subject.config) or factory.facts.config.pools.task != "supervised":
        return []
    alternatives = min(factory.facts.config.pools.count, factory.facts.classes)
    pools = _pools(factory, alternatives)
    client, bench = subject.clients[0], Workbench(factory)
    drawn, right, epsilon = np.random.default_rng(seed).integers(alternatives, size=trials), 0, 0.0
    for number, label in enumerate(drawn):
        data = _tipped(client, alternatives, int(label))
        program = StepProgram(factory, steps_of(factory))
        made = Client.of(program, data, bench, embedded.new_noise(), ReleaseBox(None))
        ask = TrainPool(0, pools)
        released = [each for each in made.protection.releases(ask, 0) if each.purpose == "choice"]
        charged = [Charge(each.event, Adjacency.REPLACE_ONE) for each in released]
        epsilon = epsilon if number else epsilon_of(charged, factory.facts.config.privacy.delta)
        right += made.protection.choose(ask, 0).choice == int(label)
        heard((number + 1) / trials)
    return [Guessed("a released choice", right, trials, alternatives, epsilon)]


def _pools(factory: Factory, alternatives: int) -> PoolSet:
    """Models that look at no example: pool k prefers label k, whatever it is shown."""
    model, layout = factory.pool_model(0), factory.pool_layout
    rows, shared = list[Tensor](), torch.empty(0)
    for pool in range(factory.facts.config.pools.count):
        with torch.no_grad():
            for parameter in model.top.parameters():
                parameter.zero_()
            if pool < alternatives:
                list(model.top.parameters())[-1][pool] = _FAR
        shared, row = layout.parts(model)
        rows.append(row)
    return PoolSet(shared, torch.stack(rows))


def _tipped(client: ClientData, alternatives: int, label: int) -> ClientData:
    """As many examples as there are alternatives, one of each label, and one that decides."""
    labels = torch.tensor([*range(alternatives), label])
    some = torch.arange(len(labels)) % len(client.train)
    train: Dataset = replace(client.train.take(some), y=labels)
    return replace(
        client,
        train=train,
        validation=train,
        test=client.test.take(torch.arange(min(2, len(client.test)))),
        sketched=None,
    )
