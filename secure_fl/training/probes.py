"""How useful a representation is: weighted kNN, linear probe and fine-tuning, set as in SSD's, and
what a few labels are enough for.
"""

from __future__ import annotations

import copy
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.coins import Coins
from secure_fl.data.dataset import Dataset
from secure_fl.data.views import Augmentation, batch_views
from secure_fl.models.build import build_head, seeded
from secure_fl.models.heads import Classifier
from secure_fl.seeds import derive_seed, generator_of
from secure_fl.training.device import Compute
from secure_fl.training.tasks import Supervised

_BLOCK = 1024
_PROBE_LR, _PROBE_BATCH = 3e-3, 512
_FEW_STEPS, _FEW_DECAY = 30, 1e-2
_TUNE_LR_ENCODER, _TUNE_LR_HEAD, _TUNE_BATCH = 1e-3, 0.3, 128


def weighted_knn(
    bank: Tensor, bank_y: Tensor, h: Tensor, y: Tensor, *, k: int = 200, temperature: float = 0.1
) -> float:
    """Accuracy of kNN on cosine similarity, a neighbour's vote weighing exp(cosine / temperature).

    Args:
        bank, h: features `[M, F]` and `[N, F]`.
        bank_y, y: their labels.
        k: neighbours, at most M.
    """
    bank, h = functional.normalize(bank, dim=1), functional.normalize(h, dim=1)
    votes = functional.one_hot(bank_y, int(bank_y.max()) + 1).float()
    right = 0
    for part, labels in zip(h.split(_BLOCK), y.split(_BLOCK), strict=True):
        similarity, neighbour = (part @ bank.T).topk(min(k, len(bank)), dim=1)
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        right += int(((weights[:, :, None] * votes[neighbour]).sum(1).argmax(1) == labels).sum())
    return right / len(h)


def linear_probe(
    bank: Tensor,
    bank_y: Tensor,
    h: Tensor,
    y: Tensor,
    *,
    classes: int,
    epochs: int = 200,
    seed: int = 0,
) -> float:
    """Test accuracy of a linear classifier on frozen features, last epoch; Adam 3e-3, batch 512."""
    head = build_head(bank.shape[1], classes, derive_seed(seed, "probe"))
    optimiser = torch.optim.Adam(head.parameters(), lr=_PROBE_LR)
    generator = generator_of(seed, "probe", "order")
    for _ in range(epochs):
        for index in torch.randperm(len(bank), generator=generator).split(_PROBE_BATCH):
            optimiser.zero_grad()
            functional.cross_entropy(head(bank[index]), bank_y[index]).backward()
            optimiser.step()
    with torch.no_grad():
        return float((head(h).argmax(1) == y).double().mean())


def few_labels(
    bank: Tensor,
    bank_y: Tensor,
    h: Tensor,
    y: Tensor,
    *,
    classes: int,
    per_class: int = 5,
    draws: int = 5,
    seed: int = 0,
) -> tuple[float, float]:
    """Test accuracy where few labels are known: of a linear classifier and of 5 nearest neighbours,
    both on `per_class` examples of each class, mean over `draws` of them.

    With all labels a probe makes good what an encoder did not find out by itself; with few it
    cannot. The classifier is fitted to its minimum: L-BFGS, features standardised by the few, and
    a hundredth of the squared weights. Neighbours are those of `weighted_knn`, around the few's
    mean.

    Args:
        bank, bank_y, h, y: as `weighted_knn`; a class with fewer examples gives what it has.
    """
    probes, neighbours = list[float](), list[float]()
    for draw in range(draws):
        generator = generator_of(seed, "few-labels", draw)
        order = torch.randperm(len(bank), generator=generator)
        few = torch.cat([order[bank_y[order] == label][:per_class] for label in range(classes)])
        known, labels, mean = bank[few], bank_y[few], bank[few].mean(0)
        neighbours.append(weighted_knn(known - mean, labels, h - mean, y, k=min(5, per_class)))
        scale = known.std(0) + 1e-6
        weights, offset = _fitted((known - mean) / scale, labels, classes)
        guessed = ((h - mean) / scale @ weights + offset).argmax(1)
        probes.append(float((guessed == y).double().mean()))
    return sum(probes) / draws, sum(neighbours) / draws


def _fitted(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weights `[F, classes]` and offsets of logistic regression."""
    weights = torch.zeros(x.shape[1], classes, requires_grad=True)
    offset = torch.zeros(classes, requires_grad=True)
    steps = torch.optim.LBFGS([weights, offset], max_iter=_FEW_STEPS, line_search_fn="strong_wolfe")

    def loss() -> float:
        steps.zero_grad()
        fit = functional.cross_entropy(x @ weights + offset, y)
        whole = fit + _FEW_DECAY * weights.square().sum()
        whole.backward()
        return float(whole.detach())

    steps.step(loss)
    return weights.detach(), offset.detach()


def fine_tune(
    encoder: nn.Module,
    train: Dataset,
    test: Dataset,
    *,
    share: float,
    epochs: int,
    augment: Augmentation,
    compute: Compute,
    seed: int = 0,
) -> float:
    """Test accuracy after training the whole encoder and a linear head on `share` of the
    labels, stratified.

    SGD with momentum 0.9, learning rate 1e-3 for the encoder and 0.3 for the head, batch 128; the
    last epoch's accuracy, not the best one's. The encoder given is left as it is.
    """
    few = train.take(_stratified(train.y, share, derive_seed(seed, "fine_tune", "subset")))
    with torch.no_grad():
        features = encoder(few.x[:1].to(compute.device)).shape[1]
    head = build_head(features, train.classes, derive_seed(seed, "fine_tune", "head"))
    model = Classifier(copy.deepcopy(encoder).requires_grad_(True), head).to(compute.device)
    optimiser = _tuning(model)
    steps, coins = count(), Coins.public(derive_seed(seed, "fine_tune", "views"))
    with seeded(derive_seed(seed, "fine_tune", "order")):
        for _ in range(epochs):
            model.train()
            for index in torch.randperm(len(few)).split(_TUNE_BATCH):
                if len(index) < 2 and len(few) > 1:
                    continue
                optimiser.zero_grad()
                (view,) = batch_views(
                    augment, few.x[index].to(compute.device), coins.at(next(steps), index), 1
                )
                logits = model(view)
                functional.cross_entropy(logits, few.y[index].to(compute.device)).backward()
                optimiser.step()
    accuracy = Supervised(compute).score(model, test, seed).accuracy
    return float("nan") if accuracy is None else accuracy


def _tuning(model: Classifier) -> torch.optim.Optimizer:
    """Momentum SGD with a rate for the encoder and another for the head."""
    groups = [
        {"params": model.encoder.parameters(), "lr": _TUNE_LR_ENCODER},
        {"params": model.head.parameters(), "lr": _TUNE_LR_HEAD},
    ]
    return torch.optim.SGD(groups, momentum=0.9)


def _stratified(y: Tensor, share: float, seed: int) -> Tensor:
    """About `share` of every class, at least one example of each."""
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label in y.unique():
        members = torch.nonzero(y == label).flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        chosen.append(members[: max(1, round(share * len(members)))])
    return torch.cat(chosen)
