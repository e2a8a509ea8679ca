"""Private training of one client: which mechanism fits an objective, and the loop that uses it.

There is no way through here to clip each example under a loss that couples the batch: an objective
either has a form with one loss a unit, which a mechanism checks when it is made, or it is refused
with the mechanism that fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from secure_fl.coins import KEY_BYTES, Coins, Draws, global_generators
from secure_fl.errors import PrivacyError, TrainingError
from secure_fl.objectives.objective import Objective
from secure_fl.objectives.random_features import PAIRS
from secure_fl.objectives.unit_objectives import TargetObjective, UnitObjective, unit_form
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.keyed_dropout import keyed_dropout, row_draws
from secure_fl.privacy.mechanisms.group import GroupNTXent, group_form
from secure_fl.privacy.mechanisms.mechanism import ExampleMechanism
from secure_fl.privacy.mechanisms.per_example import AdaptiveBound, PerExample
from secure_fl.privacy.mechanisms.released_statistics import (
    STATISTIC_SHARE,
    WIDEST,
    ReleasedStatistics,
)
from secure_fl.privacy.noise import NoiseStream
from secure_fl.privacy.remembered import changes, remembered, remembers
from secure_fl.privacy.row_isolation import check_separable
from secure_fl.privacy.rows_alone import draws_coins
from secure_fl.privacy.views_apart import ViewsOf, check_views_apart, rows_of
from secure_fl.privacy.whole_path import check_step

MechanismName = Literal["auto", "released-statistics", "group", "per-example"]
_Views = TypeVar("_Views")


@dataclass(frozen=True)
class Sampling:
    """What of a client's set and steps the accounting needs; all of it public.

    Attributes:
        examples: n, size of the index set.
        sampling_rate: q, each unit's chance a step.
        noise_multiplier: σ.
        bound: C, to which a unit's gradient is clipped.
    """

    examples: int
    sampling_rate: float
    noise_multiplier: float
    bound: float = 1.0


@dataclass(frozen=True)
class PrivateSpec:
    """One call's share of private training: SGD from a fresh optimiser."""

    steps: int
    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0


@dataclass(frozen=True, eq=False)
class PrivateTraining(Generic[_Views]):
    """One call of private training: one mechanism and one number of steps, charged as trained."""

    mechanism: ExampleMechanism[_Views]
    spec: PrivateSpec

    @property
    def event(self) -> GaussianEvent:
        """What the call is charged, as an event of the ledger."""
        return self.mechanism.event(self.spec.steps)

    def run(self, model: nn.Module, views_of: ViewsOf[_Views], stream: NoiseStream) -> None:
        """`train_privately`, of a path that `check_training` has tried."""
        train_privately(model, views_of, self.mechanism, self.spec, stream, tried=True)


def choose_mechanism(
    objective: Objective | UnitObjective | TargetObjective,
    sampling: Sampling,
    *,
    dimension: int,
    seed: int,
    pairs: int = PAIRS,
    mechanism: MechanismName = "auto",
    group_size: int = 4,
    group_views: int = 2,
    statistic_share: float = STATISTIC_SHARE,
    widest: int = WIDEST,
    adaptive: AdaptiveBound | None = None,
) -> ReleasedStatistics | PerExample | GroupNTXent:
    """A mechanism that is valid for the objective's coupling: `auto` takes released statistics or
    per-example clipping.

    Groups are taken only when asked for by name: they change the loss (negatives within a group)
    and the adjacency (zero-out).

    Args:
        dimension: width of z.
        seed, pairs: public; they give the random features of uniformity, others in every step.
        group_size, group_views: examples in a group, and views of each.
        statistic_share: of 1/σ² that goes to a released statistic.
        widest: largest width of z under a released statistic.
        adaptive: a clip bound that follows the norms, for per-example clipping.

    Raises:
        PrivacyError: the objective does not fit the mechanism; names one that does.
    """
    if mechanism == "group":
        return _in_groups(cast("Objective", objective), sampling, group_size, group_views)
    form = _uncoupled(objective, dimension, seed, pairs)
    settings = (sampling.examples, sampling.sampling_rate, sampling.noise_multiplier)
    alone = mechanism == "auto" and getattr(form, "statistic", None) is None
    if alone or mechanism == "per-example":
        return PerExample(form, *settings, adaptive or sampling.bound)
    units = cast("UnitObjective", form)
    return ReleasedStatistics(units, *settings, sampling.bound, statistic_share, widest)


def _in_groups(objective: Objective, sampling: Sampling, members: int, views: int) -> GroupNTXent:
    """NT-Xent within groups of so many examples, with so many views of each."""
    noise, rate = sampling.noise_multiplier, sampling.sampling_rate
    form = group_form(objective, members, views)
    return GroupNTXent(form, sampling.bound, noise, rate, sampling.examples)


def _uncoupled(
    objective: Objective | UnitObjective | TargetObjective, dimension: int, seed: int, pairs: int
) -> UnitObjective | TargetObjective:
    """The objective with one loss a unit: as it is where it has targets."""
    if hasattr(objective, "target_losses"):
        return cast("TargetObjective", objective)
    return unit_form(cast("Objective", objective), dimension, seed, pairs=pairs)


def train_privately(
    model: nn.Module,
    views_of: ViewsOf[_Views],
    mechanism: ExampleMechanism[_Views],
    spec: PrivateSpec,
    stream: NoiseStream,
    *,
    tried: bool = False,
) -> None:
    """Take `spec.steps` steps of SGD on noised gradients. The caller sets train or eval mode, and
    records `mechanism.event(spec.steps)`.

    **Guarantee**: of the data, the model after the last step depends on noised gradients only. No
    loss, norm or count comes out: each would be a release of its own. Coins of views and dropout
    belong to (this call's key, step, example), so one example more changes nobody else's, and no
    proof rests on their being secret.

    **Assumes**: `views_of` makes an example's views of it and of its row of coins; that is tried on
    the first step's examples. What has been tried on noise (`whole_path`) holds on the data too.

    **Not covered**: timing, which shows how many units a step had; that a refusal ends training,
    which shows that there was a reason.

    Args:
        views_of: (int64 `[U, members]` indices, a row of coins for each of them) -> views
            `[U, R, ...]`; called for U of at least 1.
        stream: one for all coins and noise of this call.
        tried: whether `check_training` has passed with this mechanism and model; only the model is
            tried again then, with the weights it has now.

    Raises:
        PrivacyError: the model or the views mix examples; or something draws coins of its own,
            or remembers.
        TrainingError: a weight is not finite after the last step.
    """
    check_separable(model)
    _Training(model, views_of, mechanism, spec, stream, tried).run()


@dataclass(eq=False)
class _Training(Generic[_Views]):
    """The steps of one call of `train_privately`, which says what each argument is.

    Attributes:
        held: what model and losses hold, digested at the first step that had units; None before.
    """

    model: nn.Module = field(repr=False)
    views_of: ViewsOf[_Views]
    mechanism: ExampleMechanism[_Views]
    spec: PrivateSpec
    stream: NoiseStream
    tried: bool
    held: dict[str, bytes] | None = None

    def run(self) -> None:
        """Take every step, and look afterwards whether anything was kept or has diverged."""
        model, spec, parameters = self.model, self.spec, self._trained
        optimiser = torch.optim.SGD(
            parameters, lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay
        )
        coins = Coins(self.stream.words(KEY_BYTES // 8).tobytes())
        for step in range(spec.steps):
            self._form_gradients(coins, step)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if self.held is not None and (changed := changes(self.held, _held(model, self.mechanism))):
            raise remembers(changed[0])
        if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
            problem = "training has diverged: a weight is not finite"
            remedy = "lower the learning rate: noise is as large as the clip bound in every element"
            raise TrainingError(problem, "lr", spec.lr, remedy)

    def _form_gradients(self, coins: Coins, step: int) -> None:
        """Draw the units of a step, and leave the noised gradients in the model."""
        mechanism = self.mechanism.at(step)
        drawn = mechanism.draw(self.stream)
        if not len(drawn):
            mechanism.gradients(self.model, cast("_Views", torch.empty(0, 1)), self.stream)
            return
        draws = coins.at(step, drawn.flatten())
        views = self._views(drawn, draws)
        of_rows = row_draws(draws, len(drawn), rows_of(views).shape[1])
        with _untouched(self._trained), keyed_dropout(self.model, of_rows):
            mechanism.gradients(self.model, views, self.stream)

    def _views(self, drawn: Tensor, draws: Draws) -> _Views:
        """The views of a step's examples; of the first ones tried before they are used."""
        if self.held is not None:
            return self.views_of(drawn, draws)
        views = check_views_apart(self.views_of, drawn, draws)
        mechanism = None if self.tried else self.mechanism
        check_step(self.model, mechanism, views, drawn.shape[1])
        self.held = _held(self.model, self.mechanism)
        return views

    @cached_property
    def _trained(self) -> list[nn.Parameter]:
        """The weights that are trained, as when training began."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def _held(model: nn.Module, mechanism: object) -> dict[str, bytes]:
    """What the model and the losses hold, trained weights aside."""
    trained = {f"model.{name}" for name, p in model.named_parameters() if p.requires_grad}
    found = remembered(model=model, objective=getattr(mechanism, "objective", None))
    return {path: digest for path, digest in found.items() if path not in trained}


@contextmanager
def _untouched(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within it nobody draws from a global generator or writes to weights: the optimiser steps."""
    before, versions = global_generators(), [parameter._version for parameter in parameters]
    yield
    if before != global_generators():
        raise draws_coins("a global generator")
    if versions != [parameter._version for parameter in parameters]:
        remedy = "change weights by their gradients only: what is written beside them has no noise"
        raise PrivacyError("writes to its weights in a step", "model", "a trained weight", remedy)
