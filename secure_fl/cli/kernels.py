"""`secure-fl kernels`: are the fused kernels right and sound, with or without a GPU, and which
tiles are the fastest here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from secure_fl.cli.common import command_group
from secure_fl.cli.console import Sheet, err, out
from secure_fl.errors import ConfigError, need
from secure_fl_kernels import tuning

if TYPE_CHECKING:
    from secure_fl_kernels.proof.check import Agreement
    from secure_fl_kernels.proof.matrix import Verdict
    from secure_fl_kernels.proof.targets import Target
    from secure_fl_kernels.tuner import Searched

WRONG = 1
"""Exit code where a kernel disagrees or a binary has a fault."""

kernels_app = command_group("The fused kernels: check them, and fit them to this machine.")


@kernels_app.callback()
def _kernels() -> None:
    pass


@kernels_app.command()
def check(
    target: Annotated[
        list[str] | None,
        typer.Option(help="GPU to compile for, such as sm90 or gfx942; repeatable."),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Compile for all four families: sm80, sm90, sm100, gfx942."),
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Compile every shipped configuration, not just the core.")
    ] = False,
) -> None:
    """Compare every provider with the float64 reference, interpret the Triton kernels under a
    guard, compile and inspect them.

    No GPU is needed. A few minutes; with --all --full about half an hour on two processors. Exits
    with 1 where anything is wrong.
    """
    targets = _targets(target, everything)
    sound = _report_agreement("against the float64 reference", _agreements(), None)
    need("triton", "triton", "secure-fl kernels check")
    from secure_fl_kernels.proof.check import INTERPRETED, interpreted

    sound &= _report_agreement(
        "Triton, interpreted under a guard, programs in both orders", interpreted(), INTERPRETED
    )
    sound &= _report_binaries(targets, full)
    out.print(
        "everything holds" if sound else "something is wrong, see above",
        style="green" if sound else "red",
    )
    if not sound:
        raise typer.Exit(WRONG)


@kernels_app.command()
def tune(
    device: Annotated[str, typer.Option(help="cpu or cuda; the GPU where there is one.")] = "",
    minutes: Annotated[float, typer.Option(min=0, help="What it may take.")] = 10.0,
    again: Annotated[
        bool, typer.Option("--again", help="Measure anew what was measured before.")
    ] = False,
) -> None:
    """Measure tiles on this GPU or processor and keep the fastest, for all later runs.

    Each class of shapes is written as it is found: stop it at any time, the same command goes on.
    `secure-fl doctor` shows what is used; SECURE_FL_TILES=shipped turns it off, another folder's
    name has the files there.
    """
    import torch

    from secure_fl_kernels.tuner import bench_of
    from secure_fl_kernels.tuner import tune as measure

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen not in ("cpu", "cuda") or (chosen == "cuda" and not torch.cuda.is_available()):
        problem = "no such device here"
        raise ConfigError(problem, field="--device", value=chosen, remedy="leave it out, or cpu")
    bench = bench_of(torch.device(chosen))
    out.print(f"tiles for {bench.device}, {minutes:g} minutes at most")

    def tell(name: str, choice: tuple[int, ...], ratio: float) -> None:
        gain = f"{ratio:.2f} times the shipped tile's seconds" if ratio < 1 else "as shipped"
        out.print(f"  {name}: {', '.join(map(str, choice))}; {gain}")

    try:
        found = measure(bench, minutes, tell, again)
    except ValueError as error:
        remedy = "unset it, or name a folder"
        value = os.environ.get(tuning.VARIABLE)
        raise ConfigError(str(error), field=tuning.VARIABLE, value=value, remedy=remedy) from None
    _tell_end(found, again)


def _tell_end(found: Searched, again: bool) -> None:
    """What was measured before, what is left, and where all of it lies."""
    if found.kept:
        out.print(f"  {found.kept} classes were measured before; --again measures them anew")
    if found.left:
        how = " as they were; more --minutes reach them" if again else "; the same command goes on"
        out.print(f"  {len(found.left)} classes are left{how}")
    out.print(f"{found.path}" if found.path.exists() else "nothing was measured, no file written")


def _targets(names: list[str] | None, everything: bool) -> list[str]:
    """What to compile for; checked before minutes are spent on the rest."""
    if find_spec("triton") is None:
        return []
    import triton

    from secure_fl_kernels.proof.targets import FAMILIES, TARGETS

    if triton.knobs.runtime.interpret:
        problem = "interpreted kernels cannot be compiled"
        remedy = "unset it: the interpreter is run in a process of its own"
        raise ConfigError(problem, field="TRITON_INTERPRET", value="1", remedy=remedy)
    for name in names or ():
        if name not in TARGETS:
            remedy = f"one of {', '.join(TARGETS)}"
            raise ConfigError("no such target", field="--target", value=name, remedy=remedy)
    return [each.name for each in FAMILIES] if everything else [*dict.fromkeys(names or ["sm90"])]


def _agreements() -> Iterator[Agreement]:
    from secure_fl_kernels.proof.check import agreements, available

    for provider, device, dtypes in available():
        yield from agreements(provider, device, dtypes)


def _report_agreement(title: str, agreements: Iterable[Agreement], total: int | None) -> bool:
    """One line for each provider and dtype, and one for whatever fails."""
    with _bar(title, total) as advance:
        found = []
        for agreement in agreements:
            advance()
            found.append(agreement)
    rows = [_agreed(list(group)) for _, group in groupby(sorted(found, key=_who), key=_who)]
    heads = ["provider", "dtype", "cases", "value error", "gradient error", "allowed", ""]
    out.print(Sheet(title, heads, rows))
    for a in found:
        if not a.holds:
            found_error = f"value error {a.value:.1e}, gradient error {a.gradient:.1e}"
            errors = f"{found_error}, allowed {a.tolerance:.0e}"
            case = f"{a.function} by {a.provider} in {a.dtype}, {a.rows} rows of {a.width}"
            out.print(f"{case}: {a.problem or errors}", style="red")
    return all(a.holds for a in found)


def _agreed(members: list[Agreement]) -> list[object]:
    """The row of one provider and dtype: its largest errors."""
    largest = [max(a.value for a in members), max(a.gradient for a in members)]
    errors = [*(f"{error:.1e}" for error in largest), f"{members[0].tolerance:.0e}"]
    verdict = "ok" if all(a.holds for a in members) else "WRONG"
    return [*_who(members[0]), len(members), *errors, verdict]


def _who(agreement: Agreement) -> tuple[str, str]:
    return agreement.provider, agreement.dtype


def _report_binaries(names: list[str], full: bool) -> bool:
    """One line for each kernel and target, and one for each finding."""
    from secure_fl_kernels.proof.matrix import examine, jobs, read_snapshot
    from secure_fl_kernels.proof.targets import target_of

    targets: list[Target] = [target_of(name) for name in names]
    planned, snapshot = jobs(targets, core=not full), read_snapshot()
    rows, findings = [], []
    with _bar(
        f"compiling for {', '.join(names)}", sum(len(job.variants) for job in planned)
    ) as advance:
        for job in planned:
            verdicts = examine(job, snapshot)
            rows.append([job.target.name, job.kernel, *_summary(verdicts)])
            findings += [finding for verdict in verdicts for finding in verdict.findings]
            for _ in verdicts:
                advance()
    columns = ["target", "kernel", "binaries", "registers", "spills"]
    columns += ["shared KiB", "slots/element", "exps/element", ""]
    out.print(Sheet("compiled, the largest of each kernel's configurations", columns, rows))
    for finding in findings:
        out.print(str(finding), style="red")
    return not findings


def _summary(verdicts: list[Verdict]) -> list[object]:
    from secure_fl_kernels.proof.binary import Binary

    binaries = [v.result for v in verdicts if isinstance(v.result, Binary)]
    costs = [v.cost for v in verdicts if v.cost is not None]
    used = [max((b.registers for b in binaries), default="-")]
    used += [max((b.spills for b in binaries), default="-")]
    shared = max((b.shared / 1024 for b in binaries), default=0.0)
    loop = ["-", "-"]
    if costs:
        loop = [f"{max(c.slots for c in costs):.1f}", f"{max(c.exps for c in costs):.2f}"]
    wrong = sum(len(v.findings) for v in verdicts)
    return [len(verdicts), *used, f"{shared:.0f}", *loop, f"{wrong} FOUND" if wrong else "ok"]


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere; gives what moves it by a step."""
    named, bar = TextColumn("{task.description}"), BarColumn(bar_width=24)
    columns = (named, bar, MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        yield partial(progress.advance, progress.add_task(title, total=total))
