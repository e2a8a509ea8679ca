"""InfoNCE over a whole batch, its gradient clipped pair by pair (Logit-DP, arXiv 2310.03104), with
a bound derived anew.

The loss of pairs (xᵢ, xᵢ') with unit embeddings eᵢ, eᵢ' and similarities sᵢⱼ = eᵢ·eⱼ' is Σᵢ −log
pᵢᵢ, p the softmax of each row of s/τ. Its gradient is (1/τ) Σᵢⱼ (pᵢⱼ − 1[i=j]) ∇sᵢⱼ, where ∇sᵢⱼ
depends on examples i and j only. Clip each ∇sᵢⱼ to length L; call it gᵢⱼ.

**Bound.** Add example x to n others; primes are its presence. Old rows lose weight to the new
column, p'ᵢⱼ = pᵢⱼ(1 − p'ᵢₓ), so the sum moves by

    (1/τ) [ Σⱼ (pₓⱼ − 1[j=x]) gₓⱼ  +  Σᵢ p'ᵢₓ (gᵢₓ − Σⱼ pᵢⱼ gᵢⱼ) ].

The new row has length at most 2L(1 − pₓₓ), and pₓₓ ≥ 1/(1 + n·e^(2/τ)), since similarities lie in
[−1, 1]. Each bracket of the columns has length at most 2L, and p'ᵢₓ ≤ e^(2/τ)/(n + e^(2/τ)). With
E = e^(2/τ), therefore,

    Δ(n) = (2L/τ) · [ nE/(1 + nE) + nE/(n + E) ],

which grows with n. It is attained: all old anchors u and old keys −u, the new anchor −u and the new
key u, and gradients that point alike. The second term is the price of coupling. It nears e^(2/τ)
for large batches, so one example counts like 1 + e^(2/τ) of its kind: 8 at τ = 1, 55 at 0.5, and
the whole batch at 0.1. Where groups do better, below τ = 0.5, this mechanism is refused.

The program published with the paper bounds the mean gradient by L·(1/n + min(2E/(n + E − 1), 2)),
without 1/τ and with half of the row: the instance above exceeds it 5 times at τ = 0.2. Nothing is
taken from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Self

import torch
from torch import Tensor, nn

from secure_fl.errors import PrivacyError
from secure_fl.experimental.row_grams import embeddings_and_grams
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.mechanisms.mechanism import check_settings, flat, write_gradients
from secure_fl.privacy.noise import NoiseStream
from secure_fl.privacy.sampling import draw_examples
from secure_fl_kernels.reference import normalize

LOWEST_TEMPERATURE = 0.5
_LONGEST = 1e12
"""Longer Jacobians, in pair bounds, count as not finite: clipped, they would be rounding errors."""
_SLACK = 1e-6
"""Of the Jacobians' lengths, added to a gradient's: eight times float32's rounding."""


def logit_sensitivity(pair_bound: float, temperature: float, others: int) -> float:
    """Δ(n): what one example moves the summed gradient by, next to `others` examples."""
    if not others:
        return 0.0
    reach = exp(min(2 / temperature, 700.0))
    moved = 1 / (1 + 1 / (others * reach)) + 1 / (1 / others + 1 / reach)
    return 2 * pair_bound / temperature * moved


def pair_coefficients(similarity: Tensor, temperature: float) -> Tensor:
    """(p − I)/τ of similarities `[N, N]`: the summed InfoNCE's derivative by each of them."""
    pairs = torch.eye(len(similarity), dtype=similarity.dtype, device=similarity.device)
    return ((similarity / temperature).softmax(1) - pairs) / temperature


@dataclass(frozen=True)
class LogitDP:
    """InfoNCE between first and second views of one Poisson sample. Off by default: `group` is
    better at nearly every setting.

    **Guarantee**: zero-out, dominated by the Poisson-subsampled Gaussian of this rate and noise
    multiplier. Given the others' coins, the sum with and without x differs by at most Δ(B − 1) =
    `bound` if x is drawn, and not at all if it is not. A draw of more than B indices releases noise
    alone; indices are public, so both neighbours do so together and the argument stands: with B
    others drawn, x's coin empties both sums. Replace-one holds by the same event, since both
    contributions lie in one ball of that radius.

    **Assumes**: the index set 0 … n − 1 is public, and a missing example is given as NaN; coins are
    secret; an example's embedding is its own (no batch statistics) and deterministic. Examples with
    NaN, infinity or a Jacobian beyond 10¹² pair bounds count as missing.

    **Not covered**: add-remove, where the number drawn would be secret; float rounding of sums and
    noise (Mironov 2012), also where it takes many Jacobians across 10¹² at once, which is a step.

    Attributes:
        temperature: τ, at least 0.5.
        pair_bound: L, to which the gradient of one pair's cosine is clipped.
        noise_multiplier: noise deviation over `bound`.
        sampling_rate: q, each index's chance a step.
        examples: n, size of the public index set.
        largest_batch: B. Six deviations above q·n waste one draw in 10⁹.

    Raises:
        PrivacyError: τ is below 0.5, or another number makes no sense.
    """

    temperature: float
    pair_bound: float
    noise_multiplier: float
    sampling_rate: float
    examples: int
    largest_batch: int

    name = "logit"
    members = 1
    adds_up = False
    adjacencies = frozenset({Adjacency.ZERO_OUT, Adjacency.REPLACE_ONE})

    def __post_init__(self) -> None:
        if not self.temperature >= LOWEST_TEMPERATURE:
            problem = "one example would weigh like 55 others or more; a group of m costs m"
            remedy = 'use mechanism = "group", or a temperature of 0.5 or more'
            raise PrivacyError(problem, "temperature", self.temperature, remedy)
        check_settings(self.examples, self.sampling_rate, self.noise_multiplier, self.pair_bound)
        if self.largest_batch < 2:
            remedy = "use six deviations above q·n"
            raise PrivacyError("holds no pair", "largest_batch", self.largest_batch, remedy)

    @property
    def bound(self) -> float:
        """Δ(B − 1): the sensitivity with everybody else of the largest batch beside one."""
        return logit_sensitivity(self.pair_bound, self.temperature, self.largest_batch - 1)

    def sensitivity(self, adjacency: Adjacency) -> list[float]:
        """What one example moves the released sum by."""
        return [self.bound * (2 if adjacency is Adjacency.REPLACE_ONE else 1)]

    def event(self, steps: int) -> GaussianEvent:
        return GaussianEvent(self.noise_multiplier, self.sampling_rate, steps)

    def at(self, step: int) -> Self:
        return self

    def draw(self, stream: NoiseStream) -> Tensor:
        """Indices `[U, 1]`; none if more than `largest_batch` are drawn."""
        drawn = draw_examples(self.examples, self.sampling_rate, stream)[:, None]
        return drawn if len(drawn) <= self.largest_batch else drawn[:0]

    def released_sums(self, model: nn.Module, views: Tensor) -> list[Tensor]:
        """The clipped gradient of the summed loss over `[U, 2, ...]`: `[P]`."""
        return [flat(self._sum(model, views))]

    def gradients(self, model: nn.Module, views: Tensor, stream: NoiseStream) -> None:
        """Write the noised sum over q·n to `.grad`."""
        deviation, expected = self.noise_multiplier * self.bound, self.sampling_rate * self.examples
        write_gradients(model, self._sum(model, views), deviation, expected, stream)

    def _sum(self, model: nn.Module, views: Tensor) -> list[Tensor]:
        """One tensor a trainable parameter, in their order."""
        if len(views) > self.largest_batch:
            problem = "more examples than the bound was made for"
            raise PrivacyError(problem, "views", "not shown", "draw with this mechanism's draw()")
        trained = [p for p in model.parameters() if p.requires_grad]
        if len(views) == 0:
            return [torch.zeros_like(p) for p in trained]
        embedded, grams = embeddings_and_grams(model, views)
        squares = grams.diagonal(dim1=2, dim2=3).sum((1, 2))
        short = squares <= (_LONGEST * self.pair_bound) ** 2
        kept = torch.isfinite(grams.sum((1, 2, 3))) & short
        if int(kept.sum()) < 2:
            return [torch.zeros_like(p) for p in trained]
        scale = self._scale(embedded[kept], grams[kept])
        rows = views[kept].flatten(0, 1)
        unit = normalize(model(rows)[1]).unflatten(0, (-1, 2))
        similarity = unit[:, 0] @ unit[:, 1].T
        weight = pair_coefficients(similarity.detach(), self.temperature) * scale.to(similarity)
        loss = (weight * similarity).sum()
        return list(torch.autograd.grad(loss, trained, materialize_grads=True))

    def _scale(self, embedded: Tensor, grams: Tensor) -> Tensor:
        """min(1, L/u) `[N, N]`, u ≥ ‖Jᵢᵀeⱼ' + Jⱼ'ᵀeᵢ‖ by the triangle inequality."""
        first, second = embedded.double().unbind(1)
        by_first = torch.einsum("jd,ide,je->ij", second, grams[:, 0], second).clamp_min(0).sqrt()
        by_second = torch.einsum("id,jde,ie->ij", first, grams[:, 1], first).clamp_min(0).sqrt()
        longest = grams.diagonal(dim1=2, dim2=3).sum(2).sqrt()
        length = by_first + by_second + _SLACK * (longest[:, :1] + longest[:, 1])
        return self.pair_bound / length.clamp_min(self.pair_bound)
