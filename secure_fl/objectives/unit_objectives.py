"""Objectives cut into units: one loss an example, so that clipping each one's gradient bounds what
it adds.

An objective whose examples meet in a statistic only falls apart into units once that statistic has
been released: the released value is a constant, and a unit's loss then depends on the unit's own
rows and on it, on nothing else. `unit_form` finds the unit form of an objective, or says which
mechanism fits one that has none.

Suffixes: U units, R rows of a unit (an example's views), D dimensions, F features, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import TypeIs

from secure_fl.errors import PrivacyError
from secure_fl.objectives.contrastive import NTXent, SpectralContrastive
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.objective import Objective
from secure_fl.objectives.random_features import PAIRS, KernelMean, RandomFeatures
from secure_fl.objectives.separation import Separation
from secure_fl.objectives.ssd import SSD
from secure_fl_kernels.reference import Direction, DSRForm, dsr_target, normalize


class Statistic(Protocol):
    """A sum over the examples through which alone they meet."""

    @property
    def dimension(self) -> int:
        """D, the width of the embeddings it is taken of."""

    @property
    def size(self) -> int:
        """Length of a contribution."""

    def contributions(self, z: Tensor) -> Tensor:
        """`[U, R, D]` -> `[U, size]`, every row of norm at most 1 in total, all views together."""

    def mean(self, noised_sum: Tensor, expected_units: float, deviation: float) -> Tensor:
        """What `unit_losses` takes, from the noised sum `[size]`: post-processing.

        Args:
            expected_units: the public constant to divide by.
            deviation: of the noise in each coordinate of the sum.
        """


class UnitObjective(Protocol):
    """An objective as one loss a unit."""

    @property
    def coupling(self) -> Coupling:
        """Of what is left once `statistic` is released: `PER_EXAMPLE`, or `GROUP`."""

    @property
    def statistic(self) -> Statistic | None:
        """What must be released before the step."""

    def unit_losses(self, h: Tensor, z: Tensor, released: Tensor | None) -> Tensor:
        """`h` `[U, R, F]`, `z` `[U, R, D]` -> `[U]`, each from its rows and `released` only."""


@runtime_checkable
class DrawnAnew(Protocol):
    """A unit objective of which something public, such as a random map, is drawn in every step."""

    def at(self, step: int) -> UnitObjective:
        """As in a step of one call of training; steps are counted from 0."""


class TargetObjective(Protocol):
    """A loss of a model's outputs and a target of the same unit: labels, hidden pixels."""

    @property
    def coupling(self) -> Coupling:
        """`PER_EXAMPLE`."""

    def target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """`outputs` `[U, R, D]` and `targets` `[U, ...]` -> `[U]`."""


@dataclass(frozen=True)
class CrossEntropy:
    """The mean over a unit's rows of the cross-entropy with its label, int64 `[U]`."""

    coupling: Coupling = Coupling.PER_EXAMPLE

    def target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        labels = targets[:, None].expand(outputs.shape[:2])
        return functional.cross_entropy(outputs.mT, labels, reduction="none").mean(1)


@dataclass(frozen=True)
class SecondMoment:
    """E ẑẑᵀ over both views, `[D, D]`, in the coordinates (diagonal, √2·upper triangle), where
    ‖ẑẑᵀ‖ is its Frobenius norm, 1.
    """

    dimension: int

    @property
    def size(self) -> int:
        return self.dimension * (self.dimension + 1) // 2

    def contributions(self, z_URD: Tensor) -> Tensor:
        unit = normalize(z_URD)
        moment = unit.mT @ unit / z_URD.shape[1]
        i, j = self._upper(z_URD.device)
        return torch.cat([moment.diagonal(dim1=1, dim2=2), sqrt(2) * moment[:, i, j]], 1)

    def mean(self, noised_sum: Tensor, expected_units: float, deviation: float) -> Tensor:
        """The symmetric `[D, D]`."""
        i, j = self._upper(noised_sum.device)
        upper = noised_sum.new_zeros(self.dimension, self.dimension)
        upper[i, j] = noised_sum[self.dimension :] / sqrt(2)
        return (upper + upper.T + noised_sum[: self.dimension].diag()) / expected_units

    def _upper(self, device: torch.device) -> tuple[Tensor, Tensor]:
        i, j = torch.triu_indices(self.dimension, self.dimension, offset=1, device=device)
        return i, j


@dataclass(frozen=True)
class SpectralUnits:
    """Spectral contrastive: −2 ẑ¹·ẑ² + 2 mean over views of ẑᵀMẑ.

    With M the moment itself and not a constant the second term would be ‖M‖², whose gradient is
    2⟨M, ∂M⟩: the same.
    """

    statistic: SecondMoment
    coupling: Coupling = Coupling.PER_EXAMPLE

    def unit_losses(self, h: Tensor, z_URD: Tensor, released: Tensor | None) -> Tensor:
        assert released is not None
        unit = normalize(z_URD)
        return -2 * (unit[:, 0] * unit[:, 1]).sum(1) + 2 * ((unit @ released) * unit).sum(2).mean(1)


@dataclass(frozen=True, eq=False)
class SSDUnits:
    """align + β·uniformity + γ·DSR + δ·PD, with uniformity's kernel by random features; terms of
    weight 0 are left out.

    Attributes:
        statistic: of uniformity; None where β is 0.
    """

    statistic: KernelMean | None
    beta: float
    gamma: float
    delta: float
    separation: Separation | None
    form: DSRForm
    temperature: float
    direction: Direction
    coupling: Coupling = Coupling.PER_EXAMPLE

    def at(self, step: int) -> SSDUnits:
        """With the random features of a step."""
        statistic = None if self.statistic is None else self.statistic.at(step)
        return replace(self, statistic=statistic)

    def unit_losses(self, h_URF: Tensor, z_URD: Tensor, released: Tensor | None) -> Tensor:
        unit = normalize(z_URD)
        losses = (unit[:, 0] - unit[:, 1]).square().sum(1)
        if self.statistic is not None:
            assert released is not None
            losses = losses + self.beta * self.statistic.unit_losses(z_URD, released)
        if self.separation is not None and self.gamma:
            losses = losses + self.gamma * dsr_rows(z_URD, self.separation, self.form).mean(1)
        if self.separation is not None and self.delta:
            losses = losses + self.delta * distillation_rows(
                h_URF, z_URD, self.temperature, self.direction
            ).mean(1)
        return losses


def dsr_rows(z: Tensor, separation: Separation, form: DSRForm) -> Tensor:
    """The squared forms of the dimension-scaled regulariser of each row of `[..., D]`; their mean
    is `dsr_loss`.

    Raises:
        PrivacyError: the form is `code`, a norm over the whole batch.
    """
    if form == "code":
        raise _code_form()
    if separation.alpha == 1:
        return (z * 0).sum(-1)
    rows = z.flatten(0, -2)
    target = dsr_target(rows, separation.dims, separation.alpha, separation.basis).detach()
    residual = normalize(rows) - (target if form == "paper" else normalize(target))
    return residual.square().sum(1).reshape(z.shape[:-1])


def distillation_rows(h: Tensor, z: Tensor, temperature: float, direction: Direction) -> Tensor:
    """KL divergence between the softmaxes of each row of `h` and `z`, both `[..., D]`; their mean
    is `distillation_loss`.

    Raises:
        PrivacyError: h and z have different widths.
    """
    if h.shape != z.shape:
        problem = "distillation needs h and z of one width"
        remedy = "leave model.embedding out, or set objective.delta = 0"
        raise PrivacyError(problem, field="model.embedding", value=z.shape[-1], remedy=remedy)
    log_h, log_z = (functional.log_softmax(each / temperature, -1) for each in (h, z))
    target, other = (log_z, log_h) if direction == "projector_to_encoder" else (log_h, log_z)
    return (target.exp() * (target - other)).sum(-1)


def unit_form(
    objective: Objective | UnitObjective, dimension: int, seed: int, *, pairs: int = PAIRS
) -> UnitObjective:
    """The objective as one loss an example.

    Args:
        dimension: width of z.
        seed: public; draws the random features, those of step 0 here.
        pairs: of random features.

    Raises:
        PrivacyError: examples depend on each other through more than a statistic; names what to
            use instead.
    """
    if has_units(objective):
        return objective
    if isinstance(objective, SpectralContrastive):
        return SpectralUnits(SecondMoment(dimension))
    if isinstance(objective, SSD):
        return _ssd(objective, dimension, seed, pairs)
    if isinstance(objective, NTXent):
        raise _contrastive(objective)
    problem = "has no form with one loss an example"
    remedy = "give it the parts of a UnitObjective, or use client-level privacy"
    raise PrivacyError.of_kind(problem, "objective", objective, remedy)


def has_units(objective: object) -> TypeIs[UnitObjective]:
    """Whether it is cut into units already."""
    return all(hasattr(objective, name) for name in ("unit_losses", "statistic", "coupling"))


def _ssd(objective: SSD, dimension: int, seed: int, pairs: int) -> SSDUnits:
    weights, config = objective.weights, objective.config
    if "nt_xent" in weights:
        raise _contrastive(objective)
    if "dsr" in weights and config.form == "code":
        raise _code_form()
    statistic = None
    if "uniformity" in weights:
        statistic = KernelMean(RandomFeatures.draw(dimension, config.t, seed, pairs))
    names, form = ("uniformity", "dsr", "distillation"), config.form
    beta, gamma, delta = (weights.get(name, 0.0) for name in names)
    own, temperature = objective.separation, config.distillation_temperature
    return SSDUnits(statistic, beta, gamma, delta, own, form, temperature, config.direction)


def _contrastive(objective: object) -> PrivacyError:
    problem = "NT-Xent couples every example with the whole batch"
    remedy = (
        'use mechanism = "group", which clips whole groups, or an objective whose examples '
        "meet in a statistic: spectral_contrastive, ssd"
    )
    return PrivacyError.of_kind(problem, "objective", objective, remedy)


def _code_form() -> PrivacyError:
    problem = "the code form's norm runs over the whole batch"
    remedy = 'set objective.form = "normalized"'
    return PrivacyError(problem, field="objective.form", value="code", remedy=remedy)
