"""What a model shows of an example, without labels or with them: figures that are higher, on the
whole, for examples that it was trained on.

Sources: set similarity over augmented views: Liu, Jia, Qu and Gong, "EncoderMI" (arXiv
2108.11023); length of the embedding: LpLA (arXiv 2506.05743); loss: Yeom, Giacomelli, Fredrikson
and Jha (arXiv 1709.01604), here the contrastive loss of an example among all candidates, whatever
the run's objective.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.audit.attacks.rates import Scores
from secure_fl.data.dataset import UNLABELLED, Dataset
from secure_fl.data.views import Augmentation, batch_views
from secure_fl.models.heads import Classifier, EncoderProjector
from secure_fl.training.device import Compute
from secure_fl.training.tasks import embed

SIMILARITY, NORM, LOSS = "set similarity", "embedding norm", "loss"
_VIEWS = 8
_TEMPERATURE = 0.2


class Looked:
    """Examples as an attacker looks at them: the same views for every model.

    Attributes:
        data: the examples `[N]`.
        views: of all of them, an even number.
    """

    def __init__(self, data: Dataset, augment: Augmentation, compute: Compute, seed: int) -> None:
        self.data, self._compute = data, compute
        views = batch_views(augment, data.x.to(compute.device), seed, _VIEWS)
        self.views = [view.cpu() for view in views]

    def figures(self, model: nn.Module) -> dict[str, Scores]:
        """Of every example, by name; `loss` is a log-probability. No `loss` from a bare encoder, or
        without labels.
        """
        model = model.to(self._compute.device)
        encoder = getattr(model, "encoder", model)
        h_VNF = torch.stack([embed(encoder, view, self._compute) for view in self.views])
        unit = functional.normalize(h_VNF.double(), dim=-1)
        total, pairs = unit.sum(0).square().sum(-1), _VIEWS * (_VIEWS - 1)
        length = embed(encoder, self.data.x, self._compute).double().norm(dim=1)
        found = {SIMILARITY: (total - _VIEWS) / pairs, NORM: length.clamp_min(1e-30).log()}
        if isinstance(model, EncoderProjector):
            z_VNF = torch.stack([embed(model.projector, h, self._compute) for h in h_VNF])
            found[LOSS] = _contrasted(functional.normalize(z_VNF.double(), dim=-1))
        elif isinstance(model, Classifier) and not bool((self.data.y == UNLABELLED).any()):
            logits = embed(model, self.data.x, self._compute).double()
            found[LOSS] = functional.log_softmax(logits, 1)[torch.arange(len(logits)), self.data.y]
        return {name: values.numpy() for name, values in found.items()}


def log_odds(log_probability: Scores) -> Scores:
    """log p/(1 − p), whose law is near a normal one; of p within rounding of 1, 36 at most."""
    p = torch.from_numpy(log_probability).clamp(-700, -(2.0**-52))
    odds: Scores = (p - torch.log(-torch.expm1(p))).numpy()
    return odds


def _contrasted(z_VNF: Tensor) -> Tensor:
    """log-probability that a view finds the other one of its example among those of all, `[N]`,
    mean over pairs of views.
    """
    found = torch.zeros(z_VNF.shape[1], dtype=z_VNF.dtype)
    for first, second in zip(z_VNF[::2], z_VNF[1::2], strict=True):
        found += functional.log_softmax(first @ second.T / _TEMPERATURE, 1).diagonal()
    return found / (len(z_VNF) // 2)
