"""Audit a training loop in plain PyTorch: does its noise keep to the ε that it claims?

    python examples/audit_pytorch.py [--broken]

The loop clips each example's gradient, sums, and adds noise. For the audit it gets one thing more:
a column of zeros for each canary, which only that canary's row fills. `--broken` adds half of the
noise that is claimed.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from secure_fl.audit import Claim, DiracCanaries, TrainerAudit, audit_trainer
from secure_fl.privacy import Adjacency, GaussianEvent, epsilon

DELTA = 1e-5


@dataclass(frozen=True)
class Loop:
    """DP-SGD: `rate` of all examples a step by Poisson sampling, noise of `sigma` times `clip`."""

    steps: int = 20
    rate: float = 0.25
    sigma: float = 1.5
    clip: float = 1.0
    honest: float = 1.0

    def release(self, data: tuple[Tensor, Tensor], canaries: DiracCanaries) -> NDArray[np.float64]:
        """Train; what an attacker sees is the sum of all noised sums, at the canaries' columns."""
        x, y = data
        model, seen = nn.Linear(64, 10), np.zeros(canaries.dimension)
        rows = torch.from_numpy(canaries.rows()).float()
        for _ in range(self.steps):
            drawn, own = torch.rand(len(x)) < self.rate, torch.rand(len(rows)) < self.rate
            mine = contributions(model, x[drawn], y[drawn], self.clip)
            total = torch.cat([mine.sum(0), rows[own].sum(0)])
            total += self.honest * self.sigma * self.clip * torch.randn_like(total)
            step = total[: mine.shape[1]] * 0.5 / (self.rate * len(x))
            with torch.no_grad():
                for old, new in zip(model.parameters(), step.split([640, 10]), strict=True):
                    old -= new.view_as(old)
            seen += total[mine.shape[1] :].double().numpy()
        return seen


def contributions(model: nn.Module, x: Tensor, y: Tensor, clip: float) -> Tensor:
    """Each example's gradient, clipped: `[N, parameters]`."""

    def loss(weights: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(functional_call(model, weights, (one[None],)), label[None])

    weights = {name: each.detach() for name, each in model.named_parameters()}
    found = vmap(grad(loss), (None, 0, 0))(weights, x, y)
    rows = torch.cat([each.flatten(1) for each in found.values()], 1)
    made: Tensor = rows * (clip / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
    return made


def audit(loop: Loop) -> TrainerAudit:
    """A thousand canaries. What is claimed: ε by any accountant, here ours; by how much a canary
    moves its column, and how wide the noise in it is.
    """
    digits = load_digits()
    data = torch.tensor(digits.data / 16).float(), torch.tensor(digits.target)
    events = [GaussianEvent(loop.sigma, loop.rate, loop.steps)]
    shift, noise = loop.clip * loop.steps * loop.rate, loop.sigma * loop.clip * loop.steps**0.5
    claim = Claim(epsilon(events, DELTA, Adjacency.ADD_REMOVE), DELTA, (shift, noise))
    return audit_trainer(loop, data, claim, dimension=1000)


def main() -> None:
    """Audit it, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broken", action="store_true", help="add half of the noise")
    found = audit(Loop(honest=0.5 if parser.parse_args().broken else 1.0))
    for bound in found.bounds:
        sign = "≥" if bound.kind == "bound" else "≈"
        print(f"ε {sign} {bound.epsilon:.2f} by {bound.method}, claimed {found.claim.epsilon:.2f}")
    print("nothing speaks against the claim" if found.passed else "the claim is refuted")


if __name__ == "__main__":
    main()
