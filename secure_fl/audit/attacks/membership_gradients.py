"""Which way each candidate would move a model: what an update is decoded by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.audit.attacks.membership_replay import Replay
from secure_fl.coins import Coins
from secure_fl.data.dataset import Dataset
from secure_fl.data.views import batch_views
from secure_fl.models.heads import Classifier
from secure_fl.models.state import averaged_tensors
from secure_fl.objectives.objective import TwoViews, total_loss
from secure_fl.pools.pool_set import PoolModel
from secure_fl.seeds import derive_seed

_MOST = 1 << 17
"""Numbers of a gradient that are looked at: those of a model's last layers, which say most."""


@dataclass(frozen=True)
class Directions:
    """How descent directions of examples are found.

    Attributes:
        replay: whose objective and views are used.
        data: the examples.
        rows: the place of each among those that were trained on, from which its views follow.
        seed: of a training without protection, whose views anybody can make again; in a private one
            they are secret, and these are others.
    """

    replay: Replay
    data: Dataset = field(repr=False)
    rows: Tensor = field(repr=False)
    seed: int

    def of(self, model: PoolModel, part: nn.Module) -> tuple[Tensor, Tensor]:
        """`[N, P]`, of each example's own loss, and where their numbers lie in the vector of
        `part`, what is trained of the model, `[P]`.
        """
        model.to("cpu")
        chosen = _last({name: each for name, each in part.named_parameters() if each.requires_grad})
        places, start = list[Tensor](), 0
        for name, tensor in averaged_tensors(part):
            if name in chosen:
                places.append(torch.arange(start, start + tensor.numel()))
            start += tensor.numel()
        parameters, found = list(chosen.values()), list[Tensor]()
        for loss in self._losses(model):
            grads = torch.autograd.grad(loss, parameters, allow_unused=True)
            pairs = zip(grads, parameters, strict=True)
            flat = (torch.zeros_like(p) if g is None else g for g, p in pairs)
            found.append(-torch.cat([each.flatten() for each in flat]).cpu().double())
        return torch.stack(found), torch.cat(places)

    def _losses(self, model: PoolModel) -> Iterator[Tensor]:
        """The loss of one example after the other, each with a graph of its own."""
        x, y = self.data.x, self.data.y
        if isinstance(model, Classifier):
            for row in range(len(x)):
                yield functional.cross_entropy(model(x[row : row + 1]), y[row : row + 1])
            return
        coins = Coins.public(derive_seed(self.seed, "views")).at(0, self.rows)
        first, second = batch_views(self.replay.factory.augment, x, coins)
        pulls = _Pulls(model)
        objective = self.replay.factory.objective(self.replay.client.id, self.replay.client.id)
        total_loss(objective.weights, objective.terms(TwoViews(first, second), pulls)).backward()
        for row in range(len(x)):
            yield pulls.along(row)


class _Pulls:
    """A model that keeps what it was shown and what it made of that, so that afterwards it is known
    which way a loss of all rows together pulls each of them.
    """

    def __init__(self, model: PoolModel) -> None:
        self._model = model
        self._made: list[tuple[Tensor, list[Tensor]]] = []

    def __call__(self, x: Tensor, /) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            outputs = self._model(x)
        h, z = (each.detach().requires_grad_() for each in outputs)
        self._made.append((x, [h, z]))
        return h, z

    def along(self, row: int) -> Tensor:
        """What has the gradient of the loss through this row of all batches that were shown: they
        hold the same examples, one view of each.
        """
        total = torch.zeros(())
        for x, outputs in self._made:
            for own, made in zip(self._model(x[row : row + 1]), outputs, strict=True):
                if made.grad is not None:
                    total = total + (own * made.grad[row : row + 1]).sum()
        return total


def _last(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The last ones, in their order, within `_MOST` numbers; one at least."""
    chosen, total = list[str](), 0
    for name in reversed(list(parameters)):
        total += parameters[name].numel()
        if chosen and total > _MOST:
            break
        chosen.append(name)
    return {name: parameters[name] for name in reversed(chosen)}
