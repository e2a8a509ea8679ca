"""Private training of one client: which mechanism fits an objective, and the loop that uses it.

There is no way through here to clip each example under a loss that couples the batch: an objective
either has a form with one loss a unit, which a mechanism checks when it is made, or it is refused
with the mechanism that fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, cast

import torch
from torch import nn

from secure_fl.coins import KEY_BYTES, Coins, global_generators
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
from secure_fl.privacy.remembered import changes, remembered
from secure_fl.privacy.row_isolation import check_separable
from secure_fl.privacy.rows_alone import draws_coins
from secure_fl.privacy.whole_path import ViewsOf, check_step, check_views_apart, remembers, rows_of

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
    """One call of private training: what it is charged for is what it does, since both are of one
    mechanism and one number of steps.
    """

    mechanism: ExampleMechanism[_Views]
    spec: PrivateSpec

    @property
    def event(self) -> GaussianEvent:
        """What the call costs."""
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
        seed: public; draws the random features of uniformity.
        pairs: of random features.
        group_size: examples in a group.
        statistic_share: of 1/σ² that goes to a released statistic.
        widest: largest width of z under a released statistic.
        adaptive: a clip bound that follows the norms, for per-example clipping.

    Raises:
        PrivacyError: the objective does not fit the mechanism; names one that does.
    """
    if mechanism == "group":
        units = group_form(cast("Objective", objective), group_size)
        return GroupNTXent(
            units,
            bound=sampling.bound,
            noise_multiplier=sampling.noise_multiplier,
            sampling_rate=sampling.sampling_rate,
            examples=sampling.examples,
        )
    if hasattr(objective, "target_losses"):
        form: UnitObjective | TargetObjective = cast("TargetObjective", objective)
    else:
        form = unit_form(cast("Objective", objective), dimension, seed, pairs=pairs)
    settings = (sampling.examples, sampling.sampling_rate, sampling.noise_multiplier)
    if mechanism == "per-example" or (
        mechanism == "auto" and getattr(form, "statistic", None) is None
    ):
        return PerExample(form, *settings, adaptive or sampling.bound)
    return ReleasedStatistics(
        cast("UnitObjective", form), *settings, sampling.bound, statistic_share, widest
    )


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
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(
        parameters, lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay
    )
    coins, held = Coins(stream.words(KEY_BYTES // 8).tobytes()), None
    for step in range(spec.steps):
        drawn = mechanism.draw(stream)
        if len(drawn):
            draws = coins.at(step, drawn.flatten())
            if held is None:
                views = check_views_apart(views_of, drawn, draws)
                check_step(model, None if tried else mechanism, views, drawn.shape[1])
                held = _held(model, mechanism)
            else:
                views = views_of(drawn, draws)
            with (
                _untouched(parameters),
                keyed_dropout(model, row_draws(draws, len(drawn), rows_of(views).shape[1])),
            ):
                mechanism.gradients(model, views, stream)
        else:
            mechanism.gradients(model, cast("_Views", torch.empty(0, 1)), stream)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    if held is not None and (changed := changes(held, _held(model, mechanism))):
        raise remembers(changed[0])
    if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
        remedy = "lower the learning rate: noise is as large as the clip bound in every element"
        raise TrainingError(
            "training has diverged: a weight is not finite",
            field="lr",
            value=spec.lr,
            remedy=remedy,
        )


def _held(model: nn.Module, mechanism: object) -> dict[str, bytes]:
    """What the model and the losses hold, trained weights aside."""
    trained = {
        f"model.{name}" for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    found = remembered(model=model, objective=getattr(mechanism, "objective", None))
    return {path: digest for path, digest in found.items() if path not in trained}


@contextmanager
def _untouched(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within it nobody draws from a global generator, and weights are not written to: a step is
    taken by the optimiser alone.
    """
    before, versions = global_generators(), [parameter._version for parameter in parameters]
    yield
    if before != global_generators():
        raise draws_coins("a global generator")
    if versions != [parameter._version for parameter in parameters]:
        remedy = "change weights by their gradients only: what is written beside them has no noise"
        raise PrivacyError(
            "writes to its weights in a step",
            field="model",
            value="a trained weight",
            remedy=remedy,
        )
