"""A SimCLR loop in plain PyTorch, made faster by one import.

    python examples/kernels.py [--batch 2048] [--steps 3]

`own_loss` is what one would write; `nt_xent_loss` of `secure_fl_kernels` is the same function,
computed in tiles on the processor and by Triton on a GPU, without the matrix of similarities. The
loop runs with either, each in a process of its own, and tells seconds a step, of them the loss's,
the memory that training added, and by how much the losses of the steps differ.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from secure_fl_kernels import nt_xent_loss

Loss = Callable[[Tensor, Tensor, float], Tensor]
TEMPERATURE = 0.2
WARM_UP = 300
"""Examples of the first step, which is not counted: enough for the kernels to be chosen."""


def own_loss(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """NT-Xent of two views `[N, D]` as it is usually written, with a `[2N, 2N]` matrix."""
    z = normalize(torch.cat([z1, z2]))
    similarities = z @ z.T / temperature
    similarities.fill_diagonal_(-torch.inf)
    return cross_entropy(similarities, torch.arange(len(z)).roll(len(z1)))


LOSSES: dict[str, Loss] = {"plain torch": own_loss, "secure_fl_kernels": nt_xent_loss}


@dataclass(frozen=True)
class Cost:
    """Of one loop: seconds a step and of its loss, MiB that training added, every step's loss."""

    step: float
    loss: float
    mib: float
    losses: list[float]


def views(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images with noise, and an eighth of their pixels missing."""
    noise = torch.randn(images.shape, generator=generator)
    kept = torch.rand(images.shape, generator=generator) > 1 / 8
    return (images + 0.1 * noise) * kept


def train(loss: Loss, batch: int, steps: int) -> Cost:
    """Train an encoder for some steps on digits, drawn with replacement."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    digits = torch.from_numpy(load_digits().data).float() / 16
    encoder = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128))
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.05)
    found, spent, began, before = [], 0.0, 0.0, 0.0
    for number in range(steps + 1):
        if number == 1:
            spent, began, before = 0.0, time.perf_counter(), peak_mib()
        count = batch if number else WARM_UP
        images = digits[torch.randint(len(digits), (count,), generator=generator)]
        z1, z2 = (encoder(views(images, generator)) for _ in range(2))
        start = time.perf_counter()
        value = loss(z1, z2, TEMPERATURE)
        by_z = torch.autograd.grad(value, (z1, z2))
        spent += time.perf_counter() - start
        optimizer.zero_grad()
        torch.autograd.backward((z1, z2), by_z)
        optimizer.step()
        found.append(float(value.detach()))
    seconds = (time.perf_counter() - began) / steps
    return Cost(seconds, spent / steps, peak_mib() - before, found[1:])


def peak_mib() -> float:
    """The most memory that this process has had, in MiB."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / 2 ** (20 if sys.platform == "darwin" else 10)


def measured(name: str, batch: int, steps: int) -> Cost:
    """The loop's cost with one of the losses; in a process of its own, whose memory is its own."""
    return train(LOSSES[name], batch, steps)


def main() -> None:
    """Both loops, one after the other."""
    made = argparse.ArgumentParser(description="One import, before and after.")
    made.add_argument("--batch", type=int, default=2048, help="examples, two views of each")
    made.add_argument("--steps", type=int, default=3)
    options = made.parse_args()
    costs: dict[str, Cost] = {}
    for name in LOSSES:
        with get_context("spawn").Pool(1) as pool:
            costs[name] = pool.apply(measured, (name, options.batch, options.steps))
        cost = costs[name]
        times = f"{cost.step:.3f} s a step, {cost.loss:.3f} s of it the loss"
        print(f"{name:>18}: {times}; {cost.mib:.0f} MiB")
    before, after = costs.values()
    apart = max(abs(a - b) / abs(a) for a, b in zip(before.losses, after.losses, strict=True))
    print(f"the loss is {before.loss / after.loss:.1f} times faster, the step", end=" ")
    print(f"{before.step / after.step:.1f}; losses differ by {apart:.0e} at most, relative")


if __name__ == "__main__":
    main()
