"""How fast the quadratic losses are on the processor: the tiles against plain torch, forward and backward.

    python -m bench.losses [--rows 2048 8192] [--dimension 128] [--repeats 5] [--threads 1]

One process, providers in turn, medians. `floor_share` is the time that the tiles' own matrix products would take at the
speed of one large float32 product measured in the same run, divided by the time taken. Rows go to `results/losses.csv`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import pdist

from bench.harness import append_row, provenance
from secure_fl_kernels import dispatch, functional, reference

CSV = "losses.csv"
Loss = Callable[[Tensor], Tensor]


def _pdist_uniformity(z: Tensor) -> Tensor:
    """Wang & Isola's own program."""
    return pdist(reference.normalize(z)).square().mul(-2).exp().mean().log()


LOSSES: dict[str, dict[str, Loss]] = {
    "nt_xent": {
        "plain torch": lambda z: reference.nt_xent_loss(*z.chunk(2), 0.2),
        "tiles": lambda z: functional.nt_xent_loss(*z.chunk(2), 0.2),
    },
    "uniformity": {"pdist": _pdist_uniformity, "tiles": functional.uniformity_loss},
}
FLOPS = {"nt_xent": 4, "uniformity": 3}
"""Times N²D, by the tiles."""


def seconds(loss: Loss, z: Tensor) -> tuple[float, Tensor]:
    """(time of forward and backward, gradient)."""
    leaf = z.clone().requires_grad_()
    began = time.perf_counter()
    loss(leaf).backward()  # type: ignore[no-untyped-call]
    taken = time.perf_counter() - began
    assert leaf.grad is not None
    return taken, leaf.grad


def gemm_speed() -> float:
    """Flops a second of a large float32 product: the median of five."""
    a = torch.randn(2048, 2048)
    times = []
    for _ in range(6):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * 2048**3 / median(times[1:])


def measure(name: str, rows: int, dimension: int, repeats: int, threads: int) -> list[dict[str, object]]:
    """One row a provider."""
    torch.manual_seed(0)
    half = torch.randn(rows // 2, dimension)
    z = torch.cat([half, half + 0.5 * torch.randn(rows // 2, dimension)])
    times: dict[str, list[float]] = {provider: [] for provider in LOSSES[name]}
    gradients: dict[str, Tensor] = {}
    for repeat in range(repeats + 1):
        for provider, loss in LOSSES[name].items():
            taken, gradients[provider] = seconds(loss, z)
            if repeat:
                times[provider].append(taken)
    _, exact = seconds(LOSSES[name]["tiles"], z.double())
    floor = FLOPS[name] * rows**2 * dimension / gemm_speed()
    slowest = median(next(iter(times.values())))
    return [
        {
            "loss": name,
            "provider": provider,
            "rows": rows,
            "dimension": dimension,
            "threads": threads,
            "seconds": round(median(taken), 5),
            "times_faster": round(slowest / median(taken), 2),
            "gradient_error": f"{float((gradients[provider] - exact).norm() / exact.norm()):.1e}",
            "floor_share": round(floor / median(taken), 3),
        }
        for provider, taken in times.items()
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[2048, 8192], help="rows of the similarity matrix")
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ[dispatch.VARIABLE] = "cpu"
    torch.set_num_threads(options.threads)
    where = provenance()
    for name in LOSSES:
        for rows in options.rows:
            for row in measure(name, rows, options.dimension, options.repeats, options.threads):
                append_row(CSV, row, where)
                print(*row.values(), sep="  ", flush=True)


if __name__ == "__main__":
    main()
