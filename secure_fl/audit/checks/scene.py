"""Which sum of a run is played by real parties, with how many clients, and what they put in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from secure_fl.audit.subject import Subject
from secure_fl.config import FederationConfig
from secure_fl.errors import ConfigError
from secure_fl.federation.program import SumForm
from secure_fl.federation.steps.order import steps_of
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.grid import Blocks

_LARGEST = 1000
"""Magnitude of made-up values, where the run's grid allows as much."""
Chosen = Callable[[int, int], int]
"""The pool of a client in a round."""


@dataclass(frozen=True)
class Scene:
    """What is played: one round's sum of the run.

    Attributes:
        config: the run's settings; of a run with more clients than are played, its settings of
            security with thresholds in proportion.
        form: of the sum, as the run's step makes it, with shorter vectors.
        colluders: clients that the run says it withstands.
        rounds: that the run has in all; a fault may be in the last one alone.
    """

    config: FederationConfig
    form: SumForm
    colluders: int
    rounds: int

    @classmethod
    def of(cls, subject: Subject, most: int, width: int = 6) -> Scene:
        """The sum with the most to hide: that of the pools where there are any.

        Args:
            subject: the run.
            most: clients that are played at most.
            width: fields of a block at most.
        """
        steps = steps_of(subject.factory)
        forms = [step.form(0) for step in steps]
        form = max(forms, key=lambda each: (each.shape.counted, each.shape.pools))
        opening, config = form.opening, subject.config
        asked = opening.group_size or len(form.cohort)
        size = min(asked, most)
        fewest = -(-opening.fewest * size // asked)
        opening = replace(opening, fewest=fewest, group_size=None)
        shape = form.shape
        head = None if shape.head is None else shape.head_fields
        shared, wide = min(shape.shared, width), min(shape.width, width)
        shape = BlockShape(shape.pools, wide, shared, head, shape.counted)
        form = replace(form, cohort=tuple(range(size)), shape=shape, opening=opening)
        rounds, settings = sum(step.rounds for step in steps), _settings(config, size, asked)
        return cls(settings, form, config.privacy.colluders, rounds)

    @property
    def clients(self) -> int:
        """How many are played."""
        return len(self.form.cohort)

    @property
    def masked(self) -> bool:
        """Whether anything is claimed of single updates."""
        return self.config.security.protection != "plain"

    @property
    def hides_a_pool(self) -> bool:
        """Whether a client can be alone in a pool while another one opens."""
        shape, least = self.form.shape, max(2, self.form.opening.minimum)
        return shape.counted and shape.pools > 1 and self.clients > least

    def alone(self, client: int, _: int = 0) -> int:
        """The pool of a client where the last one is alone, below the minimum."""
        return int(self.hides_a_pool and client == self.clients - 1)


def _settings(config: FederationConfig, size: int, asked: int) -> FederationConfig:
    """The run's settings, or, of fewer clients, what of them their sums are opened by."""
    try:
        config.security.sums(size, config.privacy.colluders)
    except ConfigError:
        pass
    else:
        if size == asked:
            return config
    kept = config.security.model_dump(include={"protection", "key_holder", "rotation_rounds"})
    kept |= {"min_pool_clients": config.security.min_pool_clients}
    for name in ("threshold", "min_survivors"):
        if (value := getattr(config.security, name)) is not None:
            kept[name] = max(3, -(-value * size // asked))
    pools = {"count": 1, "start": "random"}
    return FederationConfig.model_validate(
        {"security": kept, "partition": {"clients": size, "kind": "iid"}, "pools": pools}
    )


def made_up(scene: Scene, chosen: Chosen, seed: int = 0) -> Callable[[int, int], Blocks]:
    """Vectors of random values, by client and round, in the blocks that are chosen."""
    shape, opening = scene.form.shape, scene.form.opening
    most = min(opening.bound, _LARGEST)

    def vector(client: int, number: int) -> Blocks:
        drawn = torch.Generator().manual_seed(seed + 1000 * number + client)
        head = torch.zeros(shape.head_fields, dtype=torch.int64)
        pools = torch.zeros(shape.pools, shape.width, dtype=torch.int64)
        choice = chosen(client, number)
        pools[choice] = torch.randint(-most, most + 1, (shape.width,), generator=drawn)
        if shape.counted:
            head[choice] = opening.count_unit
        shared = torch.randint(-most, most + 1, (shape.shared,), generator=drawn)
        return Blocks(head, shared, pools)

    return vector


def why_not(subject: Subject) -> str:
    """Why nothing is tried against sums: none is protected."""
    if subject.config.security.protection == "plain":
        return "sums are in the open (security.protection = plain): nothing is claimed of them"
    return ""
