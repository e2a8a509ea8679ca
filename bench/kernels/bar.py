"""The targets of the kernels, each with its figure: `python -m bench.kernels bar`.

Times are judged by a floor measured in the same rounds on the same processor: the products at the
speed of one large product, and beside them the exponentials. Ratios to other programs are reported,
not judged: how slow plain torch is depends on the processor. All are medians over rounds of the
ratio within a round, so that what slows a round slows both sides of it, printed with their 0.2 and
0.8 quantiles. Reduced precision is asked for only where the processor has AMX.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.harness import append_row, provenance
from bench.kernels import clip, ntxent, ssd, step, uniformity
from bench.kernels.case import NAIVE, REDUCED, TILES, Case, Kernel, Provider
from bench.kernels.measure import EXPONENTIALS, MEMORY, PRODUCTS, Timing, relative_error
from bench.kernels.memory import peak_mib
from bench.kernels.peers import PACKAGES
from bench.kernels.run import History, Key, Measured, Options, Say, floor_name, measure

CSV = "bar.csv"
_ROWS = 8192
_PARAMETERS = 1_000_000
_LIMIT = 120.0
_SHARE = 0.8
_FLOORS = {PRODUCTS: "sgemm floor", MEMORY: "floor of reads"}


@dataclass(frozen=True)
class Bar:
    """One target.

    Attributes:
        figure: what was found; None where the target does not apply here.
        low, high: its quantiles over rounds, where it is a time.
        target: what it is to be at least, or at most where `most`; None where it is reported only.
        note: what else belongs to the figure, or why there is none.
    """

    name: str
    case: Case
    target: float | None
    figure: float | None
    low: float | None = None
    high: float | None = None
    most: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where it does not apply, or there is none."""
        if self.figure is None or self.target is None:
            return None
        return self.figure <= self.target if self.most else self.figure >= self.target

    @property
    def verdict(self) -> str:
        """`met` in words."""
        if self.target is None and self.figure is not None:
            return "reported"
        return {None: "not applicable", True: "met", False: "NOT MET"}[self.met]

    def __str__(self) -> str:
        found = "-" if self.figure is None else f"{self.figure:.3g}"
        spread = (
            "" if self.low is None or self.high is None else f" ({self.low:.3g} to {self.high:.3g})"
        )
        note = f"; {self.note}" if self.note else ""
        size = (
            f"{self.case.rows} rows, D = {self.case.dimension}, {self.case.threads} "
            f"thread{'s' if self.case.threads > 1 else ''}"
        )
        return (
            f"{self.verdict:>14}  {self.name} [{size}]: {found}{spread}"
            f"{', target ' if self.target is not None else ''}{self.wanted}{note}"
        )

    @property
    def wanted(self) -> str:
        """The target in words, empty where there is none."""
        return "" if self.target is None else f"{'<=' if self.most else '>='} {self.target:g}"


def measure_bar(
    case: Case, threads: tuple[int, ...], options: Options, folder: Path, say: Say
) -> list[Bar]:
    """Measure every target at these rows and width, print each and append it to `bar.csv`; smaller
    sizes are for trying it out.
    """
    where, found = provenance(PACKAGES), []
    options = replace(options, limit=max(options.limit, _LIMIT))
    load = os.getloadavg()[0]
    say(f"load {load:.2f} at the start")
    for bar in _bars(case, threads, options):
        found.append(bar)
        say(str(bar))
        append_row(CSV, _row(bar, load), where, folder)
    counts = {
        verdict: sum(bar.verdict == verdict for bar in found)
        for verdict in ("met", "NOT MET", "reported", "not applicable")
    }
    say(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return found


def _bars(case: Case, threads: tuple[int, ...], options: Options) -> Iterator[Bar]:
    processors = os.cpu_count() or 1
    for count in threads:
        at = replace(case, threads=count)
        if count == 1:
            yield from _nt_xent(at, options)
            yield from _uniformity(at, options)
            yield from _regulariser(at, options)
            yield from _clip(at, options)
            yield from _step(replace(at, rows=case.rows // 2), options)
        elif count > processors:
            note = f"there are {processors} processors"
            yield Bar("NT-Xent, times naive torch", at, None, None, note=note)
        else:
            yield from _threads(at, options)


def _threads(case: Case, options: Options) -> Iterator[Bar]:
    """Both losses on several threads, the floor's product too."""
    found = _found(ntxent.KERNEL, case, options, (TILES, NAIVE))
    yield _times(found, (NAIVE, ""), (TILES, ""), "NT-Xent, times naive torch", case, None)
    yield from _floor_shares(found, "NT-Xent", case)
    found = _found(uniformity.KERNEL, case, options, (TILES,))
    yield from _floor_shares(found, "uniformity", case)


def _nt_xent(case: Case, options: Options) -> Iterator[Bar]:
    found = _found(ntxent.KERNEL, case, options, (TILES, REDUCED, NAIVE, ntxent.LIGHTLY))
    tiles, reduced, naive, lightly = (TILES, ""), (REDUCED, ""), (NAIVE, ""), (ntxent.LIGHTLY, "")
    yield _times(found, naive, tiles, "NT-Xent, times naive torch", case, None)
    yield _times(
        found, naive, reduced, "NT-Xent in reduced precision, times naive torch", case, None
    )
    yield _times(found, lightly, tiles, "NT-Xent, times lightly", case, None)
    yield from _floor_shares(found, "NT-Xent", case)
    yield _gradient(found, tiles, "NT-Xent, relative error of the gradient", case, 1e-6)
    yield _gradient(
        found, reduced, "NT-Xent in reduced precision, relative error of the gradient", case, 2e-4
    )
    provider = ntxent.KERNEL.provider(TILES)
    for at, target in ((case, 24), (replace(case, rows=4 * case.rows), 80)):
        yield Bar(
            "NT-Xent, extra memory in MiB",
            at,
            target,
            peak_mib(ntxent.KERNEL, provider, at, _LIMIT),
            most=True,
        )


def _uniformity(case: Case, options: Options) -> Iterator[Bar]:
    found = _found(uniformity.KERNEL, case, options, (TILES, uniformity.PDIST))
    yield _times(
        found, (uniformity.PDIST, ""), (TILES, ""), "uniformity, times the pdist form", case, None
    )
    yield from _floor_shares(found, "uniformity", case)


def _regulariser(case: Case, options: Options) -> Iterator[Bar]:
    """What fusing the regulariser adds to each loss, in each basis."""
    for kernel, loss in ((ssd.ALIGN_UNIFORMITY, "align + uniformity"), (ssd.NT_XENT, "NT-Xent")):
        # a small difference needs more
        found = _found(kernel, case, replace(options, rounds=2 * options.rounds), (TILES,))
        for basis in ssd.BASES:
            name = (
                f"{loss} with the regulariser fused, times without; basis: {basis}, |S| = "
                f"{max(1, case.dimension // ssd.CLIENTS)}, code form"
            )
            yield _times(
                found,
                (TILES, ssd.with_dsr(basis)),
                (TILES, ssd.WITHOUT),
                name,
                case,
                1.05,
                most=True,
            )


def _clip(case: Case, options: Options) -> Iterator[Bar]:
    at = replace(case, rows=64, dimension=_PARAMETERS * case.rows // _ROWS)
    found = _found(clip.KERNEL, at, options, (clip.NAME, NAIVE))
    yield _times(
        found,
        (NAIVE, ""),
        (clip.NAME, ""),
        "clip and sum, times naive torch; rows are examples, D is parameters",
        at,
        None,
    )
    yield from _floor_shares(found, "clip and sum", at, clip.NAME, MEMORY)


def _step(case: Case, options: Options) -> Iterator[Bar]:
    """The step is to be faster; the note says what the loss's share of it allows."""
    found = _found(step.KERNEL, case, options, (step.KERNELS, NAIVE))
    middle = {key: timing.quantiles[1] for key, timing in found.timings.items()}
    for setting in (step.STEP, step.STEP_WITHOUT_VIEWS):
        share = middle[NAIVE, step.LOSS] / middle[NAIVE, setting]
        faster = middle[NAIVE, step.LOSS] / middle[step.KERNELS, step.LOSS]
        allowed = 1 / (1 - share + share / faster)
        bar = _times(
            found,
            (NAIVE, setting),
            (step.KERNELS, setting),
            f"pre-training {setting}, times without kernels",
            case,
            1,
        )
        yield replace(
            bar,
            note=f"the loss is {share:.1%} of the step and {faster:.2f} times faster, which "
            f"allows {allowed:.3f}",
        )


def _found(kernel: Kernel, case: Case, options: Options, names: tuple[str, ...]) -> Measured:
    chosen: tuple[Provider, ...] = tuple(
        provider for provider in kernel.providers if provider.name in names
    )
    return measure(kernel, case, options, History(), chosen)


def _times(
    found: Measured,
    above: Key,
    below: Key,
    name: str,
    case: Case,
    target: float | None,
    most: bool = False,
) -> Bar:
    """Seconds of `above` over seconds of `below`, round by round."""
    for key in (above, below):
        if key in found.skipped:
            return Bar(name, case, target, None, most=most, note=found.skipped[key])
    pairs = zip(found.timings[above].seconds, found.timings[below].seconds, strict=True)
    low, middle, high = Timing([a / b for a, b in pairs]).quantiles
    return Bar(name, case, target, middle, low, high, most)


def _floor_shares(
    found: Measured, name: str, case: Case, provider: str = TILES, limit: str = PRODUCTS
) -> Iterator[Bar]:
    """The share of what limits it, which is judged, and with exponentials too, which says how much
    of the rest they are.
    """
    taken = found.timings[provider, ""].seconds
    floors = {
        part: found.floors[floor_name("highest", part)]
        for part in (limit, EXPONENTIALS)
        if floor_name("highest", part) in found.floors
    }
    parts = list(zip(*floors.values(), strict=True))
    shares = [part[0] / seconds for part, seconds in zip(parts, taken, strict=True)]
    low, middle, high = Timing(shares).quantiles
    yield Bar(f"{name}, share of the {_FLOORS[limit]}", case, _SHARE, middle, low, high)
    if len(floors) > 1:
        whole = [sum(part) / seconds for part, seconds in zip(parts, taken, strict=True)]
        low, middle, high = Timing(whole).quantiles
        title = f"{name}, share of the floor of {' and '.join(floors)}"
        yield Bar(title, case, None, middle, low, high)


def _gradient(found: Measured, key: Key, name: str, case: Case, target: float) -> Bar:
    if key in found.skipped:
        return Bar(name, case, target, None, most=True, note=found.skipped[key])
    error = relative_error(found.timings[key].gradient, found.exact[""][1])
    return Bar(name, case, target, error, most=True, note=f"against {found.oracle}")


def _row(bar: Bar, load: float) -> dict[str, object]:
    """Its line in the CSV."""

    def short(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    return {
        "bar": bar.name,
        "rows": bar.case.rows,
        "dimension": bar.case.dimension,
        "threads": bar.case.threads,
        "figure": short(bar.figure),
        "y20": short(bar.low),
        "y80": short(bar.high),
        "target": bar.wanted,
        "verdict": bar.verdict,
        "note": bar.note,
        "load": round(load, 2),
    }
