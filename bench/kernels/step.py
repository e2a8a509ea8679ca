"""End to end: one pre-training step of the small ConvNet with NT-Xent, with the kernels and
without, and the loss alone.

The step is the framework's own: views, encoder and projector, loss, backward, SGD, checks. Each
setting is run with `SECURE_FL_KERNELS=reference` and with `auto`. The loss's share of the step
without kernels bounds what kernels can give: with a share p and a loss that is s times faster, a
step is 1/(1 − p + p/s) times faster (Amdahl), and never more than 1/(1 − p).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.kernels.case import NAIVE, Case, Function, Inputs, Kernel, Provider
from secure_fl.config import ModelConfig, ViewsConfig
from secure_fl.data.dataset import Dataset
from secure_fl.data.views import Augmentation, build_views
from secure_fl.models.build import build_encoder, build_projector
from secure_fl.models.heads import EncoderProjector
from secure_fl.objectives.contrastive import NTXent
from secure_fl.training.device import Compute
from secure_fl.training.fit import LocalSpec
from secure_fl.training.tasks import SelfSupervised
from secure_fl_kernels import dispatch, functional

SHAPE = (1, 28, 28)
TEMPERATURE = 0.5
KERNELS = "kernels"
STEP, STEP_WITHOUT_VIEWS, LOSS = "step", "step, views given", "loss alone"
_BYTES_PER_ROW = 300_000
_FLOPS_PER_ROW = 3e7


def _step(case: Case, augment: Augmentation) -> Function:
    """A function that trains its model by one step on a batch and returns the loss."""
    config = ModelConfig(encoder="convnet", features=case.dimension)
    encoder = build_encoder(config, SHAPE, seed=0)
    model = EncoderProjector(encoder, build_projector(config, encoder, SHAPE, seed=0)).to(
        case.device
    )
    task = SelfSupervised(NTXent(TEMPERATURE), augment, Compute(torch.device(case.device)))
    spec = LocalSpec(epochs=1, batch_size=case.rows // 2, lr=1e-3, momentum=0.9, weight_decay=0.0)

    def function(x: Tensor) -> Tensor:
        data = Dataset.from_arrays(
            x, torch.zeros(len(x), dtype=torch.int64), classes=1, name="noise"
        )
        return torch.tensor(task.fit(model, data, spec, seed=0).terms["nt_xent"])

    return function


def _with_views(case: Case) -> Function:
    return _step(case, build_views(ViewsConfig(), SHAPE))


def _without_views(case: Case) -> Function:
    return _step(case, lambda x: x)


def _loss(case: Case) -> Function:
    """Forward and backward of the loss on a projector's output of that size."""
    first, second = (z.requires_grad_() for z in case.views(case.rows // 2))

    def function(_: Tensor) -> Tensor:
        first.grad = second.grad = None
        loss = functional.nt_xent_loss(first, second, TEMPERATURE)
        loss.backward()
        return loss.detach()

    return function


def _inputs(case: Case) -> Inputs:
    return (case.random(case.rows // 2, *SHAPE).sigmoid(),)


def _bytes(case: Case) -> float:
    return 14.0 * case.rows**2 + _BYTES_PER_ROW * case.rows


_REQUESTS: dict[str, dispatch.Request] = {KERNELS: "auto", NAIVE: "reference"}
_MADE = {STEP: _with_views, STEP_WITHOUT_VIEWS: _without_views, LOSS: _loss}

KERNEL = Kernel(
    name="step",
    title="a pre-training step of the ConvNet on 28×28 images with NT-Xent; rows are those of the "
    "similarity matrix, twice the batch",
    inputs=_inputs,
    providers=tuple(
        Provider(
            name, make, _bytes, request=request, setting=setting, order=2 if setting == LOSS else 1
        )
        for setting, make in _MADE.items()
        for name, request in _REQUESTS.items()
    ),
    work=lambda case: _FLOPS_PER_ROW * case.rows + 2.0 * case.rows**2 * case.dimension,
    backward=False,
    rows=(4096,),
    full_rows=(1024, 4096, 8192),
)
