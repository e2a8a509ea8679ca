"""The frame every phase fits in: open a round, add replies, close it. All state that lasts is in `ServerState`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from secure_fl.config.tables import OptimiserConfig
from secure_fl.federation.blueprint import Blueprint
from secure_fl.federation.client_plan import ADAPTATION
from secure_fl.federation.grouping import PHASES, Grouping
from secure_fl.federation.messages import BlockUpdate, EncoderUpdate, PoolUpdate, Reply, Request
from secure_fl.federation.summing import Opening, Summed
from secure_fl.privacy.client_level import ClientLevel
from secure_fl.seeds import derive_seed

Metrics = dict[str, Any]


@dataclass
class ServerState:
    """What the server knows between rounds; a checkpoint is this and nothing else.

    Attributes:
        phase: number of phases finished.
        round: rounds finished in the phase under way.
        tensors: models, centres, sums.
        facts: JSON values.
    """

    phase: int = 0
    round: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Names only: what is stored under them may follow clients' examples."""
        return f"ServerState(phase={self.phase}, round={self.round}, tensors={sorted(self.tensors)}, facts={sorted(self.facts)})"


@dataclass(frozen=True)
class Call:
    """Whom to ask, and what. A phase that works alone asks nobody.

    Attributes:
        without: of `clients`, those whose messages made an earlier attempt at this round fail.
    """

    clients: tuple[int, ...]
    request: Request | None
    without: frozenset[int] = frozenset()

    @property
    def answering(self) -> list[tuple[int, int]]:
        """(place in the call, client) of everybody who is asked: places stay what they are when others are left out."""
        return [(position, client) for position, client in enumerate(self.clients) if client not in self.without]


@dataclass(frozen=True)
class RoundRecord:
    """One line of `metrics.jsonl`. Bytes are of message bodies, over all clients; `seconds` is wall time, `sum_seconds` the secure sum's part.

    Both are None, and `metrics` has gaps, where a line was read back that was written without the experimenter's fields.
    """

    phase: str
    round: int
    clients: int
    bytes_down: int
    bytes_up: int
    seconds: float | None = None
    metrics: Metrics = field(default_factory=dict)
    sum_seconds: float | None = None


class Phase(ABC):
    """A part of a run that proceeds by rounds."""

    name: ClassVar[str]

    def __init__(self, blueprint: Blueprint, state: ServerState, groups: Sequence[int | None]) -> None:
        self.blueprint, self.state, self.groups = blueprint, state, groups
        self._opened_by: list[int] | None = None
        self._left_out: tuple[str, ...] = ()
        self._watch()

    @property
    @abstractmethod
    def rounds(self) -> int:
        """Rounds planned, at most."""

    @property
    def done(self) -> bool:
        """Whether no round is left."""
        return self.state.round >= self.rounds

    @abstractmethod
    def open(self) -> Call:
        """Begin a round."""

    @abstractmethod
    def add(self, client: int, reply: Reply) -> None:
        """Take in one reply."""

    @abstractmethod
    def close(self) -> Metrics:
        """End the round: update the state, return what to record. The caller counts the round."""

    def take(self, summed: Summed) -> None:
        """Take in the opened sum of the replies' blocks; comes after every reply, before `close`."""
        raise AssertionError(f"{self.name} sums nothing")

    @property
    def opening(self) -> Opening:
        """When this phase's sums may be opened."""
        security = self.blueprint.config.security
        if self.blueprint.client_plan is not None:
            level, unit = self.level, max(1, self.level.count_unit)
            limits = (*level.largest_fields, level.noise_margin)
            return Opening(*limits, fewest=level.n_min, minimum=level.minimum, count_unit=unit)
        minimum, grouping = security.min_pool_clients if self.name == "cluster" else 1, self.grouping
        opening = Opening(self.blueprint.grid(self.summed).codec.bound, minimum=minimum)
        if grouping is None:
            return opening
        seed = derive_seed(self.blueprint.config.seed, self.name, "sum in groups", self.state.round)
        return replace(opening, group_size=grouping.size, group_seed=seed.to_bytes(8, "big"))

    @property
    def summed(self) -> str:
        """What this round's replies are summed as: the kind of their grid."""
        return self.name

    @property
    def grouping(self) -> Grouping | None:
        """How this phase's updates are summed in groups; None where all clients are in one sum."""
        return Grouping.of(self.blueprint.config.security) if self.name in PHASES else None

    @property
    def level(self) -> ClientLevel:
        """Client-level privacy's mechanism in this phase."""
        assert self.blueprint.client_plan is not None
        return self.blueprint.client_plan.of(self.name)

    @property
    def bound(self) -> float | None:
        """The round's norm bound, where it adapts; None otherwise."""
        plan = self.blueprint.client_plan
        if plan is None or plan.of(self.name).bit_noise is None:
            return None
        return float(self.state.facts.get(f"{self.name}.bound", self.level.bound))

    def means(self, summed: Summed) -> tuple[Tensor, Tensor]:
        """Mean changes of the shared part `[S]` and of the pools `[K, P]`; moves an adaptive bound."""
        if self.blueprint.client_plan is None:
            grid, grouping = self.blueprint.grid(self.summed), self.grouping
            if grouping is None:
                return grid.means(summed.total, summed.survivors, self.opening.minimum)
            shared, pooled, self._opened_by = grouping.means(grid, summed.groups, self.opening.minimum)
            self._left_out = summed.left_out
            return shared, pooled
        opened = self.level.open_head(summed.total.head, summed.survivors)
        means = self.level.open_pools(summed.total, opened, self.bound)
        if opened.inside is not None and self.bound is not None:
            self.state.facts[f"{self.name}.bound"] = ADAPTATION.moved(self.bound, opened.inside)
        return means

    @property
    def group_metrics(self) -> Metrics:
        """How many groups opened each pool in the round just closed, and why some opened nothing; empty where nothing is summed in groups."""
        if self._opened_by is None:
            return {}
        return {"groups_opened": self._opened_by} | ({"groups_left_out": list(self._left_out)} if self._left_out else {})

    def _watch(self) -> None:
        """Begin a round's observations of clients that train: the experimenter's, no part of the protocol."""
        self._terms, self._exploded, self._cut = list[dict[str, float]](), dict[str, int](), list[float]()

    def _observe(self, client: int, reply: EncoderUpdate | PoolUpdate | BlockUpdate) -> None:
        self._terms.append(reply.terms)
        if reply.exploded is not None:
            self._exploded[str(client)] = reply.exploded
        if isinstance(reply, BlockUpdate):
            self._cut.append(reply.cut)

    @property
    def watched_metrics(self) -> Metrics:
        """Whose losses left their scale; how groups fared; at how many clients something was cut, and the largest share of one's values."""
        cut = [share for share in self._cut if share > 0]
        of_clamp = {"cut": {"clients": len(cut), "share": max(cut)}} if cut else {}
        return {**exploded(self._exploded), **self.group_metrics, **of_clamp}

    @property
    def everyone(self) -> tuple[int, ...]:
        """All clients."""
        return tuple(range(self.blueprint.clients))

    def sampled(self, settings: OptimiserConfig) -> tuple[int, ...]:
        """This round's clients: the phase's share of the roster without replacement, in ascending order."""
        count = self.blueprint.clients
        generator = torch.Generator().manual_seed(derive_seed(self.blueprint.config.seed, self.name, "sample", self.state.round))
        chosen = torch.randperm(count, generator=generator)[: settings.cohort_size(count)]
        return tuple(sorted(chosen.tolist()))


def mean_terms(terms: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each term's mean over the clients that report it."""
    names = dict.fromkeys(name for each in terms for name in each)
    return {name: sum(each[name] for each in terms if name in each) / sum(name in each for each in terms) for name in names}


def exploded(steps: dict[str, int]) -> Metrics:
    """What a round records of losses that left their scale: the client and the step at which its own did. Nothing where none has."""
    return {"exploded": steps} if steps else {}
