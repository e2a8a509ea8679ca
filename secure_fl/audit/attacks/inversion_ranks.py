"""How well each candidate explains an observed gradient, by three attacks.

**Span.** A linear layer's gradient is Σ δ ⊗ a over the rows that it has seen, so its row space is
spanned by the layer's inputs a. The attacker passes many draws of each candidate's views through
the model, whose weights he knows, and looks for a view whose input lies in that space. The coins
of the views, which views are a pair, and the other images need not be known. (The first-layer
argument of Phong et al. 2018 and of Geiping et al. 2020, §4, for whichever linear layer has most
room.)

**Matching.** The gradient of a batch with the candidate in it, in the mean over draws of its views
and beside other images of the attacker's, is held against the observed one by its cosine; what all
candidates' gradients have in common is taken off.

**Reconstruction.** Both views of all images are free and optimised until their gradient points as
the observed one does, with total variation as a prior (Zhu et al. 2019, arXiv 1906.08935; Geiping
et al. 2020, arXiv 2003.14053) and with their inputs of that layer in the span; the candidate is
named one of whose views comes nearest to an image so made.

Suffixes: C candidates, M draws of views, F inputs of the layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from time import process_time

import torch
from torch import Tensor, nn

from secure_fl.audit.attacks.inversion_round import AttackedRound
from secure_fl.data.views import batch_views
from secure_fl.objectives.objective import TwoViews, total_loss
from secure_fl.seeds import derive_seed

Gradients = Mapping[str, Tensor]

_ROOM = 0.75
"""Share of a layer's directions that a span takes at most: of all of them it would say nothing."""
_NOISE_FLOOR = 1e-5
"""Directions this much weaker than the strongest are rounding."""
_SKETCH = 1 << 15
"""Numbers that a gradient is hashed to for its cosines, which move by 1/√32,768 = 0.6 %."""
_PARTNERS, _DRAWS = 7, 2
_BATCH = 512


@dataclass(frozen=True)
class Ranks:
    """What an attacker prepares: views of all images that may be candidates, and their inputs of
    the layer that he looks at.

    Attributes:
        attacked: the round.
        images: `[C, ...]`.
        draws: M.
        seed: of the attacker's own draws.
    """

    attacked: AttackedRound
    images: Tensor = field(repr=False)
    draws: int
    seed: int

    @cached_property
    def _model(self) -> nn.Module:
        return self.attacked.model()

    @cached_property
    def _layer(self) -> tuple[str, nn.Linear]:
        """The linear layer in which most rows are told apart, the first of those."""
        found = [
            (name, module)
            for name, module in self._model.named_modules()
            if isinstance(module, nn.Linear) and module.weight.requires_grad
        ]
        return max(found, key=lambda each: min(each[1].weight.shape))

    @cached_property
    def views(self) -> Tensor:
        """Draws of each image's views, `[C, M, ...]`."""
        every = self.images.repeat_interleave(self.draws, 0)
        seed = derive_seed(self.seed, "views")
        made = batch_views(self.attacked.factory.augment, every, seed, count=1)[0]
        shaped: Tensor = made.unflatten(0, (len(self.images), self.draws))
        return shaped

    def inputs(self, x: Tensor) -> Tensor:
        """What the layer is given for `x` `[N, ...]`: unit vectors `[N, F]`."""
        kept = list[Tensor]()

        def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            kept.append(given[0].flatten(1))

        with self._layer[1].register_forward_pre_hook(keep):
            for part in x.split(_BATCH):
                self._model(part.to(self.attacked.factory.compute.device))
        return nn.functional.normalize(torch.cat(kept)).cpu()

    @cached_property
    def _inputs_CMF(self) -> Tensor:  # noqa: N802
        with torch.no_grad():
            found = self.inputs(self.views.flatten(0, 1))
        shaped: Tensor = found.unflatten(0, (len(self.images), self.draws))
        return shaped

    # Span

    def span(self, gradients: Gradients, rows: int) -> Tensor:
        """An orthonormal basis `[r, F]` of where the layer's inputs lie, of so many rows."""
        weight = gradients[f"{self._layer[0]}.weight"].double()
        values, vectors = torch.linalg.eigh(weight.T @ weight)
        real = int((values > _NOISE_FLOOR**2 * values[-1]).sum())
        rank = max(1, min(rows, real, int(_ROOM * min(weight.shape))))
        basis: Tensor = vectors[:, -rank:].T.float()
        return basis

    def by_span(self, gradients: Gradients, rows: int, among: Tensor) -> Tensor:
        """A score of each candidate `[len(among)]`: how near its nearest view comes to the span."""
        basis = self.span(gradients, rows)
        inside = (self._inputs_CMF[among] @ basis.T).square().sum(2)
        return inside.amax(1)

    # Matching

    @cached_property
    def _expected(self) -> Tensor:
        """Each image's part of a batch's gradient, hashed, as unit vectors `[C, _SKETCH]`."""
        partners = self.attacked.outside[-_PARTNERS:]
        made = torch.stack([
            sum(
                (self.hashed(self._gradients(torch.cat([image[None], partners]), draw))
                 for draw in range(_DRAWS)),
                torch.zeros(_SKETCH),
            )
            for image in self.images
        ])  # fmt: skip
        return nn.functional.normalize(made - made.mean(0))

    def _gradients(self, images: Tensor, draw: int) -> dict[str, Tensor]:
        seed = derive_seed(self.seed, "matching", draw)
        views = TwoViews(*batch_views(self.attacked.factory.augment, images, seed))
        return self.gradients_of(views, keep=False)

    def gradients_of(self, views: TwoViews, *, keep: bool) -> dict[str, Tensor]:
        """The objective's gradient by each trained parameter; `keep`: for a second one."""
        objective, device = self.attacked.objective, self.attacked.factory.compute.device
        batch = TwoViews(views.first.to(device), views.second.to(device))
        loss = total_loss(objective.weights, objective.terms(batch, self._model))
        named = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(loss, list(named.values()), create_graph=keep)
        return dict(zip(named, found, strict=True))

    def hashed(self, gradients: Gradients) -> Tensor:
        """All numbers of a gradient, each with a sign of its own, in `_SKETCH` sums."""
        values = torch.cat([part.detach().flatten().cpu() for part in gradients.values()])
        places, signs = self._hash(len(values))
        return torch.zeros(_SKETCH).index_add_(0, places, signs * values)

    def _hash(self, length: int) -> tuple[Tensor, Tensor]:
        if "hash" not in self._kept:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "hash"))
            places = torch.randint(_SKETCH, (length,), generator=generator)
            signs = torch.randint(2, (length,), generator=generator) * 2.0 - 1
            self._kept["hash"] = (places, signs)
        return self._kept["hash"]

    @cached_property
    def _kept(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {}

    def by_matching(self, gradients: Gradients, among: Tensor) -> Tensor:
        """A score of each candidate: the cosine of its own part with the observed gradient."""
        return self._expected[among] @ self.hashed(gradients)

    # Reconstruction

    def by_nearest(self, made: Tensor, among: Tensor) -> Tensor:
        """A score of each candidate: how near one of its views comes to an image of `made`."""
        views, every = self.views[among].flatten(2), made.flatten(1)
        return -torch.cdist(views, every.expand(len(among), -1, -1)).amin((1, 2))


def draws_within(attacked: AttackedRound, images: int, seconds: float, most: int) -> int:
    """How many views of each image the model takes in about that time: 16 at least."""
    tried = Ranks(attacked, attacked.outside[:32], 4, 0)
    began = process_time()
    with torch.no_grad():
        tried.inputs(tried.views.flatten(0, 1))
    each = (process_time() - began) / (4 * len(tried.images))
    return int(max(16, min(most, seconds / (each * images))))
