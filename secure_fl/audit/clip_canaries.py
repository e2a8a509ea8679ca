"""Canaries at the interface where a run's own mechanism clips, through everything that follows.

A run's mechanism takes a model's outputs z and the losses of the run's own objective. The model
here has one number w_j a canary, at zero: z = base + L·w_j·direction. A unit's gradient then lies
along w_j alone and is far longer than the bound, so it is clipped to ±C·e_j: a Dirac canary, made
by the mechanism's own clipping of the run's own loss. Which sign follows from what was released
before, so whoever reads the sums knows it. In a released statistic a canary adds to a coordinate of
its own, ten times as much as is allowed. Training is the run's loop with learning rate 0, which
leaves w at zero; every noised sum is read as it is released.

Canary j is example j of the public index set. Under zero-out it is there or not; under replace-one
it is there or is replaced by one that contributes the opposite. Other examples fill groups, and
contribute nothing.

**Assumes**: losses with a derivative along a canary's direction. Where it is short, a canary moves
its score less: bounds get lower, and stay valid.

**Not covered**: the run's own model and views: `hubs` and `coupling` look at these.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secure_fl.audit.canary_board import Board
from secure_fl.audit.noise_tests import Matrix
from secure_fl.audit.own_training import Own, OwnTraining, stated_noise
from secure_fl.coins import Draws
from secure_fl.objectives.unit_objectives import CrossEntropy, Statistic
from secure_fl.privacy.engine import PrivateSpec, PrivateTraining
from secure_fl.privacy.mechanisms.mechanism import Labelled
from secure_fl.privacy.mechanisms.per_example import PerExample
from secure_fl.privacy.mechanisms.released_statistics import ReleasedStatistics
from secure_fl.privacy.noise import NoiseStream

_LONG = 1e4
"""How many times longer than clipped a canary's gradient is, about."""
_FILLED = 2
"""Groups a canary: fewer canaries share a group."""
_LEAST_BATCH = 256
"""Units of a step that are expected at least, so that no step is empty."""


class CanaryModel(nn.Module):
    """Rows of a board -> (h, z). |z| carries a row's code: objectives look at z's direction."""

    def __init__(self, board: Board, length: float, *, coded: bool) -> None:
        super().__init__()
        self.moved = nn.Embedding(1 + board.coordinates, 1)
        nn.init.zeros_(self.moved.weight)
        self._length, self._width, self._coded = length, board.dimension, coded
        self._last = board.coordinates

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """`[N, 2 + 2D]` -> `[N, D]`, twice."""
        place = rows[:, 0].nan_to_num(0, 0, 0).clamp(0, self._last).long()
        base, direction = rows[:, 2:].split(self._width, 1)
        z = base + self._length * self.moved(place[:, None])[:, :, 0] * direction
        z = z * (1 + rows[:, 1:2]) if self._coded else z
        return z, z


@dataclass(eq=False)
class CanaryStatistic:
    """The run's own statistic, and beside it a coordinate a canary and as many in which nobody is.

    Attributes:
        seen: noised sums of these, one a release.
        released: the last mean.
        over: what noised sums were divided by.
    """

    own: Any
    board: Board
    seen: list[Tensor] = field(default_factory=list, repr=False)
    released: Tensor | None = field(default=None, repr=False)
    over: set[float] = field(default_factory=set)

    @property
    def dimension(self) -> int:
        return int(self.own.dimension)

    @property
    def size(self) -> int:
        return int(self.own.size) + self.board.coordinates

    def at(self, step: int) -> CanaryStatistic:
        """With the run's own statistic of a step; what is seen goes into the same lists."""
        return replace(self, own=self.own.at(step))

    def contributions(self, z: Tensor) -> Tensor:
        """A canary's is in its own coordinate alone."""
        code = (z[:, 0].norm(dim=1) - 1).round().long().clamp(0, 2 * self.board.canaries)
        sign = torch.where(code > self.board.canaries, -1.0, 1.0) * (code > 0)
        number = torch.where(code > self.board.canaries, code - self.board.canaries, code) - 1
        own = self.own.contributions(z) * (code == 0)[:, None]
        beside = z.new_zeros(len(z), self.board.coordinates)
        beside[torch.arange(len(z)), self.board.places[number]] = 10 * sign.to(z)
        return torch.cat([own, beside], 1)

    def mean(self, noised_sum: Tensor, expected_units: float, deviation: float) -> Tensor:
        """Of the run's own part."""
        self.over.add(float(expected_units))
        self.seen.append(noised_sum[self.own.size :].detach().double().clone())
        made: Tensor = self.own.mean(noised_sum[: self.own.size], expected_units, deviation)
        self.released = made
        return made

    def unit_losses(self, z: Tensor, released: Tensor) -> Tensor:
        """As the run's own."""
        found: Tensor = self.own.unit_losses(z, released)
        return found


@dataclass(eq=False)
class Watched:
    """The run's mechanism, with what it draws and releases written down."""

    inner: Any
    board: Board
    model: CanaryModel
    statistic: CanaryStatistic | None
    stream: _Counted
    empty: bool = False
    drawn: list[Tensor] = field(default_factory=list, repr=False)
    sums: list[list[Tensor]] = field(default_factory=list, repr=False)
    bounds: list[float] = field(default_factory=list)
    releases: list[int] = field(default_factory=list)

    @property
    def objective(self) -> object:
        """Of the mechanism: training looks at what it holds."""
        return None

    def at(self, step: int) -> Watched:
        """Of the mechanism as it is in a step; what is seen goes into the same lists."""
        inner = self.inner.at(step)
        statistic = None if self.statistic is None else inner.objective.statistic
        return replace(self, inner=inner, statistic=statistic)

    def draw(self, _: NoiseStream) -> Tensor:
        """As the mechanism draws; single examples that are not there are left out."""
        drawn: Tensor = self.inner.draw(cast("NoiseStream", self.stream))
        self.drawn.append(drawn)
        if self.empty:
            return drawn[:0]
        return drawn if drawn.shape[1] > 1 else drawn[~self.board.missing(drawn[:, 0])]

    def gradients(self, model: nn.Module, views: Any, _: NoiseStream) -> None:
        """The mechanism's own, then read."""
        self.bounds.append(float(self.inner.bound))
        before = self.stream.normals
        if self.statistic is not None:
            self.statistic.seen.clear()
        self.inner.gradients(model, views, cast("NoiseStream", self.stream))
        self.releases.append(self.stream.normals - before)
        gradient = self.model.moved.weight.grad
        assert gradient is not None
        found = [gradient[1:, 0].detach().double() * self.inner.expected_units]
        if self.statistic is not None and self.statistic.seen:
            found = [found[0] * self._sign(), self.statistic.seen[0]]
        self.sums.append(found)

    def _sign(self) -> float:
        """Of every canary's gradient, given what was released in this step."""
        assert self.statistic is not None
        all_in = replace(self.board, included=np.ones(self.board.canaries, dtype=np.bool_))
        with torch.enable_grad():
            h, z = self.model(all_in.rows(torch.zeros(1, dtype=torch.int64), "views")[0])
            units: Any = self.inner.objective
            loss = units.unit_losses(h[None], z[None], self.statistic.released).sum()
            (gradient,) = torch.autograd.grad(loss, self.model.moved.weight)
        return 1.0 if float(gradient.sum()) >= 0 else -1.0

    def event(self, steps: int) -> Any:
        """As the mechanism's."""
        return self.inner.event(steps)


class _Counted:
    """A stream of noise, and how often normal deviates were taken from it."""

    def __init__(self, stream: NoiseStream) -> None:
        self._stream, self.normals = stream, 0

    def gaussian(self, shape: Any, deviation: float) -> Tensor:
        """The stream's own."""
        self.normals += 1
        return self._stream.gaussian(shape, deviation)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@dataclass(frozen=True)
class Played:
    """What a training with canaries released.

    Attributes:
        sums: `[T, 2K]` a kind of sum (gradients, then a statistic), in units of what an example
            may add.
        places: of the canaries' coordinates and then of the empty ones.
        stated: deviation of the noise in each kind, in the same units, as the mechanism says.
        drawn: `[T, n]`, who was drawn.
        units: `[T]`, how many units were.
        count: units that there are.
        releases: `[T]`, noised sums that a step released.
        twice: whether somebody was in two units of a step.
        over: what noised statistics were divided by.
    """

    sums: tuple[Matrix, ...]
    places: NDArray[np.int64]
    stated: tuple[float, ...]
    drawn: NDArray[np.bool_]
    units: Matrix
    count: int
    releases: tuple[int, ...]
    twice: bool
    over: frozenset[float]

    def quiet(self, *, in_place: bool = False) -> Matrix:
        """Noise alone, `[R, K]`, in deviations as stated.

        Args:
            in_place: `[R, 2K]`, zero where canaries are.
        """
        empty = self.places[len(self.places) // 2 :]
        found = np.concatenate(
            [part / wide for part, wide in zip(self.sums, self.stated, strict=True)]
        )
        if not in_place:
            return found[:, empty]
        made = np.zeros_like(found)
        made[:, empty] = found[:, empty]
        return made

    def scores(self, canaries: int) -> Matrix:
        """Of each canary, from all sums of all steps, each as telling as its noise lets it be."""
        weights = [wide**-2 for wide in self.stated]
        total = sum(
            weight * part[:, self.places[:canaries]].sum(0)
            for weight, part in zip(weights, self.sums, strict=True)
        )
        return np.asarray(total, dtype=np.float64) / sum(weights)


def board_of(own: OwnTraining, included: NDArray[np.bool_], *, opposite: bool) -> Board:
    """For canaries with these coins."""
    members, rate = own.path.members, own.mechanism.sampling_rate
    units = len(included) * (1 if members == 1 else _FILLED)
    examples = members * max(units, math.ceil(_LEAST_BATCH / rate))
    facts, embedding = own.path.factory.facts, own.path.factory.embedding
    width = max(2, facts.classes) if own.path.supervised else embedding
    return Board(len(included), included, opposite, examples, width, own.path.views)


def play(own: OwnTraining, board: Board, steps: int, *, empty: bool = False) -> Played:
    """Train for so many steps, and say what was released.

    Args:
        empty: nobody is drawn, as chance will have it now and then.

    Raises:
        PrivacyError: the run's own guards refuse its mechanism.
    """
    mechanism, statistic = _extended(own.mechanism, board)
    model = CanaryModel(board, _LONG * max(1.0, mechanism.bound), coded=statistic is not None)
    stream = _Counted(own.stream())
    watched = Watched(mechanism, board, model, statistic, stream, empty)
    spec = PrivateSpec(steps, 0.0)
    training = PrivateTraining(cast("Any", watched), spec)
    training.run(model, _views(own, board), cast("NoiseStream", stream))
    return _played(watched, mechanism, board)


def _extended(mechanism: Own, board: Board) -> tuple[Own, CanaryStatistic | None]:
    """The mechanism over the board's index set, with canaries in its statistic."""
    if isinstance(mechanism, PerExample):
        clip = copy.copy(mechanism.clip)
        return replace(mechanism, examples=board.examples, clip=clip), None
    made = replace(mechanism, examples=board.examples)
    if not isinstance(made, ReleasedStatistics):
        return made, None
    units: Any = made.objective
    statistic = CanaryStatistic(units.statistic, board)
    objective = replace(units, statistic=cast("Statistic", statistic))
    return replace(made, objective=objective), statistic


def _views(own: OwnTraining, board: Board) -> Callable[[Tensor, Draws], Tensor | Labelled]:
    mechanism = own.mechanism
    kind = "views"
    if isinstance(mechanism, PerExample) and hasattr(mechanism.objective, "target_losses"):
        kind = "labels" if isinstance(mechanism.objective, CrossEntropy) else "hidden"

    def views_of(index: Tensor, _: Draws) -> Tensor | Labelled:
        rows = board.rows(index, kind)  # [U, m, R, W]
        views = rows.transpose(1, 2).flatten(1, 2)
        if kind == "labels":
            return Labelled(views, torch.zeros(len(views), dtype=torch.int64))
        return Labelled(views, torch.zeros(len(views), 4)) if kind == "hidden" else views

    return views_of


def _played(watched: Watched, mechanism: Own, board: Board) -> Played:
    steps, members = len(watched.sums), watched.drawn[0].shape[1]
    drawn = np.zeros((steps, board.examples), dtype=np.int64)
    for step, index in enumerate(watched.drawn):
        np.add.at(drawn[step], index.flatten().numpy(), 1)
    bounds = np.array(watched.bounds)[:, None]
    whole = [found for found in watched.sums if len(found) == len(watched.sums[0])]
    parts = [np.stack([found[kind].numpy() for found in whole]) for kind in range(len(whole[0]))]
    parts[0] = parts[0] / bounds[: len(whole)]
    return Played(
        tuple(parts),
        board.places.numpy(),
        stated_noise(mechanism)[: len(parts)],
        drawn > 0,
        np.array([float(len(index)) for index in watched.drawn]),
        board.examples // members,
        tuple(watched.releases),
        bool((drawn > 1).any()),
        frozenset(() if watched.statistic is None else watched.statistic.over),
    )
