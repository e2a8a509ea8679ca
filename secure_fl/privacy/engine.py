"""Private training of one client: which mechanism fits an objective, and the loop that uses it.

There is no way through here to clip each example under a loss that couples the batch: an objective either has a form with one loss
a unit, which a mechanism checks when it is made, or it is refused with the mechanism that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from secure_fl.errors import TrainingError
from secure_fl.objectives.objective import Objective
from secure_fl.objectives.random_features import PAIRS
from secure_fl.objectives.units import TargetObjective, UnitObjective, unit_form
from secure_fl.privacy.mechanisms.group import GroupNTXent, group_form
from secure_fl.privacy.mechanisms.mechanism import ExampleMechanism, Labelled
from secure_fl.privacy.mechanisms.per_example import AdaptiveBound, PerExample
from secure_fl.privacy.mechanisms.released import STATISTIC_SHARE, WIDEST, ReleasedStatistics
from secure_fl.privacy.noise import NoiseStream
from secure_fl.privacy.separable import check_rows_alone, check_separable

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
    """A mechanism that is valid for the objective's coupling: `auto` takes released statistics or per-example clipping.

    Groups are taken only when asked for by name: they change the loss (negatives within a group) and the adjacency (zero-out).

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
    if mechanism == "per-example" or (mechanism == "auto" and getattr(form, "statistic", None) is None):
        return PerExample(form, *settings, adaptive or sampling.bound)
    return ReleasedStatistics(cast("UnitObjective", form), *settings, sampling.bound, statistic_share, widest)


def train_privately(
    model: nn.Module,
    views_of: Callable[[Tensor, int], _Views],
    mechanism: ExampleMechanism[_Views],
    spec: PrivateSpec,
    stream: NoiseStream,
) -> None:
    """Take `spec.steps` steps of SGD on noised gradients. The caller sets train or eval mode, and records `mechanism.event(spec.steps)`.

    **Guarantee**: of the data, the model after the last step depends on noised gradients only. No loss, norm or count comes out:
    each would be a release of its own.

    **Assumes**: `views_of` draws with the seed it is given, which is secret and new each step. With a public one an example more
    would shift all others' views, and the mechanism's proof would not hold.

    **Not covered**: timing, which shows how many units a step had; views and dropout come from torch's generator, seeded in secret but
    not a cryptographic one.

    Args:
        views_of: (int64 `[U, members]` indices, seed) -> views `[U, R, ...]`; called for U of at least 1.
        stream: one for all coins, views and noise of this call.

    Raises:
        PrivacyError: the model mixes rows.
        TrainingError: a weight is not finite after the last step.
    """
    check_separable(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(parameters, lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay)
    unchecked = True
    for _ in range(spec.steps):
        drawn = mechanism.draw(stream)
        seed = int(stream.words(1)[0])
        with _seeded(seed, parameters):
            views = views_of(drawn, seed >> 1) if len(drawn) else cast("_Views", torch.empty(0, 1))
            if unchecked and len(drawn):
                _check_on_noise(model, views)
                unchecked = False
            mechanism.gradients(model, views, stream)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
        remedy = "lower the learning rate: noise is as large as the clip bound in every element"
        raise TrainingError("training has diverged: a weight is not finite", field="lr", value=spec.lr, remedy=remedy)


def _check_on_noise(model: nn.Module, views: object) -> None:
    """Whether rows see each other in this model, on noise in the shape of its rows: what no list of layers can tell."""
    rows = views.rows if isinstance(views, Labelled) else views
    if isinstance(rows, Tensor) and rows.is_floating_point():
        check_rows_alone(model, torch.rand(4, *rows.shape[2:], dtype=rows.dtype, device=rows.device))


@contextmanager
def _seeded(seed: int, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Dropout, and what draws views from torch's global generators, follow the secret seed; the caller's random state is left alone."""
    devices = {parameter.device for parameter in parameters if parameter.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(seed)
        yield
