"""How pools start. `random` and `pretrained` are drawn at once; the other starts take rounds of their own.

Sources: restarts, IFCA's official code (arXiv 2006.04088); farthest, HypCluster as in google/fedjax; sketch, this project.
"""

from __future__ import annotations

from math import sqrt

import torch

from secure_fl.errors import ConfigError
from secure_fl.federation.block_replies import FARTHEST
from secure_fl.federation.blueprint import Blueprint
from secure_fl.federation.messages import (
    BlockUpdate,
    Candidate,
    CentreShare,
    CentreVote,
    GiveCentre,
    GiveSketch,
    Guide,
    PoolScore,
    Reply,
    ScorePools,
    SketchUpdate,
    TrainCandidate,
    VoteCentre,
)
from secure_fl.federation.phase import Call, Metrics, Phase, ServerState
from secure_fl.federation.summing import Summed
from secure_fl.models.state import load_vector
from secure_fl.pools.pool_set import PoolSet
from secure_fl.pools.sketch import first_centres, moved_centres, tightest_start
from secure_fl.seeds import derive_seed

_SETTLED = 1e-6
"""k-means has settled when no centre of any start moves further than this share of the sketches' spread."""


def draw_pools(blueprint: Blueprint, state: ServerState, attempt: int = 0) -> PoolSet:
    """K models with independent random heads; encoders pre-trained, or for random starts independent too."""
    config = blueprint.config.pools
    random_encoders = config.start in ("random", "restarts")
    shared, pooled = torch.empty(0), []
    for k in range(config.count):
        model = blueprint.pool_model(derive_seed(blueprint.config.seed, "pools", attempt, k))
        if not random_encoders:
            load_vector(model.encoder, state.tensors["encoder"])
        part, top = blueprint.layout.parts(model)
        shared = part if k == 0 else shared
        pooled.append(top)
    return PoolSet(shared, torch.stack(pooled))


def get_pools(state: ServerState) -> PoolSet:
    """The pools in the state."""
    return PoolSet(state.tensors["pools.shared"], state.tensors["pools.pooled"])


def set_pools(state: ServerState, pools: PoolSet) -> None:
    """Store pools in the state."""
    state.tensors["pools.shared"], state.tensors["pools.pooled"] = pools.shared, pools.pooled


def get_guide(state: ServerState) -> Guide | None:
    """The groups that the sketch start found, or None."""
    if "guide.mean" not in state.tensors:
        return None
    return Guide(state.tensors["guide.mean"], state.tensors["guide.centres"])


class SketchCentre(Phase):
    """Released sketches only: average the clients' noised mean examples into the centre that sketches are taken from.

    Opened once, over the clients that answer: nothing of it stands still between two openings, and each summand has noise of its own.
    """

    name = "centre"

    @property
    def rounds(self) -> int:
        return 1

    def open(self) -> Call:
        self._sum, self._count = torch.zeros(self.blueprint.sketch.inputs, dtype=torch.float64), 0
        return Call(self.everyone, GiveCentre())

    def add(self, client: int, reply: Reply) -> None:
        assert isinstance(reply, CentreShare | BlockUpdate)
        self._count += 1
        if isinstance(reply, CentreShare):
            self._sum += reply.mean

    def take(self, summed: Summed) -> None:
        self._sum, self._count = self.blueprint.grid(self.summed).sums(summed.total), summed.survivors

    def close(self) -> Metrics:
        self.state.tensors["sketch.public_centre"] = self._sum / self._count
        return {}


class SketchStart(Phase):
    """One round for the mean sketch, then rounds of k-means, then a pool for each centre.

    **What its openings show.** The sum, squared lengths and number of all sketches, then for each start and centre the sum, number and squared
    distances of the sketches nearest to it. Sketches and all that is computed from them stand still, so differences of openings show single ones:
    released ones, which carry their own noise, unless the run is an open experiment. Votes hide who joined which centre from a single opening
    only: whoever is missing from one round and there in the next shows its centre by the difference.
    """

    name = "sketch"

    @property
    def rounds(self) -> int:
        return 1 + self.blueprint.config.pools.sketch_iterations

    @property
    def done(self) -> bool:
        return "guide.mean" in self.state.tensors

    @property
    def summed(self) -> str:
        return "sketch" if self.state.round == 0 else "votes"

    def open(self) -> Call:
        tensors, config = self.state.tensors, self.blueprint.config.pools
        self._received = 0
        if self.state.round == 0:
            self._sketches, self._squares = torch.zeros(self.blueprint.sketch_width, dtype=torch.float64), 0.0
            return self.first_call()
        self._blocks = torch.zeros(config.sketch_starts, config.count, self.blueprint.sketch_width + 2, dtype=torch.float64)
        return Call(self.everyone, VoteCentre(tensors["sketch.mean"], tensors["sketch.centres"]))

    def first_call(self) -> Call:
        """The request for sketches."""
        return Call(self.everyone, GiveSketch(self.state.tensors.get("sketch.public_centre")))

    def add(self, client: int, reply: Reply) -> None:
        if isinstance(reply, SketchUpdate):
            self._received += reply.count
            self._sketches += reply.sketch.double()
            self._squares += reply.square
        elif isinstance(reply, CentreVote):
            self._blocks += reply.blocks.double()
        else:
            assert isinstance(reply, BlockUpdate)

    def take(self, summed: Summed) -> None:
        sums = self.blueprint.grid(self.summed).sums(summed.total)
        if self.state.round == 0:
            self._sketches, self._squares, self._received = sums[:-2], float(sums[-2]), round(float(sums[-1]))
        else:
            self._blocks = sums.view(self._blocks.shape)
            self._blocks[..., -1] *= FARTHEST
            self._blocks[..., -2] = self._blocks[..., -2].round()

    def close(self) -> Metrics:
        return self._first() if self.state.round == 0 else self._iterate()

    def _first(self) -> Metrics:
        config, seed = self.blueprint.config.pools, self.blueprint.config.seed
        mean = self._sketches / self._received
        spread = sqrt(max(self._squares / self._received - float(mean.square().sum()), 1e-12))
        self.state.facts["sketch.spread"] = spread
        self.state.tensors["sketch.mean"] = mean.float()
        self.state.tensors["sketch.centres"] = first_centres(config.sketch_starts, config.count, len(mean), spread, seed)
        return {"spread": spread}

    def _iterate(self) -> Metrics:
        tensors, spread = self.state.tensors, self.state.facts["sketch.spread"]
        sums, counts, distortion = self._blocks[..., :-2], self._blocks[..., -2], self._blocks[..., -1]
        moved = moved_centres(sums, counts, distortion, derive_seed(self.blueprint.config.seed, "sketch", "split", self.state.round))
        best = tightest_start(distortion, counts, self.blueprint.config.security.min_pool_clients if self.blueprint.secure else 1)
        settled = float((moved - tensors["sketch.centres"]).norm(dim=-1).max()) <= _SETTLED * spread
        if settled or self.state.round + 1 >= self.rounds:
            tensors["guide.mean"], tensors["guide.centres"] = tensors.pop("sketch.mean"), tensors.pop("sketch.centres")[best].clone()
            set_pools(self.state, draw_pools(self.blueprint, self.state))
        else:
            tensors["sketch.centres"] = moved
        unexplained = float(distortion[best].sum() / counts[best].sum()) / spread**2
        return {"unexplained": unexplained, "counts": counts[best].long().tolist()}


class RestartStart(Phase):
    """Draw pools anew until each attracts its share of clients, as IFCA's code does; then go on with the best draw."""

    name = "restarts"

    @property
    def rounds(self) -> int:
        return self.blueprint.config.pools.restart_attempts

    @property
    def done(self) -> bool:
        return bool(self.state.facts.get("restarts.done"))

    def open(self) -> Call:
        self._pools = draw_pools(self.blueprint, self.state, self.state.round)
        self._counts = [0] * len(self._pools)
        return Call(self.everyone, ScorePools(self._pools))

    def add(self, client: int, reply: Reply) -> None:
        assert isinstance(reply, PoolScore)
        self._counts[reply.choice] += 1

    def close(self) -> Metrics:
        fewest, facts = min(self._counts), self.state.facts
        if fewest > facts.get("restarts.fewest", -1):
            facts["restarts.fewest"] = fewest
            set_pools(self.state, self._pools)
        enough = fewest >= self.blueprint.config.pools.restart_share * sum(self._counts)
        facts["restarts.done"] = enough or self.state.round + 1 >= self.rounds
        return {"counts": self._counts, "accepted": enough}


class FarthestStart(Phase):
    """Every client trains a candidate from one start; pools are candidates, each of the client worst served by those before it.

    With a shared encoder, candidates are heads only: the encoder's change while training them is dropped.
    """

    name = "farthest"

    @property
    def rounds(self) -> int:
        return self.blueprint.config.pools.count

    def open(self) -> Call:
        if self.state.round == 0:
            first = draw_pools(self.blueprint, self.state)
            self._able: set[int] = set()
            self._candidates = torch.zeros(self.blueprint.clients, first.pooled.shape[1])
            self.state.tensors["pools.shared"] = first.shared
            return Call(self.everyone, TrainCandidate(first))
        self._loss = torch.zeros(self.blueprint.clients)
        return Call(self.everyone, ScorePools(get_pools(self.state)))

    def add(self, client: int, reply: Reply) -> None:
        if isinstance(reply, Candidate):
            if reply.pooled is not None:
                self._able.add(client)
                self._candidates[client] = reply.pooled
        else:
            assert isinstance(reply, PoolScore)
            self._loss[client] = min(loss if loss == loss else 0.0 for loss in reply.losses)

    def close(self) -> Metrics:
        tensors, facts = self.state.tensors, self.state.facts
        if self.state.round == 0:
            count = self.blueprint.config.pools.count
            if len(self._able) < count:
                remedy = "lower pools.count, label more clients, or choose another pools.start"
                raise ConfigError(f"only {len(self._able)} clients can train a candidate", field="pools.count", value=count, remedy=remedy)
            tensors["candidates"], facts["farthest.able"] = self._candidates, sorted(self._able)
            centre = facts["farthest.able"][derive_seed(self.blueprint.config.seed, "farthest") % len(self._able)]
            tensors["pools.pooled"] = self._candidates[[centre]]
        else:
            centre = max(facts["farthest.able"], key=lambda client: float(self._loss[client]))
            tensors["pools.pooled"] = torch.cat([tensors["pools.pooled"], tensors["candidates"][[centre]]])
        facts["farthest.able"].remove(centre)
        if self.state.round + 1 >= self.rounds:
            del tensors["candidates"]
        return {"centre": centre}
