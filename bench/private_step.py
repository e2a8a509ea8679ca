"""One private training step on the small ConvNet: what the released statistic and whole groups cost
beside plain DP-SGD.

    python -m bench.private_step [--rounds 21] [--batch 256] [--threads 1] [--skip-memory]

All programs take one step on the same encoder and projector (28×28, one channel, z of width 64) and
the same 2·batch rows, views given:

- `opacus`: ghost clipping as Opacus 1.6 does it, every row a unit, cross-entropy on z; forward, two
  backward passes, noise, SGD.
- `opacus, one view`: the same on `batch` rows; for the reader, not for the bar.
- `released, ...`: two views a unit, statistic released, ghost-clipped gradients, noise from
  AES, SGD.
- `per-example`: this project's DP-SGD with `opacus`'s loss and rows.
- `group of m`: NT-Xent in groups of m, clipped as wholes, noise, SGD.
- `two passes`: forward and backward of NT-Xent over all rows, twice: what a group's step is
  held against.
- `plain`: forward, backward, SGD; no privacy.

Time: programs in turn, every other round in reverse order, in one process; quantiles over rounds.
Memory: the peak beyond what is resident before the step, each program in a process of its own
(`bench/kernels/memory.py`). Rows go to `results/private_step.csv`.

Claims: released-statistics at most 1.3 times the time and 1.2 times the peak memory of `opacus`;
groups at most 1.3 times the time of `two passes`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from bench.harness import append_row, provenance
from bench.kernels.memory import ALLOCATOR, peak, settle
from secure_fl.config import ModelConfig, ObjectiveConfig
from secure_fl.models.build import build_encoder, build_projector
from secure_fl.models.heads import EncoderProjector
from secure_fl.objectives.build import build_objective
from secure_fl.objectives.losses import nt_xent_loss
from secure_fl.objectives.separation import Separation
from secure_fl.objectives.unit_objectives import CrossEntropy, unit_form
from secure_fl.privacy.mechanisms.group import GroupNTXent, group_form
from secure_fl.privacy.mechanisms.mechanism import ExampleMechanism, Labelled
from secure_fl.privacy.mechanisms.per_example import PerExample
from secure_fl.privacy.mechanisms.released_statistics import ReleasedStatistics
from secure_fl.privacy.noise import NoiseSource

CSV = "private_step.csv"
SHAPE, WIDTH, NOISE, LR, TEMPERATURE = (1, 28, 28), 64, 1.0, 0.05, 0.5
MIB = 1 << 20
_WARM_UP = 16

Step = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """Examples a step, each of two views."""

    batch: int

    def model(self) -> EncoderProjector:
        config = ModelConfig(encoder="convnet", embedding=WIDTH)
        encoder = build_encoder(config, SHAPE, seed=0)
        return EncoderProjector(encoder, build_projector(config, encoder, SHAPE, seed=0)).train()

    def views(self) -> Tensor:
        """`[batch, 2, 1, 28, 28]`."""
        return torch.rand(self.batch, 2, *SHAPE, generator=torch.Generator().manual_seed(0))

    def labels(self, rows: int) -> Tensor:
        return torch.arange(rows) % WIDTH


def _opacus(setting: Setting, views: int) -> Step:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    class Embedding(nn.Module):
        """The projector's output alone."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = setting.model()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)[1]

    x = setting.views()[:, :views].flatten(0, 1)
    model = GradSampleModuleFastGradientClipping(
        Embedding(), max_grad_norm=1.0, use_ghost_clipping=True
    )
    optimiser = DPOptimizerFastGradientClipping(
        torch.optim.SGD(model.parameters(), lr=LR),
        noise_multiplier=NOISE,
        max_grad_norm=1.0,
        expected_batch_size=len(x),
    )
    criterion, labels = (
        DPLossFastGradientClipping(model, optimiser, nn.CrossEntropyLoss()),
        setting.labels(len(x)),
    )

    def step() -> None:
        optimiser.zero_grad()
        criterion(model(x), labels).backward()
        optimiser.step()

    return step


def _private(setting: Setting, mechanism: ExampleMechanism[object], views: object) -> Step:
    model = setting.model()
    optimiser = torch.optim.SGD(model.parameters(), lr=LR)
    stream = NoiseSource.fresh().stream(client=0, round=0, purpose="bench")

    def step() -> None:
        mechanism.gradients(model, views, stream)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def _released(setting: Setting, name: str) -> Step:
    config = ObjectiveConfig(name=name, form="normalized", delta=0)  # type: ignore[arg-type]
    objective = build_objective(config, Separation(torch.arange(8)))
    mechanism = ReleasedStatistics(
        unit_form(objective, WIDTH, seed=0), 60_000, setting.batch / 60_000, NOISE
    )
    return _private(setting, mechanism, setting.views())


def _per_example(setting: Setting) -> Step:
    rows = setting.views().flatten(0, 1)[:, None]
    mechanism = PerExample(CrossEntropy(), 60_000, len(rows) / 60_000, NOISE)
    return _private(setting, mechanism, Labelled(rows, setting.labels(len(rows))))


def _group(setting: Setting, members: int) -> Step:
    """Groups of examples, first views before second."""
    units = group_form(
        build_objective(ObjectiveConfig(name="nt_xent", temperature=TEMPERATURE)), members
    )
    mechanism = GroupNTXent(
        units,
        bound=1.0,
        noise_multiplier=NOISE,
        sampling_rate=setting.batch / 60_000,
        examples=60_000,
    )
    views = setting.views().unflatten(0, (-1, members)).transpose(1, 2).flatten(1, 2)
    return _private(setting, mechanism, views)


def _without_privacy(setting: Setting, passes: int) -> Step:
    model, views = setting.model(), setting.views()
    optimiser = torch.optim.SGD(model.parameters(), lr=LR)

    def step() -> None:
        for _ in range(passes):
            optimiser.zero_grad(set_to_none=True)
            z = model(views.flatten(0, 1))[1].unflatten(0, (-1, 2))
            nt_xent_loss(z[:, 0], z[:, 1], TEMPERATURE).backward()
        optimiser.step()

    return step


PROGRAMS: dict[str, Callable[[Setting], Step]] = {
    "opacus": lambda setting: _opacus(setting, 2),
    "opacus, one view": lambda setting: _opacus(setting, 1),
    "released, spectral": lambda setting: _released(setting, "spectral_contrastive"),
    "released, align_uniform": lambda setting: _released(setting, "align_uniform"),
    "released, ssd": lambda setting: _released(setting, "ssd"),
    "per-example": _per_example,
    "group of 4": lambda setting: _group(setting, 4),
    "group of 8": lambda setting: _group(setting, 8),
    "two passes": lambda setting: _without_privacy(setting, 2),
    "plain": lambda setting: _without_privacy(setting, 1),
}
AGAINST = {name: "two passes" if name.startswith("group") else "opacus" for name in PROGRAMS}


def measure_time(setting: Setting, rounds: int) -> dict[str, list[float]]:
    """Seconds of every program in every round."""
    steps = {name: make(setting) for name, make in PROGRAMS.items()}
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        for name in list(steps) if number % 2 == 0 else reversed(list(steps)):
            began = time.perf_counter()
            steps[name]()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def measure_memory(setting: Setting, name: str) -> float:
    """MiB that one step takes at its peak, in a fresh process."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "bench.private_step",
        "--batch",
        str(setting.batch),
        "--peak-of",
        name,
    ]
    done = subprocess.run(
        command, env=os.environ | ALLOCATOR, check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])


def peak_here(setting: Setting, name: str) -> float:
    """MiB in this process, after a step on a small batch has loaded what is loaded once."""
    PROGRAMS[name](Setting(_WARM_UP))()
    step = PROGRAMS[name](setting)
    before = settle()
    step()
    return (peak() - before) / MIB


def main() -> None:
    """Measure, print and append."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--peak-of", choices=list(PROGRAMS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    setting = Setting(arguments.batch)
    if arguments.peak_of:
        print(peak_here(setting, arguments.peak_of))
        return
    where = provenance(["opacus"])
    seconds = measure_time(setting, arguments.rounds)
    memory = (
        {} if arguments.skip_memory else {name: measure_memory(setting, name) for name in PROGRAMS}
    )
    shown = ("program", "ms", "time_ratio", "mib", "memory_ratio", "against")
    for name in seconds:
        row = {
            "program": name,
            "batch": setting.batch,
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            **_compared(name, seconds, memory),
        }
        append_row(CSV, row, where)
        print("  ".join(f"{key} {row[key]}" for key in shown), flush=True)


def _compared(
    name: str, seconds: Mapping[str, Sequence[float]], memory: Mapping[str, float]
) -> dict[str, object]:
    """A program's time and memory, and both over those of the one it is held against."""
    samples, against = seconds[name], AGAINST[name]
    low, _, _, high = quantiles(samples, n=5)
    # Ratios of the two programs within each round, since a busy machine slows both alike.
    ratio = median(mine / other for mine, other in zip(samples, seconds[against], strict=True))
    return {
        "ms": round(1e3 * median(samples), 2),
        "ms_q20": round(1e3 * low, 2),
        "ms_q80": round(1e3 * high, 2),
        "against": against,
        "time_ratio": round(ratio, 3),
        "mib": round(memory[name], 1) if memory else "",
        "memory_ratio": round(memory[name] / memory[against], 3) if memory else "",
    }


if __name__ == "__main__":
    main()
