"""Measures a kernel at one size: leaves out what cannot fit or would take too long, saying so, and
makes one row a provider.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from bench.kernels.case import Case, Inputs, Kernel, Provider, no_bytes
from bench.kernels.measure import (
    EXPONENTIALS,
    MEMORY,
    PRODUCTS,
    Program,
    Timing,
    call,
    floors_of,
    interleave,
    relative_error,
)
from bench.kernels.memory import MemoryUnknownError, peak_mib

CSV = "kernels.csv"
_PROBE_ROWS = {1: 0, 2: 1024, 3: 256}
"""Size of the first call of a program whose time grows with that power of the rows; smaller cases
are tried unseen.
"""
_SHARE_OF_FREE = 0.6
_SHARE_FOR_EXACT = 0.3
_MOST_ROWS_EXACT = 8192
_SECONDS_FOR_MEMORY = 120.0

Row = dict[str, object]
Key = tuple[str, str]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How a measurement is made.

    Attributes:
        rounds: samples of each provider; fewer, at least three, where a case would exceed
            `budget` seconds.
        limit: a provider whose one call is predicted to take longer, in seconds, is left out.
        memory: whether to weigh each provider in a process of its own.
    """

    rounds: int = 7
    budget: float = 30.0
    limit: float = 10.0
    memory: bool = True


@dataclass
class History:
    """Seconds of earlier calls, to predict later ones: (rows, seconds) by kernel, provider and all
    but the rows.
    """

    known: dict[tuple[object, ...], tuple[int, float]] = field(default_factory=dict)

    def predict(
        self, kernel: Kernel, provider: Provider, case: Case, inputs: Callable[[Case], Inputs]
    ) -> float:
        """Seconds one call will take; probes a small size first where nothing is known. 0 for small
        sizes, which are tried.
        """
        probe = _PROBE_ROWS[provider.order]
        if case.rows <= probe or not probe:
            return 0.0
        key = _identity(kernel, provider, case)
        if key not in self.known:
            source = (
                provider
                if not provider.compiles
                else kernel.provider(kernel.baseline, provider.setting)
            )
            small = replace(case, rows=probe)
            with source.active(case.threads):
                function = source.make(small)
                call(function, inputs(small), kernel.backward)
                self.known[key] = probe, call(function, inputs(small), kernel.backward)[0]
        rows, seconds = self.known[key]
        return seconds * (case.rows / rows) ** provider.order

    def learn(self, kernel: Kernel, provider: Provider, case: Case, seconds: float) -> None:
        """Remember what a call took."""
        self.known[_identity(kernel, provider, case)] = case.rows, seconds


def _identity(kernel: Kernel, provider: Provider, case: Case) -> tuple[object, ...]:
    return kernel.name, provider.key, replace(case, rows=0)


@dataclass
class Measured:
    """What `measure` found: timings by provider, reasons of those left out, seconds of the
    floors by precision and what limits, exact results.
    """

    timings: dict[Key, Timing]
    skipped: dict[Key, str]
    floors: dict[str, list[float]]
    exact: dict[str, tuple[Tensor, Tensor | None]]
    oracle: str


def measure(
    kernel: Kernel,
    case: Case,
    options: Options,
    history: History,
    providers: tuple[Provider, ...] = (),
) -> Measured:
    """Time every provider of the kernel, or those given, at one size."""
    chosen = providers or kernel.providers
    skipped: dict[Key, str] = {}
    programs: list[Program] = []
    for provider in chosen:
        reason = _reason(kernel, provider, case, options, history)
        program = None if reason else _built(kernel, provider, case)
        if isinstance(program, Program):
            programs.append(program)
        else:
            skipped[provider.key] = reason or str(program)
    floors: dict[str, Callable[[], float]] = {}
    for program in programs:
        floor = kernel.floor(case, program.provider.setting)
        precision = program.provider.precision
        if floor is not None and not any(name.startswith(precision) for name in floors):
            parts = floors_of(floor, kernel, case, precision)
            floors |= {floor_name(precision, part): piece for part, piece in parts.items()}
    timings, samples = interleave(programs, floors, kernel, case, options.rounds, options.budget)
    for program in programs:
        history.learn(kernel, program.provider, case, timings[program.provider.key].quantiles[1])
    settings = dict.fromkeys(program.provider.setting for program in programs)
    exact, oracle = _exact(kernel, case, list(settings))
    return Measured(timings, skipped, samples, exact, oracle)


def _reason(
    kernel: Kernel, provider: Provider, case: Case, options: Options, history: History
) -> str:
    """Why this provider is left out of this case, or the empty string."""
    missing = provider.missing(case)
    if missing:
        return missing
    needed, free = provider.bytes(case), _SHARE_OF_FREE * free_bytes(case)
    if needed > free:
        return f"would need {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} may be used"
    seconds = history.predict(kernel, provider, case, kernel.inputs)
    return (
        f"a call would take about {seconds:.0f} s, more than {options.limit:g}"
        if seconds > options.limit
        else ""
    )


def _built(kernel: Kernel, provider: Provider, case: Case) -> Program | str:
    """The program; other people's may fail, which is reported, ours may not."""
    try:
        return Program.built(kernel, provider, case)
    except Exception as error:
        if provider.ours:
            raise
        return f"failed: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _exact(
    kernel: Kernel, case: Case, settings: list[str]
) -> tuple[dict[str, tuple[Tensor, Tensor | None]], str]:
    """Value and gradient in float64 by setting, and by what: plain torch where it fits, else
    the tiles.
    """
    if kernel.exact is None:
        return {}, ""
    fits = case.rows <= _MOST_ROWS_EXACT and kernel.exact_bytes(
        case
    ) < _SHARE_FOR_EXACT * free_bytes(replace(case, device="cpu"))
    source = kernel.exact if fits else kernel.tiles64
    if source is None:
        return {}, ""
    inputs = tuple(z.double().cpu() for z in kernel.inputs(case))
    runner = Provider(
        "exact", lambda _: source(""), no_bytes, request="reference" if fits else "cpu"
    )
    found = {}
    for setting in settings:
        with runner.active(case.threads):
            _, value, gradient = call(source(setting), inputs, kernel.backward)
        found[setting] = value, gradient
    return found, "plain torch in float64" if fits else "tiles in float64"


def rows_of(
    kernel: Kernel, case: Case, options: Options, history: History, say: Say
) -> Iterator[Row]:
    """One row a provider at one size, those left out too."""
    load = os.getloadavg()[0]
    found = measure(kernel, case, options, history)
    for name, reason in dict.fromkeys(
        (provider.name, found.skipped.get(provider.key)) for provider in kernel.providers
    ):
        if reason:
            say(f"  {name}: left out, {reason}")
    for provider in kernel.providers:
        row = _row(kernel, provider, case)
        if provider.key in found.skipped:
            yield {**row, "skipped": found.skipped[provider.key], "load": round(load, 2)}
            continue
        timing = found.timings[provider.key]
        low, middle, high = timing.quantiles
        baseline = found.timings.get((kernel.baseline, provider.setting))
        limits = limits_of(found, provider, middle)
        value, gradient = found.exact.get(provider.setting, (None, None))
        row |= {
            "samples": len(timing.seconds),
            "y20": f"{low:.4g}",
            "y50": f"{middle:.4g}",
            "y80": f"{high:.4g}",
            "peak_mib": _weigh(kernel, provider, case, options, middle, say),
            "value_error": _scientific(relative_error(timing.value, value)),
            "gradient_error": _scientific(relative_error(timing.gradient, gradient)),
            "oracle": found.oracle,
            "floor_share": round(next(iter(limits.values())), 3) if limits else "",
            "limits": ", ".join(f"{part} {share:.0%}" for part, share in limits.items()),
            "times_naive": f"{baseline.quantiles[1] / middle:.3g}" if baseline else "",
            "load": round(load, 2),
        }
        units = {"times_naive": "times naive", "peak_mib": "MiB"}
        facts = [f"{row[column]} {unit}" for column, unit in units.items() if row[column] != ""]
        say(", ".join([f"  {_label(provider)}: {middle:.4g} s ({low:.4g} to {high:.4g})", *facts]))
        yield row


def floor_name(precision: str, part: str) -> str:
    """Key of a floor's part, such as `highest products`."""
    return f"{precision} {part}"


def limits_of(found: Measured, provider: Provider, seconds: float) -> dict[str, float]:
    """What share of a call's seconds each part of its floor would take alone; products first."""
    floors = {
        part: found.floors.get(floor_name(provider.precision, part), [])
        for part in (PRODUCTS, EXPONENTIALS, MEMORY)
    }
    return {part: Timing(own).quantiles[1] / seconds for part, own in floors.items() if own}


def _row(kernel: Kernel, provider: Provider, case: Case) -> Row:
    """All columns, those measured still empty."""
    return {
        "kernel": kernel.name,
        "provider": provider.name,
        "setting": provider.setting,
        "mode": kernel.mode,
        "rows": case.rows,
        "dimension": case.dimension,
        "dtype": case.dtype,
        "device": case.device if case.device == "cpu" else torch.cuda.get_device_name(),
        "threads": case.threads,
        **dict.fromkeys(
            (
                "samples",
                "y20",
                "y50",
                "y80",
                "peak_mib",
                "value_error",
                "gradient_error",
                "oracle",
                "floor_share",
                "limits",
                "times_naive",
            ),
            "",
        ),
        "skipped": "",
        "load": "",
    }


def _weigh(
    kernel: Kernel, provider: Provider, case: Case, options: Options, seconds: float, say: Say
) -> float | str:
    if not options.memory:
        return ""
    try:
        return round(peak_mib(kernel, provider, case, _SECONDS_FOR_MEMORY + 10 * seconds), 1)
    except MemoryUnknownError as error:
        if provider.ours:
            raise
        say(f"  {_label(provider)}: memory not measured, {error}")
        return ""


def free_bytes(case: Case) -> float:
    """Memory that can still be had on the case's device."""
    if case.device != "cpu":
        return float(torch.cuda.mem_get_info()[0])
    limits = [_machine_free(), _group_free()]
    return (
        min(limit for limit in limits if limit is not None)
        if any(limit is not None for limit in limits)
        else float("inf")
    )


def _machine_free() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next(
        (1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), None
    )


def _group_free() -> float | None:
    """What the container's limit leaves, where there is one."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = (
            (folder / "memory.max").read_text(encoding="ascii"),
            (folder / "memory.current").read_text(encoding="ascii"),
        )
        return float(limit) - float(used)
    except (OSError, ValueError):
        return None


def _label(provider: Provider) -> str:
    return f"{provider.name} [{provider.setting}]" if provider.setting else provider.name


def _scientific(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"
