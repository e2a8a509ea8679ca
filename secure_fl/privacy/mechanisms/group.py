"""NT-Xent, true to its definition, in small disjoint groups: examples meet within a group only, and
each group is clipped as a whole.

A step of `GroupNTXent`:

1. a fresh uniformly random partition of the public index set 0 … n − 1 into groups of exactly m, by
   coins that know neither data nor model;
2. each group is drawn with probability q, independently;
3. a group with a missing or broken member contributes zero;
4. h_G = clip_C(∇ loss(G)); the sum of these, with noise N(0, σ²C²), is divided by q·⌊n/m⌋,
   a constant.

**Guarantee** (zero-out): at most one group holds x. If it is not drawn, or x is missing, it adds
zero; if it is, a vector of length at most C. Given the partition and all other coins r, the pair is
((1 − q)N(μ_r) + q·N(μ_r + h), N(μ_r)). The Poisson-subsampled Gaussian (q, σ) dominates it, and
joint convexity of the hockey-stick divergence carries that over to the mixture over r. Replace-one:
both contributions lie in one ball of radius C, so the same event holds, charged at replace-one.

**More views.** A group is what is clipped, so its members may have any number V ≥ 2 of views: the
proof above never counts them. The loss is then the mean over the group's V·m rows i of

    −1/(V − 1) Σ_p log( exp(s_ip/τ) / Σ_{a≠i} exp(s_ia/τ) ),   p: the other views of i's example,

with s the cosine similarity: the supervised contrastive loss L_out with each example for a class
(Khosla et al. 2020, arXiv 2004.11362, equation 2); for V = 2 it is NT-Xent. A step passes V/2 times
as many rows through the network.

**Why the third rule.** If the rest of an incomplete group were kept, x's absence would turn clip(∇
loss(G)) into clip(∇ loss(G∖x)): two vectors that may point apart, 2C. For the same reason an order
of the *present* examples, cut into groups, is not covered at C: one example more moves others to
new groups.

**Assumes**: coins of sampling and grouping stay secret; no hard negatives, clusters or anything
learned in the grouping; no batch statistics, queue or other path between groups; a member's views
depend on its own coins; an example is in at most one group a step.

**Not covered**: float rounding of sums and noise (Mironov 2012); a choice of m, q or C made by
looking at the data.

Suffixes: U groups, R = V·m rows of a group (the first views of its m members, then the second ones,
and so on), V views, m members, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from secure_fl.errors import PrivacyError
from secure_fl.objectives.contrastive import NTXent
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.objective import Objective
from secure_fl.objectives.separation import Separation
from secure_fl.objectives.ssd import SSD
from secure_fl.objectives.unit_objectives import distillation_rows, dsr_rows
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.mechanisms.mechanism import check_settings, flat, write_gradients
from secure_fl.privacy.noise import NoiseStream
from secure_fl.privacy.sampling import draw_groups
from secure_fl.privacy.unit_gradients import Method, clipped_sum
from secure_fl_kernels.functional import group_nt_xent_loss
from secure_fl_kernels.reference import Direction, DSRForm, normalize

SMALLEST_GROUP, LARGEST_GROUP = 2, 16
MOST_VIEWS = 8


@dataclass(frozen=True, eq=False)
class GroupUnits:
    """One loss a group: NT-Xent within it, plus γ·DSR and δ·PD as means over its rows."""

    members: int
    temperature: float
    gamma: float = 0.0
    delta: float = 0.0
    separation: Separation | None = None
    form: DSRForm = "normalized"
    distillation_temperature: float = 0.5
    direction: Direction = "projector_to_encoder"
    views: int = 2
    coupling: Coupling = Coupling.GROUP
    statistic: None = None

    def unit_losses(self, h_URF: Tensor, z_URD: Tensor, released: Tensor | None = None) -> Tensor:
        """The loss of each group from its own rows: `[U]`."""
        losses = self._contrast(z_URD)
        if self.separation is not None and self.gamma:
            losses = losses + self.gamma * dsr_rows(z_URD, self.separation, self.form).mean(1)
        if self.separation is not None and self.delta:
            rows_UR = distillation_rows(h_URF, z_URD, self.distillation_temperature, self.direction)
            losses = losses + self.delta * rows_UR.mean(1)
        return losses

    def _contrast(self, z_URD: Tensor) -> Tensor:
        """NT-Xent within each group: `[U]`."""
        if self.views > 2:
            return many_view_losses(z_URD, self.members, self.temperature)
        first, second = z_URD.unflatten(1, (2, self.members)).unbind(1)
        return group_nt_xent_loss(
            first.flatten(0, 1), second.flatten(0, 1), self.members, self.temperature
        )


def many_view_losses(z_URD: Tensor, members: int, temperature: float) -> Tensor:
    """The loss above of each group of so many members, for any number of views: `[U]`."""
    unit_URD = normalize(z_URD)
    rows = torch.arange(z_URD.shape[1], device=z_URD.device)
    alike_RR = rows[:, None] % members == rows % members
    itself_RR = rows[:, None] == rows
    logits_URR = (unit_URD @ unit_URD.mT / temperature).masked_fill(itself_RR, -torch.inf)
    positive_RR = alike_RR & ~itself_RR
    log_p_URR = logits_URR.log_softmax(2).masked_fill(~positive_RR, 0)
    return -log_p_URR.sum((1, 2)) / positive_RR.sum()


def group_form(objective: Objective, members: int, views: int = 2) -> GroupUnits:
    """NT-Xent, or SSD around it, as one loss a group. Raises PrivacyError for all else."""
    _check_form(members, views)
    if isinstance(objective, NTXent):
        return GroupUnits(members, objective.temperature, views=views)
    if not (isinstance(objective, SSD) and "nt_xent" in objective.weights):
        remedy = 'use mechanism = "released-statistics", or objective "nt_xent" or "ssd_nt_xent"'
        raise PrivacyError("has no form in groups", "objective", type(objective).__name__, remedy)
    weights, config = objective.weights, objective.config
    if "dsr" in weights and config.form == "code":
        problem = "the code form's norm is no mean over rows"
        raise PrivacyError(problem, "objective.form", "code", 'set objective.form = "normalized"')
    return GroupUnits(
        members,
        config.temperature,
        weights.get("dsr", 0.0),
        weights.get("distillation", 0.0),
        objective.separation,
        config.form,
        config.distillation_temperature,
        config.direction,
        views,
    )


def _check_form(members: int, views: int) -> None:
    """Refuse groups that are too small or too large, and views that nobody would wait for."""
    if not SMALLEST_GROUP <= members <= LARGEST_GROUP:
        problem = f"groups have {SMALLEST_GROUP} to {LARGEST_GROUP} members"
        remedy = "use 4 or 8: larger groups dilute the signal, two members are one negative pair"
        raise PrivacyError(problem, "group_size", members, remedy)
    if not 2 <= views <= MOST_VIEWS:
        problem = f"examples have 2 to {MOST_VIEWS} views"
        raise PrivacyError(problem, "group_views", views, "use 2, or 4")


@dataclass(frozen=True, eq=False)
class GroupNTXent:
    """Per-group clipping of NT-Xent among the examples of a group.

    Attributes:
        units: the loss, from `group_form`.
        bound: C, to which a group's gradient is clipped.
        noise_multiplier: σ; the noise's deviation is σ·C.
        sampling_rate: q, of a group.
        examples: n, size of the public index set.
        method: how gradients are clipped (`unit_gradients.clipped_sum`).

    Raises:
        PrivacyError: a number makes no sense, or there are too few examples for one group.
    """

    units: GroupUnits
    bound: float
    noise_multiplier: float
    sampling_rate: float
    examples: int
    method: Method = "ghost"

    name = "group"
    adjacencies = frozenset({Adjacency.ZERO_OUT, Adjacency.REPLACE_ONE})

    def __post_init__(self) -> None:
        check_settings(self.examples, self.sampling_rate, self.noise_multiplier, self.bound)
        if self.examples < self.members:
            problem = f"they do not fill one group of {self.members}"
            remedy = "use smaller groups, or client-level privacy"
            raise PrivacyError(problem, "examples", self.examples, remedy)

    @property
    def members(self) -> int:
        """How many examples a group has: m."""
        return self.units.members

    @property
    def views(self) -> int:
        """How many views an example has: V."""
        return self.units.views

    def sensitivity(self, adjacency: Adjacency) -> list[float]:
        """What one example moves the sum by: C, present or missing; 2C, replaced."""
        return [self.bound * (2 if adjacency is Adjacency.REPLACE_ONE else 1)]

    def event(self, steps: int) -> GaussianEvent:
        return GaussianEvent(self.noise_multiplier, self.sampling_rate, steps)

    def at(self, step: int) -> Self:
        return self

    @property
    def expected_units(self) -> float:
        """What sums are divided by: the expected number of groups. Public, whatever is drawn."""
        return self.sampling_rate * (self.examples // self.members)

    def draw(self, stream: NoiseStream) -> Tensor:
        """Indices `[U, m]` of the groups drawn."""
        return draw_groups(self.examples, self.members, self.sampling_rate, stream)

    def released_sums(self, model: nn.Module, views: Tensor) -> list[Tensor]:
        """Σ clip_C(∇ loss(G)) over `[U, V·m, ...]`, missing members NaN: `[P]`."""
        return [flat(self._sum(model, views))]

    def gradients(self, model: nn.Module, views: Tensor, stream: NoiseStream) -> None:
        """Write the noised sum over the expected number of groups to `.grad`."""
        deviation = self.noise_multiplier * self.bound
        write_gradients(model, self._sum(model, views), deviation, self.expected_units, stream)

    def _sum(self, model: nn.Module, views: Tensor) -> list[Tensor]:
        """The clipped sum over groups, one tensor for each trainable parameter."""
        if len(views) == 0:
            return clipped_sum(model, views, 1, self.units.unit_losses, self.bound).gradients
        by_view = (self.views, self.members)
        present_Um = torch.isfinite(views).flatten(2).all(2).unflatten(1, by_view).all(1)
        counts_U = present_Um.all(1)
        absent_UR = ~present_Um.repeat(1, self.views)
        # Groups that do not count stay, so that all others keep their places and coins; their loss
        # is the constant 0.
        views = views.masked_fill(absent_UR.view(*absent_UR.shape, *[1] * (views.ndim - 2)), 0)

        def losses(h: Tensor, z: Tensor) -> Tensor:
            losses_U = self.units.unit_losses(h, z)
            return torch.where(counts_U, losses_U, torch.zeros_like(losses_U))

        rows, method = views.flatten(0, 1), self.method
        return clipped_sum(model, rows, views.shape[1], losses, self.bound, method=method).gradients
