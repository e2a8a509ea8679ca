"""Audit a plain Opacus loop: does DP-SGD as it runs keep to the ε that it prints?

    python examples/audit_opacus.py [--steps 40] [--canaries 1000] [--broken]

Logistic regression on scikit-learn's digits, trained by Opacus with Poisson sampling. A thousand
canaries are tossed in by fair coins. Each is an example like any other to Opacus, sampled, clipped
and noised with the rest; its gradient is one coordinate of a parameter that no image uses. The
audit reads that parameter after training, and nothing else. With `--broken` the loop uses half the
noise that it claims, as a wrong divisor somewhere might.
"""

from __future__ import annotations

import argparse
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import PrivacyEngine
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from secure_fl.audit import Claim, DiracCanaries, TrainerAudit, audit_trainer

CLIP, DELTA, RATE, LR = 1.0, 1e-5, 0.25, 0.1


class WithCanaries(nn.Module):
    """Logistic regression, and one number a canary that only this canary moves."""

    def __init__(self, canaries: int) -> None:
        super().__init__()
        self.classes = nn.Linear(64, 10)
        self.canary = nn.Embedding(canaries + 1, 1)  # the first is everybody else's
        nn.init.zeros_(self.canary.weight)

    def forward(self, x: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        return self.classes(x), self.canary(number)[:, 0]


@dataclass(frozen=True)
class OpacusLoop:
    """A `secure_fl.audit.Trainer`; `noise` is what it says, times `honest` what it adds."""

    steps: int
    noise: float
    honest: float = 1.0

    def release(self, data: tuple[Tensor, Tensor], canaries: DiracCanaries) -> NDArray[np.float64]:
        """Train; what an attacker sees is the canaries' parameter, in units of summed gradients."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Opacus' notes on secure random numbers and hooks
            return self._train(_together(data, canaries), canaries.dimension)

    def _train(self, dataset: TensorDataset, canaries: int) -> NDArray[np.float64]:
        model = WithCanaries(canaries)
        model, optimiser, loader = PrivacyEngine(accountant="prv").make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=LR),
            data_loader=DataLoader(dataset, batch_size=math.ceil(RATE * len(dataset))),
            noise_multiplier=self.noise * self.honest,
            max_grad_norm=CLIP,
        )
        steps = 0
        while steps < self.steps:
            for x, y, number in loader:
                optimiser.zero_grad()
                logits, moved = model(x, number)
                of_image = cross_entropy(logits, y, reduction="none")
                torch.where(number > 0, -2 * CLIP * moved, of_image).mean().backward()
                optimiser.step()
                steps += 1
                if steps == self.steps:
                    break
        released = model._module.canary.weight.detach()[1:, 0].double().numpy()
        return np.asarray(released * optimiser.expected_batch_size / LR)

    def claim(self) -> Claim:
        """What Opacus' own accountant says of the noise that is claimed."""
        from opacus.accountants import PRVAccountant

        accountant = PRVAccountant()
        accountant.history = [(self.noise, RATE, self.steps)]
        shift, deviation = RATE * self.steps * CLIP, self.noise * CLIP * math.sqrt(self.steps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            epsilon = float(accountant.get_epsilon(delta=DELTA))
        return Claim(epsilon, DELTA, (shift, deviation))


def _together(data: tuple[Tensor, Tensor], canaries: DiracCanaries) -> TensorDataset:
    """Images and the canaries that are in, as examples of one data set."""
    x, y = data
    numbers = torch.from_numpy(canaries.coordinates) + 1
    return TensorDataset(
        torch.cat([x, torch.zeros(len(numbers), x.shape[1])]),
        torch.cat([y, torch.zeros(len(numbers), dtype=y.dtype)]),
        torch.cat([torch.zeros(len(y), dtype=torch.int64), numbers]),
    )


def audit(
    loop: OpacusLoop, canaries: int, entropy: Callable[[int], bytes] = os.urandom
) -> TrainerAudit:
    """Play the game once with all digits."""
    digits = load_digits()
    x = torch.tensor(digits.data / 16, dtype=torch.float32)
    data = (x, torch.tensor(digits.target))
    given = {"dimension": canaries, "clip": CLIP, "entropy": entropy}
    return audit_trainer(loop, data, loop.claim(), **given)


def main() -> None:
    """Audit, and print the claim, the shift in the noise, and the bounds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--canaries", type=int, default=1000)
    parser.add_argument("--noise", type=float, default=1.5)
    parser.add_argument("--broken", action="store_true", help="add half the noise that is claimed")
    arguments = parser.parse_args()
    loop = OpacusLoop(arguments.steps, arguments.noise, 0.5 if arguments.broken else 1.0)
    found = audit(loop, arguments.canaries)
    print(f"claimed: ε = {found.claim.epsilon:.3f} at δ = {DELTA:g}, by Opacus' accountant")
    seen = next(bound.details for bound in found.bounds if "alarm" in bound.details)
    print(
        f"shift: {seen['mu']:.3f} ± {seen['mu_error']:.3f} deviations of the noise, claimed "
        f"{seen['mu_claimed']:.3f}; deviation {seen['deviation']:.3f}, claimed "
        f"{seen['deviation_claimed']:.3f}: {'ALARM' if found.alarm else 'as claimed'}"
    )
    for bound in found.bounds:
        proved = bound.kind == "bound"
        told = (
            f"ε ≥ {bound.epsilon:.3f} with confidence {bound.confidence:g}"
            if proved
            else (f"ε ≈ {bound.epsilon:.3f}, an estimate: it refutes nothing")
        )
        print(f"{bound.method}: {told}; {'; '.join(bound.assumptions)}")
    print("nothing speaks against the claim" if found.passed else "the claim is refuted")
    raise SystemExit(0 if found.passed else 1)


if __name__ == "__main__":
    main()
