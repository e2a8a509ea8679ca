"""What every example-level mechanism is asked for, and the one place where gradients are noised."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from secure_fl.errors import PrivacyError
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.noise import NoiseStream
from secure_fl.privacy.sampling import check_rate

Views_contra = TypeVar("Views_contra", contravariant=True, default=Tensor)


class Labelled(NamedTuple):
    """Units, and what each one's loss is told: a label `[U]`, or what was hidden `[U, ...]`."""

    rows: Tensor
    targets: Tensor

    def __repr__(self) -> str:
        return f"Labelled(rows of shape {tuple(self.rows.shape[1:])})"


class ExampleMechanism(Protocol[Views_contra]):
    """Turns examples into noised gradients, step by step, and says what that costs.

    Views are `[U, R, ...]`, U units of R rows (`Labelled` for mechanisms that need targets). Where
    no unit is drawn they are an empty tensor `[0, 1]`, and the gradients are noise alone.
    """

    @property
    def name(self) -> str:
        """The mechanism's name, as in the configuration."""

    @property
    def adjacencies(self) -> frozenset[Adjacency]:
        """The adjacencies for which `event` is an upper bound."""

    def event(self, steps: int) -> GaussianEvent:
        """What `steps` steps are charged."""

    def at(self, step: int) -> Self:
        """As it is in a step of one call of training, counted from 0: with the public draws of
        that step, and with the same charge, noise and sensitivity.
        """

    def draw(self, stream: NoiseStream) -> Tensor:
        """This step's units, as int64 `[U, members]` indices of examples; secret."""

    def gradients(self, model: nn.Module, views: Views_contra, stream: NoiseStream) -> None:
        """Write the noised sum of clipped gradients, over a public constant, to each `grad`."""

    def released_sums(self, model: nn.Module, views: Views_contra) -> list[Tensor]:
        """The sums that noise is added to, without it: for tests of sensitivity only."""

    def sensitivity(self, adjacency: Adjacency) -> list[float]:
        """What one example changes the norm of each of them by, at most."""


def write_gradients(
    model: nn.Module,
    sums: Sequence[Tensor],
    deviation: float,
    expected_units: float,
    stream: NoiseStream,
) -> None:
    """`grad` = (sum + noise) / expected_units for every trainable parameter; each element has noise
    of its own.

    Args:
        sums: one a trainable parameter, in the model's order.
        deviation: of the noise in each element of the sums.
        expected_units: a public constant; the number of units drawn is secret.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # One draw for all: cheaper than one a parameter, and no two elements can share a draw.
    noise = stream.gaussian((sum(parameter.numel() for parameter in parameters),), deviation)
    parts = noise.split([parameter.numel() for parameter in parameters])
    for parameter, total, part in zip(parameters, sums, parts, strict=True):
        parameter.grad = (total + part.to(total).view_as(total)) / expected_units


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All elements as one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors]) if tensors else torch.empty(0)


def check_settings(
    examples: int, sampling_rate: float, noise_multiplier: float, bound: float
) -> None:
    """Refuse settings for which the accounting makes no sense: no mechanism is without noise, since
    its `event` charges for what it adds. Raises PrivacyError: naming the setting.
    """
    check_rate(sampling_rate)
    if examples < 1:
        remedy = "pass the size of the public index set"
        raise PrivacyError("no examples", "examples", examples, remedy)
    if not (isfinite(noise_multiplier) and noise_multiplier > 0):
        remedy = "calibrate it with noise_for"
        raise PrivacyError("not positive and finite", "noise_multiplier", noise_multiplier, remedy)
    if not (isfinite(bound) and bound > 0):
        raise PrivacyError("not positive and finite", "clip", bound, "begin with 1")
