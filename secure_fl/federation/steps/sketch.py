"""Pools start from groups of clients that look alike, found by k-means over sums.

The sum that k-means begins with also says how far clients differ, as the correlation ratio η of
their sketches: the root of the share that lies between clients of the variance of single examples'
vectors, whose length is 1. What the noise of released sketches adds is taken off, as its expected
square is public where numbers of examples are. It costs nothing beside the sketches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import sqrt
from typing import TYPE_CHECKING

from torch import Tensor

from secure_fl.federation.asks import GiveCentre, GiveSketch, VoteCentre
from secure_fl.federation.factory.sketch_form import FARTHEST
from secure_fl.federation.observe import Seen
from secure_fl.federation.program import SumForm
from secure_fl.federation.run_folder.metrics import Metrics
from secure_fl.federation.state import State
from secure_fl.federation.steps.step import Answer, Step
from secure_fl.federation.summing import Summed
from secure_fl.pools.sketch import (
    LIGHTEST,
    each_number,
    first_centres,
    moved_centres,
    tightest_start,
)
from secure_fl.secure_sum.grid import Grid

if TYPE_CHECKING:
    from secure_fl.federation.client import Client

_SETTLED = 1e-6
"""k-means has settled when no centre moves further than this share of the sketches' spread."""


@dataclass(frozen=True)
class _Votes:
    """A round's sums, for each start and centre.

    Attributes:
        sums: of the sketches nearest to it, times their weights, `[starts, K, S]`.
        weights: of their numbers, `[starts, K, S]`, where sketches have parts.
        counts: of them, `[starts, K]`.
        distortion: sum of their squared distances, `[starts, K]`.
    """

    sums: Tensor = field(repr=False)
    weights: Tensor | None = field(repr=False)
    counts: Tensor = field(repr=False)
    distortion: Tensor = field(repr=False)


class Centre(Step):
    """Released sketches only: average the clients' noised mean examples into the centre that they
    are taken from.

    Opened once, over the clients that answer: nothing of it stands still between two openings, and
    each summand has noise of its own.
    """

    name = "centre"

    @cached_property
    def grid(self) -> Grid:
        """One vector of a mean example, whose length is 1 at most."""
        return self.factory.unit_grid(self.factory.sketch.inputs)

    def form(self, round_number: int) -> SumForm:
        return self.on_grid(self.grid)

    def ask(self, state: State) -> GiveCentre:
        return GiveCentre()

    def answer(self, ask: GiveCentre, client: Client, position: int) -> Answer:
        return Answer(self.grid.blocks(client.sketch.centre(ask).float(), 0), Seen())

    def apply(self, state: State, opened: Summed) -> State:
        centre = self.grid.sums(opened.total) / opened.survivors
        return state.with_values({"sketch.public_centre": centre})


class Sketch(Step):
    """One round for the mean sketch, then rounds of k-means, until groups are found.

    **What its openings show.** The sum, squared lengths and number of all sketches, and where
    numbers of examples are public the expected square of their noise, which follows from these;
    then for each start and centre the sum, number and squared distances of the sketches nearest to
    it; of sketches in parts, the sums of their weights too. Sketches and all that is computed from
    them stand still, so differences of openings show single ones: released ones, which carry their
    own noise, unless the run is an open experiment. Votes hide who joined which centre from a
    single opening only: whoever is missing from one round and there in the next shows its centre by
    the difference.
    """

    name = "sketch"

    @property
    def rounds(self) -> int:
        return 1 + self.facts.config.pools.sketch_iterations

    def ended(self, state: State) -> bool:
        """Whether k-means has settled, and the groups are found."""
        return "guide.mean" in state.tensors

    @cached_property
    def sketch_grid(self) -> Grid:
        """How a sketch becomes integers: its numbers, its weights, its squared length, its noise's
        expected square, and a one.
        """
        return self.factory.unit_grid(self._fields + 1)

    @cached_property
    def vote_grid(self) -> Grid:
        """How a vote becomes integers: for each start and centre a sketch, its weights, a one and a
        squared distance.
        """
        pools = self.facts.config.pools
        return self.factory.unit_grid(pools.sketch_starts * pools.count * self._fields)

    @property
    def _fields(self) -> int:
        return self.factory.sketch.width + self.factory.sketch.weights + 2

    def form(self, round_number: int) -> SumForm:
        return self.on_grid(self.sketch_grid if round_number == 0 else self.vote_grid)

    def ask(self, state: State) -> GiveSketch | VoteCentre:
        if state.place.round == 0:
            return GiveSketch(state.tensors.get("sketch.public_centre"))
        return VoteCentre(state.tensors["sketch.mean"], state.tensors["sketch.centres"])

    def answer(self, ask: GiveSketch | VoteCentre, client: Client, position: int) -> Answer:
        if isinstance(ask, GiveSketch):
            return Answer(self.sketch_grid.blocks(client.sketch.give(ask), 0), Seen())
        return Answer(self.vote_grid.blocks(client.sketch.vote(ask), 0), Seen())

    def apply(self, state: State, opened: Summed) -> State:
        if state.place.round == 0:
            return self._first(state, opened)
        votes, place = self._votes(opened), state.place.round
        centres, spread = state.tensors["sketch.centres"], state.facts["sketch.spread"]
        seed = self.facts.seed("sketch", "split", place)
        moved = moved_centres(votes.sums, votes.counts, votes.distortion, seed, votes.weights)
        settled = float((moved - centres).norm(dim=-1).max()) <= _SETTLED * spread
        if not settled and place + 1 < self.rounds:
            return state.with_values({"sketch.centres": moved})
        found = {
            "guide.mean": state.tensors["sketch.mean"],
            "guide.centres": centres[self._best(votes)].clone(),
        }
        return state.with_values(found, without=["sketch.mean", "sketch.centres"])

    def monitor(self, state: State, opened: Summed) -> Metrics:
        if state.place.round == 0:
            return Metrics(spread=self._spread(opened)[1], difference=self._difference(opened))
        votes, spread = self._votes(opened), state.facts["sketch.spread"]
        best = self._best(votes)
        within = float(votes.distortion[best].sum() / votes.counts[best].sum())
        counts = tuple(votes.counts[best].long().tolist())
        return Metrics(unexplained=within / spread**2, counts=counts)

    def _first(self, state: State, opened: Summed) -> State:
        pools, seed = self.facts.config.pools, self.facts.config.seed
        mean, spread = self._spread(opened)
        drawn = (pools.sketch_starts, pools.count, len(mean), spread, seed)
        centres = first_centres(*drawn, self.factory.sketch.parts)
        tensors = {"sketch.mean": mean.float(), "sketch.centres": centres}
        facts, difference = {"sketch.spread": spread}, self._difference(opened)
        if difference is not None:
            facts["sketch.difference"] = difference
        return state.with_values(tensors, facts)

    def _difference(self, opened: Summed) -> float | None:
        """How far clients differ, from 0, where their examples are alike, to 1, where each client
        has examples of one kind and no two clients of the same. None of a single sketch, and where
        it is not known what noise adds.
        """
        sums = self.sketch_grid.sums(opened.total)
        received = round(float(sums[-1]))
        if received < 2 or not self.factory.sketch.compared:
            return None
        square, noise = float(sums[-3]) / received, float(sums[-2]) / received
        common = float((sums[:-3] / received).square().sum())
        between = (square - common) * received / (received - 1) - noise
        whole = 1 - (common - noise / received)
        return sqrt(min(1.0, max(0.0, between / max(whole, 1e-12))))

    def _spread(self, opened: Summed) -> tuple[Tensor, float]:
        """The mean sketch `[S]`, and the root mean square distance of sketches from it."""
        sums = self.sketch_grid.sums(opened.total)
        received, width = round(float(sums[-1])), self.factory.sketch.width
        each = each_number(sums[width:-3] / received, width)
        mean = sums[:width] / (received * each).clamp_min(LIGHTEST)
        variance = float(sums[-3]) / received - float((each * mean.square()).sum())
        return mean, sqrt(max(variance, 1e-12))

    def _votes(self, opened: Summed) -> _Votes:
        pools, width = self.facts.config.pools, self.factory.sketch.width
        shape = (pools.sketch_starts, pools.count, self._fields)
        sums = self.vote_grid.sums(opened.total).view(shape)
        counts, distances = sums[..., -2].round(), sums[..., -1] * FARTHEST
        weights = each_number(sums[..., width:-2], width) if self.factory.sketch.weights else None
        return _Votes(sums[..., :width], weights, counts, distances)

    def _best(self, votes: _Votes) -> int:
        secure, security = self.facts.sums_only, self.facts.config.security
        fewest = security.min_pool_clients if secure else 1
        return tightest_start(votes.distortion, votes.counts, fewest)
