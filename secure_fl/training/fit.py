"""Local SGD: one loop for every objective."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import cos, pi

import torch
from torch import Tensor, nn

from secure_fl.config import OptimiserConfig
from secure_fl.errors import TrainingError
from secure_fl.objectives.objective import total_loss
from secure_fl.training.device import Compute

Terms = dict[str, Tensor]
EXPLODED = 10.0
"""A loss has exploded above its first value by this many times its size (or 1, if larger)."""
_FIRST_SCALE = 1024.0
"""float16 on cuda begins with it: a client's few steps are too few to come down from 65,536."""


@dataclass(frozen=True)
class LocalSpec:
    """One call's share of training."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float

    @classmethod
    def at_round(cls, config: OptimiserConfig, round_number: int, rounds: int) -> LocalSpec:
        """The specification of round `round_number` out of `rounds`, counted from 0."""
        factor = (1 + cos(pi * round_number / rounds)) / 2 if config.schedule == "cosine" else 1.0
        return cls(
            config.local_epochs,
            config.batch_size,
            config.lr * factor,
            config.momentum,
            config.weight_decay,
        )


@dataclass(frozen=True)
class FitReport:
    """Mean of each term over the steps, and the step, from 1, at which the loss exploded."""

    terms: dict[str, float]
    exploded: int | None = None


def has_exploded(loss: float, first: float) -> bool:
    """Whether a loss has left the scale of its first value, or is no number."""
    return not loss <= first + EXPLODED * max(1.0, abs(first))


def fit(
    model: nn.Module,
    batches: Iterable[Tensor],
    terms_of: Callable[[Tensor], Terms],
    weights: Mapping[str, float],
    spec: LocalSpec,
    compute: Compute,
) -> FitReport:
    """SGD from a fresh optimiser over the index batches; trains what has `requires_grad`. The
    caller sets train or eval mode.

    Raises:
        TrainingError: a step's loss or a trained weight is not finite, naming the step; or there is
            no batch.
    """
    descent = _Descent(model, spec, compute)
    sums: dict[str, float] = defaultdict(float)
    steps, first, exploded = 0, 0.0, None
    remedy = advice(spec, mixed=compute.mixed)
    for index in batches:
        with compute.autocast():
            terms = terms_of(index)
            try:
                loss = total_loss(weights, terms)
            except TrainingError as error:
                raise error.within(f"step {steps + 1}", remedy) from error
        descent.step(loss)
        steps += 1
        first = loss.item() if steps == 1 else first
        if exploded is None and has_exploded(loss.item(), first):
            exploded = steps
        for name, term in terms.items():
            sums[name] += term.item()
    if steps == 0:
        problem = "a client has no batch of two or more examples"
        remedy = "lower the batch size, or give the client more examples"
        raise TrainingError(problem, field="steps", value=0, remedy=remedy)
    _check_weights(model, steps, spec, remedy)
    return FitReport({name: value / steps for name, value in sums.items()}, exploded)


class _Descent:
    """Momentum SGD on trained parameters; losses are scaled where float16 would lose gradients."""

    def __init__(self, model: nn.Module, spec: LocalSpec, compute: Compute) -> None:
        self._optimiser = torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad],
            lr=spec.lr,
            momentum=spec.momentum,
            weight_decay=spec.weight_decay,
        )
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler = torch.amp.GradScaler(
            compute.device.type,
            init_scale=_FIRST_SCALE,
            enabled=compute.mixed and compute.device.type == "cuda",
        )

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of `loss`, which is forgotten afterwards."""
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._optimiser.zero_grad(set_to_none=True)


def _check_weights(model: nn.Module, steps: int, spec: LocalSpec, remedy: str) -> None:
    """Refuse a model that training has driven beyond numbers."""
    if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
        problem = f"step {steps}: training has diverged: a weight is not finite"
        raise TrainingError(problem, field="lr", value=spec.lr, remedy=remedy)


def advice(spec: LocalSpec, *, mixed: bool) -> str:
    """What to do about a loss or weight that is not finite."""
    precision = ', set runtime.precision = "float32"' if mixed else ""
    return (
        f"lower the learning rate below {spec.lr:g}{precision}, or look for "
        "extreme values in the data"
    )


def epochs(count: int, spec: LocalSpec, seed: int, *, whole: bool) -> Iterator[Tensor]:
    """Index batches over `count` examples, `spec.epochs` times, each epoch in a new order.

    Args:
        whole: drop an epoch's incomplete last batch where a whole one exists (contrastive losses
            need equal batches). Batches of one example are dropped always.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(spec.epochs):
        for batch in torch.randperm(count, generator=generator).split(spec.batch_size):
            if len(batch) >= 2 and not (whole and len(batch) < spec.batch_size <= count):
                yield batch
