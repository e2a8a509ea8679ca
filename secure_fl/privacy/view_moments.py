"""View moments: how the features of one example's views differ, summed over everybody's examples.

A fixed, public map takes an example to a unit vector of features. Augmented views of one example
scatter around their mean in directions that say nothing of what it shows; an encoder that shrinks
those directions is worth more than the map (`models.whitening`). Two sums of `example_sums` find
them. The first is of the examples' features: their mean is the centre c, at a small share of the
budget. The second is of

    W_i = 1/V · Σ_v (s_iv − m_i)(s_iv − m_i)ᵀ,   s_iv = (x_iv − c) / ‖x_iv − c‖,   m_i = mean s_iv,

the covariance of an example's V views, over its Frobenius norm where that passes a bound; and,
where the encoder is to tell examples apart too, of B_i = m_i·m_iᵀ beside it, each times √½. A
symmetric matrix is sent as its upper triangle with what is off the diagonal times √2, so that the
vector's norm is the matrix's and noise of one deviation on every field favours no direction.

**Guarantee**: each of the two sums is one release of its own `event`, for an example with all its
views as one unit, whatever the features, the views and the centre are.

*Proof.* An example's first vector is a unit vector, or zero, shrunk toward zero coordinate by
coordinate to whole numbers of `levels`: of norm L at most. Its second is W_i / max(‖W_i‖, clip), of
norm 1 at most, shrunk likewise; or √½ of that beside √½·B_i, and ‖B_i‖ = ‖m_i‖² ≤ 1 as a mean of
unit vectors is no longer than 1. Both follow from the example, its own coins, the public map and c,
which was released before: so the pair is an adaptive composition, and `example_sums` holds for
each. How many views there are does not enter.

**Assumes**: the map treats each row by itself; an augmentation makes views of one example alone,
with coins of that example's place (`data.views.own_views`), which do not depend on the data; and
what `example_sums` assumes.

**Not covered**: what `example_sums` does not cover; the prior, which is of nobody's data.

Suffixes: N examples, V views of each, R rows of a factor, F features, T fields of a triangle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import sqrt

import torch
from torch import Tensor

from secure_fl.errors import PrivacyError
from secure_fl.privacy.events import IntegerEvent
from secure_fl.privacy.example_sums import ExampleSum, Shares
from secure_fl_kernels.reference import normalize

LEVELS = 2**14
"""Grid steps in the bound of an example's matrix. Cutting 131,328 fields toward zero then leaves
99 % of a matrix of full norm; noise is thousands of steps wide.
"""
CENTRE_LEVELS = 2**12
"""Grid steps in an example's unit vector, whose fields are some hundreds of steps."""
_INSIDE = 1 - 2.0**-30
"""A vector's length before it is cut: rounding in float64 cannot take it past the bound."""
_TOGETHER, _ROWS = 4, 128
"""Examples, and rows of their matrices, computed at a time: so that they stay in cache."""


@dataclass(frozen=True)
class ViewMoments:
    """Settings of both sums, equal at every client and at whoever opens.

    Attributes:
        features: F, the width of the map.
        views: V of each example; 2 at least.
        clip: bound on the Frobenius norm of an example's W.
        between: whether B is summed beside W.
        centre, moments: the two sums, of F fields and of a triangle's, or two.

    Raises:
        PrivacyError: a setting is out of range.
    """

    features: int
    views: int
    clip: float
    between: bool
    centre: ExampleSum
    moments: ExampleSum

    def __post_init__(self) -> None:
        if self.views < 2:
            raise PrivacyError("no two to compare", "views", self.views, "2 or more")
        if not 0 < self.clip <= 1:
            problem, remedy = "no matrix of unit vectors is longer than 1", "within (0, 1]"
            raise PrivacyError(problem, "clip", self.clip, remedy)

    @classmethod
    def without_noise(
        cls, features: int, views: int, clip: float, between: bool, roster: int
    ) -> ViewMoments:
        """Sums that nothing but the secure sum hides."""
        width = _triangle(features) * (1 + between)
        sums = ExampleSum(features, CENTRE_LEVELS, roster), ExampleSum(width, LEVELS, roster)
        return cls(features, views, clip, between, *sums)

    @classmethod
    def noised(
        cls,
        features: int,
        views: int,
        clip: float,
        between: bool,
        shares: Shares,
        noise_multiplier: float,
        centre_share: float,
    ) -> ViewMoments:
        """Sums under noise that costs as much as one release with the noise multiplier given, of
        whose budget (of 1/σ²) the centre takes a share.
        """
        of_centre = noise_multiplier / sqrt(centre_share)
        of_moments = noise_multiplier / sqrt(1 - centre_share)
        centre = ExampleSum.fitted(features, CENTRE_LEVELS, shares, of_centre)
        width = _triangle(features) * (1 + between)
        moments = ExampleSum.fitted(width, LEVELS, shares, of_moments)
        return cls(features, views, clip, between, centre, moments)

    @property
    def sums(self) -> tuple[ExampleSum, ExampleSum]:
        """The two sums, in the order of their rounds."""
        return self.centre, self.moments

    def events(self) -> tuple[IntegerEvent, IntegerEvent]:
        """What the two releases cost, in order."""
        return self.centre.event(), self.moments.event()

    def sum_features(self, batches: Iterable[Tensor], examples: int) -> Tensor:
        """One client's first sum, int64 `[F + 1]`, without noise.

        Args:
            batches: features of the examples there are, `[N, F]` at a time; a row with a value that
                is not finite adds nothing.
            examples: the client's public number of examples.

        Raises:
            PrivacyError: the shape does not fit, or as `ExampleSum.total`.
        """
        return self.centre.total(map(self._of_features, batches), examples)

    def sum_moments(self, batches: Iterable[Tensor], centre: Tensor, examples: int) -> Tensor:
        """One client's second sum, int64 `[T + 1]` or `[2T + 1]`, without noise.

        Args:
            batches: features of the views of the examples there are, `[N, V, F]` at a time; an
                example with a value that is not finite adds nothing.
            centre: c, float64 `[F]`, released before.
            examples: the client's public number of examples.

        Raises:
            PrivacyError: the shape does not fit, or as `ExampleSum.total`.
        """
        if centre.shape != (self.features,) or not bool(centre.isfinite().all()):
            remedy = f"pass [{self.features}], finite"
            raise PrivacyError("not the released centre", "centre", tuple(centre.shape), remedy)
        parts = (
            self._of_views(views, centre.double())
            for batch in batches
            for views in self._checked(batch, self.views).split(_TOGETHER)
        )
        return self.moments.total(parts, examples)

    def opened_moments(self, total: Tensor, survivors: int) -> OpenedMoments:
        """What the second opened sum says. Raises PrivacyError: as `ExampleSum.opened`."""
        said = self.moments.opened(total, survivors)
        matrices = [
            _symmetric(row, self.features) / sqrt(self._share)
            for row in said.mean.view(1 + self.between, -1)
        ]
        within, *between = matrices
        deviation = said.deviation / sqrt(self._share)
        return OpenedMoments(within, between[0] if between else None, deviation, said.examples)

    @property
    def _share(self) -> float:
        """Of the squared length of an example's vector, that of each of its matrices."""
        return 1 / (1 + self.between)

    def _checked(self, batch: Tensor, views: int | None = None) -> Tensor:
        """Float64; what is not finite, with all that belongs to its example, becomes zero."""
        form = (len(batch), self.features) if views is None else (len(batch), views, self.features)
        if batch.shape != form:
            found, remedy = ("N", *batch.shape[1:]), f"pass [N, {', '.join(map(str, form[1:]))}]"
            raise PrivacyError("not examples' features", "features", found, remedy)
        rows = batch.double()
        finite = rows.flatten(1).isfinite().all(1)
        return torch.where(finite.view(-1, *[1] * (rows.ndim - 1)), rows, 0.0)

    def _of_features(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        steps = (normalize(self._checked(batch)) * (self.centre.levels * _INSIDE)).trunc()
        return steps.sum(0), steps.square().sum(1)

    def _of_views(self, views_NVF: Tensor, centre_F: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of a few examples' vectors, and the squared norm of each `[N]`."""
        there_N = views_NVF.square().sum((1, 2)) > 0
        units = normalize(normalize(views_NVF.flatten(0, 1)) - centre_F).view_as(views_NVF)
        steps_N = self.moments.levels * _INSIDE * sqrt(self._share) * there_N
        factors = [self._within(units)] + ([units.mean(1, keepdim=True)] if self.between else [])
        found = [_triangles(rows * steps_N.sqrt()[:, None, None]) for rows in factors]
        total = torch.cat([triangle for triangle, _ in found])
        return total, torch.stack([squares for _, squares in found]).sum(0)

    def _within(self, units_NVF: Tensor) -> Tensor:
        """Rows `[N, V, F]` whose products RᵀR are the clipped matrices of examples, over the clip:
        of norm 1 at most.
        """
        rows = units_NVF - units_NVF.mean(1, keepdim=True)
        norm_N = torch.linalg.matrix_norm(rows @ rows.mT) / self.views
        rows /= (self.views * norm_N.clamp_min(self.clip)).sqrt()[:, None, None]
        return rows


@dataclass(frozen=True)
class OpenedMoments:
    """What the second sum said.

    Attributes:
        within: the mean of W_i / clip, clipped, float64 `[F, F]` and symmetric.
        between: the mean of B_i likewise; None where it was not summed.
        deviation: of the noise on a diagonal entry of either; beside it, 1/√2 of that.
        examples: how many they are, as far as the noise lets tell.
    """

    within: Tensor = field(repr=False)
    between: Tensor | None = field(repr=False)
    deviation: float
    examples: int


def _triangles(rows_NRF: Tensor) -> tuple[Tensor, Tensor]:
    """Of the products RᵀR of each example's rows, cut toward zero: the sum of their triangles,
    whole numbers `[T]`, and the squared norm of each `[N]`.
    """
    size = rows_NRF.shape[2]
    total_FF = torch.zeros(size, size, dtype=torch.float64)
    squares_N = torch.zeros(len(rows_NRF), dtype=torch.float64)
    for top in range(0, size, _ROWS):  # what lies to the left of a block of rows is not sent
        block = slice(top, min(top + _ROWS, size))
        steps = torch.bmm(rows_NRF[:, :, block].mT, rows_NRF[:, :, top:])
        weights = torch.full(steps.shape[1:], sqrt(2), dtype=torch.float64).triu(1)
        steps.mul_(weights + torch.eye(*steps.shape[1:], dtype=torch.float64)).trunc_()
        total_FF[block, top:] = steps.sum(0)
        squares_N += torch.einsum("nij,nij->n", steps, steps)
    rows, columns = torch.triu_indices(size, size)
    return total_FF[rows, columns], squares_N


def _symmetric(triangle_T: Tensor, features: int) -> Tensor:
    """The matrix `[F, F]` of a triangle as it is sent."""
    rows, columns = torch.triu_indices(features, features)
    upper = torch.zeros(features, features, dtype=torch.float64)
    upper[rows, columns] = triangle_T
    off = upper.triu(1) / sqrt(2)
    symmetric: Tensor = upper.diag().diag() + off + off.T
    return symmetric


def _triangle(features: int) -> int:
    """T, the fields of a symmetric matrix."""
    return features * (features + 1) // 2
