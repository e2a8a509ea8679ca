"""Mechanisms with one fault each, of the kind that is found in programs and papers. A check of ours
must find every one of them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.objective import TwoViewModel, TwoViews
from secure_fl.objectives.unit_objectives import SecondMoment
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.mechanisms.group import GroupUnits
from secure_fl.privacy.noise import NoiseSource
from secure_fl.privacy.unit_gradients import clipped_sum
from secure_fl_kernels.reference import normalize

BOTH = frozenset({Adjacency.ADD_REMOVE, Adjacency.REPLACE_ONE})


def alignment(_h: Tensor, z: Tensor) -> Tensor:
    """A loss of single examples, `[U, 2, D]` -> `[U]`; its gradient is long enough to
    be clipped.
    """
    unit = normalize(z)
    return -20 * (unit[:, 0] * unit[:, 1]).sum(1)


def nt_xent_rows(z: Tensor, temperature: float) -> Tensor:
    """NT-Xent over all of `[N, 2, D]`, cut into N terms: each still depends on everybody."""
    unit = normalize(z).transpose(0, 1).flatten(0, 1)
    similarity = (unit @ unit.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(unit)).roll(len(z))
    return nn.functional.cross_entropy(similarity, partner, reduction="none").view(2, -1).sum(0)


def flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


@dataclass
class Sum:
    """What the faults have in common: a sum at sensitivity C, and 2C when one is replaced."""

    bound: float = 1.0
    adjacencies: frozenset[Adjacency] = BOTH

    def sensitivity(self, adjacency: Adjacency) -> list[float]:
        return [self.bound * (2 if adjacency is Adjacency.REPLACE_ONE else 1)]


@dataclass
class PerExample(Sum):
    """Not broken: what the others are variations of."""

    def released_sums(self, model: nn.Module, views: Tensor) -> list[Tensor]:
        return [flat(clipped_sum(model, views.flatten(0, 1), 2, alignment, self.bound).gradients)]


@dataclass
class NaiveNTXent(Sum):
    """Per-example clipping under NT-Xent, as Opacus does it with `hooks` or `ghost`; this project's
    own sum refuses it.
    """

    temperature: float = 0.05
    way: str = "hooks"

    def released_sums(self, model: nn.Module, views: Tensor) -> list[Tensor]:
        return [{"hooks": self._hooks, "ghost": self._ghost}[self.way](model, views)]

    def _hooks(self, model: nn.Module, views: Tensor) -> Tensor:
        from opacus.grad_sample import GradSampleModule
        from opacus.optimizers import DPOptimizer

        with opacus(model, GradSampleModule) as wrapped:
            optimiser = DPOptimizer(
                sgd(wrapped),
                noise_multiplier=0.0,
                max_grad_norm=self.bound,
                expected_batch_size=len(views),
                loss_reduction="sum",
            )
            nt_xent_rows(wrapped(views)[1], self.temperature).sum().backward()
            optimiser.clip_and_accumulate()
            return flat([p.summed_grad for p in optimiser.params]).detach()

    def _ghost(self, model: nn.Module, views: Tensor) -> Tensor:
        from opacus.grad_sample import GradSampleModuleFastGradientClipping
        from opacus.optimizers import DPOptimizerFastGradientClipping
        from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

        class Criterion:
            reduction = "sum"

            # `self` is the mechanism
            def __call__(criterion, z: Tensor, _target: Tensor) -> Tensor:  # noqa: N805
                return nt_xent_rows(z, self.temperature)

        with opacus(
            model,
            GradSampleModuleFastGradientClipping,
            max_grad_norm=self.bound,
            use_ghost_clipping=True,
        ) as wrapped:
            optimiser = DPOptimizerFastGradientClipping(
                sgd(wrapped),
                noise_multiplier=0.0,
                max_grad_norm=self.bound,
                expected_batch_size=len(views),
                loss_reduction="sum",
            )
            optimiser.zero_grad()
            loss = DPLossFastGradientClipping(wrapped, optimiser, Criterion(), loss_reduction="sum")
            loss(wrapped(views)[1], torch.zeros(len(views))).backward()
            return flat([p.grad for p in wrapped.parameters()]).detach().clone()


class opacus:  # noqa: N801 - a context manager
    """A copy of the model wrapped by Opacus, which warns of hooks and of nothing else."""

    def __init__(self, model: nn.Module, wrapper: Callable[..., Any], **options: Any) -> None:
        self._warnings = warnings.catch_warnings()
        self._model, self._wrapper, self._options = copy.deepcopy(model), wrapper, options

    def __enter__(self) -> Any:
        self._warnings.__enter__()
        warnings.simplefilter("ignore")
        self._wrapped = self._wrapper(self._model, loss_reduction="sum", **self._options)
        return self._wrapped

    def __exit__(self, *_: object) -> None:
        self._warnings.__exit__(None, None, None)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=1.0)


@dataclass
class Groups(Sum):
    """NT-Xent in groups; right as it stands."""

    adjacencies: frozenset[Adjacency] = frozenset({Adjacency.ZERO_OUT, Adjacency.REPLACE_ONE})
    members: int = 4
    views: int = 2
    temperature: float = 0.1

    def released_sums(self, model: nn.Module, views: Tensor) -> list[Tensor]:
        return [self._sum(model, views[torch.isfinite(views).flatten(1).all(1)])]

    def _sum(self, model: nn.Module, views: Tensor, present: Tensor | None = None) -> Tensor:
        units = GroupUnits(self.members, self.temperature)
        losses = (
            (lambda _, z: self._among(z, present)) if present is not None else units.unit_losses
        )
        return flat(
            clipped_sum(model, views.flatten(0, 1), 2 * self.members, losses, self.bound).gradients
        )

    def _among(self, z_URD: Tensor, present_Um: Tensor) -> Tensor:
        """NT-Xent among the members that are there, `[U]`; zero where fewer than two are."""
        pairs_UmVD = z_URD.unflatten(1, (2, self.members)).transpose(1, 2)
        there = zip(pairs_UmVD, present_Um, strict=True)
        return torch.stack(
            [
                nt_xent_rows(pairs[here], self.temperature).mean() / 2
                if here.sum() > 1
                else 0 * pairs.sum()
                for pairs, here in there
            ]
        )


@dataclass
class KeepsIncompleteGroups(Groups):
    """The rest of a group with a missing member is used all the same: 2C charged at C."""

    def released_sums(self, model: nn.Module, views: Tensor) -> list[Tensor]:
        present = torch.isfinite(views).flatten(2).all(2).unflatten(1, (2, -1)).all(1)
        return [self._sum(model, views.nan_to_num(0, 0, 0), present)]


@dataclass
class GroupsBySimilarity(Groups):
    """Hard negatives: examples that look alike are put together, so that one of them moves all
    the others.
    """

    def released_sums(self, model: nn.Module, views: Tensor) -> list[Tensor]:
        examples = (
            views[torch.isfinite(views).flatten(1).all(1)]
            .unflatten(1, (2, -1))
            .transpose(1, 2)
            .flatten(0, 1)
        )
        if len(examples) == 0:
            return [self._sum(model, views[:0])]
        rows = normalize(examples[:, 0].flatten(1))
        order = (rows @ rows[0]).argsort(descending=True)
        return [
            self._sum(
                model,
                examples[order].unflatten(0, (-1, self.members)).transpose(1, 2).flatten(1, 2),
            )
        ]


@dataclass
class ActualBatchSize(Sum):
    """The sum is divided by how many examples were drawn, where the claim is C over how many
    were expected.
    """

    expected: int = 16

    def sensitivity(self, adjacency: Adjacency) -> list[float]:
        return [claim / self.expected for claim in super().sensitivity(adjacency)]

    def released_sums(self, model: nn.Module, views: Tensor) -> list[Tensor]:
        return [
            flat(clipped_sum(model, views.flatten(0, 1), 2, alignment, self.bound).gradients)
            / max(1, len(views))
        ]


@dataclass
class ReplaceOneAtC(PerExample):
    """The bound for a missing example is charged for another one."""

    def sensitivity(self, adjacency: Adjacency) -> list[float]:
        return [self.bound]


@dataclass
class BothViewsCounted(Sum):
    """A second moment to which each view gives norm 1, where 1 is claimed for both."""

    def released_sums(self, model: nn.Module, views: Tensor) -> list[Tensor]:
        z = model(views.flatten(0, 1))[1].detach()
        return [
            2
            * SecondMoment(z.shape[1])
            .contributions(z.unflatten(0, (-1, 2)))
            .nan_to_num(0, 0, 0)
            .sum(0)
        ]


@dataclass
class SameKeyForEveryLeaf:
    """Every parameter's noise starts the same stream again."""

    deviation: float = 1.0
    steps: int = 0

    def gradients(self, model: nn.Module, views: Tensor, stream: object) -> None:
        self.steps += 1
        for parameter in model.parameters():
            again = NoiseSource.for_tests(self.steps).stream(client=0, round=0, purpose="leaf")
            parameter.grad = again.gaussian(parameter.shape, self.deviation)


def chunked_sum(
    model: nn.Module, views: Tensor, order: list[int], members: int, groups: Groups
) -> Tensor:
    """Shuffle, then cut into groups: examples `[N, 2, ...]` in this order, the rest dropped."""
    full = len(order) // members * members
    chosen = (
        views[torch.tensor(order[:full])].unflatten(0, (-1, members)).transpose(1, 2).flatten(1, 2)
    )
    return groups.released_sums(model, chosen)[0]


@dataclass
class Lying:
    """An objective that declares what it is told to."""

    honest: Any
    declared: dict[str, Coupling]
    group_size: int = 2

    @property
    def weights(self) -> Any:
        return self.honest.weights

    @property
    def couplings(self) -> Any:
        return {**self.honest.couplings, **self.declared}

    @property
    def coupling(self) -> Coupling:
        return cast("Coupling", max(self.couplings.values()))

    def terms(self, batch: TwoViews, model: TwoViewModel) -> dict[str, Tensor]:
        return cast("dict[str, Tensor]", self.honest.terms(batch, model))


@dataclass(frozen=True)
class InGroups:
    """NT-Xent within groups of neighbouring examples, as an objective; declares the size that it
    is given.
    """

    members: int
    group_size: int

    weights = {"nt_xent": 1.0}  # noqa: RUF012
    couplings = {"nt_xent": Coupling.GROUP}  # noqa: RUF012
    coupling = Coupling.GROUP

    def terms(self, batch: TwoViews, model: TwoViewModel) -> dict[str, Tensor]:
        z = torch.stack([model(batch.first)[1], model(batch.second)[1]], 1)
        full = len(z) // self.members * self.members
        units = z[:full].unflatten(0, (-1, self.members)).transpose(1, 2).flatten(1, 2)
        losses = GroupUnits(self.members, 0.5).unit_losses(units, units)
        return {"nt_xent": losses.sum() / (len(z) / self.members)}


def mixup(x: Tensor) -> Tensor:
    """An augmentation that puts a part of another example into each."""
    return 0.6 * x + 0.4 * x[torch.randperm(len(x))]
