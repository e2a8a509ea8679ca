"""Time and error: providers in turn in one process, so that a busy machine slows all of them alike.

Every round runs each provider once, every other round in reverse order, and the floor's own work (a
large matrix product, or a read of the input) among them. A sample is the mean over as many calls as
fill `SHORTEST` seconds. Reported are quantiles over rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil

import torch
from torch import Tensor

from bench.kernels.case import Case, Floor, Function, Inputs, Kernel, Provider, no_bytes

SHORTEST = 0.02
_FEWEST_ROUNDS = 3
_MOST_LOOPS = 1000
_SLOW = 1.0
_PRODUCT = {"cpu": 2048, "cuda": 8192}
"""Edge of the matrices whose product measures the floor, by device: more would not be faster."""
QUANTILES = (0.2, 0.5, 0.8)


@dataclass(frozen=True)
class Program:
    """A provider's function, built for a case and warm; `once` is about what a call takes,
    in seconds.
    """

    provider: Provider
    function: Function
    once: float

    @classmethod
    def built(cls, kernel: Kernel, provider: Provider, case: Case) -> Program:
        """Build and call it once, and where that is quick, once more."""
        inputs = kernel.inputs(case)
        with provider.active(case.threads):
            function = provider.make(case)
            once, _, _ = call(function, inputs, kernel.backward)
            if once < _SLOW or provider.compiles:
                once, _, _ = call(function, inputs, kernel.backward)
        return cls(provider, function, max(once, 1e-9))


@dataclass
class Timing:
    """Seconds of each round, and what the last call returned."""

    seconds: list[float] = field(default_factory=list)
    value: Tensor | None = None
    gradient: Tensor | None = None

    @property
    def quantiles(self) -> tuple[float, float, float]:
        """The 0.2, 0.5 and 0.8 quantiles."""
        low, middle, high = (
            torch.tensor(self.seconds, dtype=torch.float64)
            .quantile(torch.tensor(QUANTILES, dtype=torch.float64))
            .tolist()
        )
        return low, middle, high


def call(function: Function, inputs: Inputs, backward: bool) -> tuple[float, Tensor, Tensor | None]:
    """(seconds, value, gradient by all inputs as one vector) of one call; the gradient is None
    without a backward pass.
    """
    leaves = (
        [z.detach().clone().requires_grad_(backward) for z in inputs] if backward else list(inputs)
    )
    _wait(inputs)
    began = time.perf_counter()
    value = function(*leaves)
    if backward:
        value.backward(torch.ones_like(value))
    _wait(inputs)
    taken = time.perf_counter() - began
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    return taken, value.detach(), torch.cat([g.flatten() for g in gradients]) if gradients else None


def interleave(
    programs: Sequence[Program],
    floors: Mapping[str, Callable[[], float]],
    kernel: Kernel,
    case: Case,
    rounds: int,
    budget: float,
) -> tuple[dict[tuple[str, str], Timing], dict[str, list[float]]]:
    """Timings of every program, and the samples of every floor; fewer rounds, at least three, where
    they would exceed `budget` seconds.
    """
    inputs = kernel.inputs(case)
    timings = {program.provider.key: Timing() for program in programs}
    samples: dict[str, list[float]] = {name: [] for name in floors}
    loops = {
        program.provider.key: min(_MOST_LOOPS, ceil(SHORTEST / program.once))
        for program in programs
    }
    a_round = sum(program.once * loops[program.provider.key] for program in programs)
    rounds = max(_FEWEST_ROUNDS, min(rounds, int(budget / max(a_round, 1e-9))))
    for number in range(rounds):
        for program in list(programs) if number % 2 == 0 else list(reversed(programs)):
            _sample(
                program,
                inputs,
                kernel.backward,
                case.threads,
                loops[program.provider.key],
                timings[program.provider.key],
            )
        for name, floor in floors.items():
            samples[name].append(floor())
    return timings, samples


def _sample(
    program: Program, inputs: Inputs, backward: bool, threads: int, loops: int, timing: Timing
) -> None:
    total = 0.0
    with program.provider.active(threads):
        for _ in range(loops):
            taken, timing.value, timing.gradient = call(program.function, inputs, backward)
            total += taken
    timing.seconds.append(total / loops)


PRODUCTS, EXPONENTIALS, MEMORY = "products", "exponentials", "memory"
_EXPONENTIALS = 256
"""Edge of the square whose exponentials are timed: it stays in a core's second cache."""


def floors_of(
    floor: Floor, kernel: Kernel, case: Case, precision: str
) -> dict[str, Callable[[], float]]:
    """By what limits, functions that do a piece of the floor's work and return the seconds that
    all of it would take; of exponentials the faster of torch's two.
    """
    found: dict[str, Callable[[], float]] = {}
    if floor.flops:
        edge = _PRODUCT["cpu" if case.device == "cpu" else "cuda"]
        square, share = case.random(edge, edge), floor.flops / (2 * edge**3)
        found[PRODUCTS] = lambda: share * _timed(lambda: square @ square, case, precision)
    if floor.exps:
        edge = _EXPONENTIALS if case.device == "cpu" else _PRODUCT["cuda"]
        some, per = case.random(edge, edge), floor.exps / edge**2
        out = torch.empty_like(some)
        either = [partial(each, some, out=out) for each in (torch.exp, torch.exp2)]
        found[EXPONENTIALS] = lambda: per * min(_timed(work, case, precision) for work in either)
    if floor.reads:
        largest = max(kernel.inputs(case), key=Tensor.numel)
        found[MEMORY] = lambda: floor.reads * _timed(largest.sum, case, "highest")
    return found


def _timed(work: Callable[[], Tensor], case: Case, precision: str) -> float:
    idle = Provider(
        "floor",
        lambda _: work,
        no_bytes,
        precision="medium" if precision == "medium" else "highest",
    )
    with idle.active(case.threads):
        made = work()
        _wait((made,))
        began = time.perf_counter()
        made = work()
        _wait((made,))
        return time.perf_counter() - began


def relative_error(found: Tensor | None, exact: Tensor | None) -> float | None:
    """‖found − exact‖ / ‖exact‖, in float64; None where either is missing."""
    if found is None or exact is None:
        return None
    difference = torch.linalg.vector_norm(found.double().cpu() - exact.double().cpu())
    return float(difference / torch.linalg.vector_norm(exact.double().cpu()))


def _wait(tensors: Inputs) -> None:
    if any(z.is_cuda for z in tensors):
        torch.cuda.synchronize()
