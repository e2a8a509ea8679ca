"""What the tests of example-level mechanisms share: a small model, views, hard neighbours, one
step's gradients as a vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secure_fl.config import ObjectiveConfig
from secure_fl.models.convnet import ConvNet
from secure_fl.models.heads import EncoderProjector, Projector
from secure_fl.objectives.build import build_objective
from secure_fl.objectives.contrastive import SpectralContrastive
from secure_fl.objectives.objective import Objective
from secure_fl.objectives.separation import Separation
from secure_fl.privacy.noise import NoiseSource, NoiseStream

SEPARATION = Separation(torch.tensor([0, 5, 9]))
OBJECTIVES: dict[str, Objective] = {
    "spectral": SpectralContrastive(),
    "align_uniform": build_objective(ObjectiveConfig(name="align_uniform")),
    "ssd": build_objective(ObjectiveConfig(form="normalized"), SEPARATION),
}
WIDTH = 16


def encoder_projector() -> EncoderProjector:
    torch.manual_seed(0)
    return EncoderProjector(ConvNet(1, WIDTH), Projector(WIDTH, 24, WIDTH, "group"))


def images(count: int, seed: int = 0) -> Tensor:
    """`[count, 2, 1, 8, 8]`: two views that resemble each other."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(count, 1, 1, 8, 8, generator=generator)
    return centre + 0.3 * torch.randn(count, 2, 1, 8, 8, generator=generator)


def stream(purpose: str = "training", seed: int = 0) -> NoiseStream:
    return NoiseSource.for_tests(seed).stream(client=0, round=0, purpose=purpose)


def written(model: nn.Module) -> Tensor:
    """The gradients that a mechanism left, `[P]`."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


KINDS = ("random", "hub", "duplicate", "zero", "nan", "infinite", "huge")


def newcomer(kind: str, others: Tensor, seed: int) -> Tensor:
    """One example `[R, ...]` beside the others `[U, R, ...]`."""
    noise = torch.randn(others.shape[1:], generator=torch.Generator().manual_seed(seed))
    made = {
        "random": noise,
        "hub": others.mean((0, 1)).expand_as(noise) * 3,
        "duplicate": others[0],
        "zero": torch.zeros_like(noise),
        "nan": torch.full_like(noise, torch.nan),
        "infinite": torch.full_like(noise, torch.inf),
        "huge": 1e30 * noise,
    }
    return made[kind].clone()
