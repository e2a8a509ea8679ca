"""`secure-fl bench`: measure the kernels here, by programs of a checkout's `bench/`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from secure_fl.cli.common import command_group
from secure_fl.errors import DependencyError

_MARK = Path("bench") / "kernels" / "__main__.py"
_CLONE = (
    "git clone REPOSITORY secure_fl && cd secure_fl && pip install -e "
    "'.[bench,report]', then run this there"
)

bench = command_group("Measure the kernels on this machine; needs a checkout of the repository.")

_Sizes = Annotated[list[int] | None, typer.Option(help="May be repeated.")]
_Out = Annotated[
    Path | None,
    typer.Option(help="Folder for the CSV and plots; the checkout's bench/results when not given."),
]
_Minutes = Annotated[
    float | None, typer.Option(min=0, help="Minutes that all sizes may take, cheapest first.")
]
_Pair = Annotated[
    tuple[Path, Path] | None,
    typer.Option(help="Set two CSVs side by side, before and after, instead of measuring."),
]
_Rounds = Annotated[int | None, typer.Option(min=3, help="Samples of each provider.")]


@bench.command()
def kernels(
    kernel: Annotated[
        list[str] | None, typer.Option(help="Only this one; may be repeated. All when not given.")
    ] = None,
    rows: _Sizes = None,
    dimension: _Sizes = None,
    threads: _Sizes = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="float32, float64, bfloat16 or float16; may be repeated."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    full: Annotated[bool, typer.Option("--full", help="All sizes, longer limits: hours.")] = False,
    budget: _Minutes = None,
    rounds: _Rounds = None,
    limit: Annotated[
        float | None, typer.Option(help="Leave out a provider whose call takes longer, in seconds.")
    ] = None,
    memory: Annotated[
        bool, typer.Option(help="Measure peak memory, each in a process of its own.")
    ] = True,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw time and memory against rows, beside the CSV.")
    ] = False,
    compare: _Pair = None,
    out: _Out = None,
) -> None:
    """Time, memory, error and share of the floor of every provider; about ten minutes.

    The cheapest sizes come first, and what the CSV holds from this commit and machine is not
    measured again: a measurement that was stopped goes on. With --compare it exits with 1 where a
    kernel became slower by more than the two files' scatter explains.
    """
    if compare is not None:
        _run([], {"compare": list(compare)})
        return
    sizes = {"rows": rows, "dimension": dimension, "threads": threads, "dtype": dtype}
    limits = {"device": device, "full": full, "budget": budget, "rounds": rounds, "limit": limit}
    _run(kernel or ["all"], sizes | limits | {"no-memory": not memory, "plot": plot, "out": out})


@bench.command()
def bar(
    rows: _Sizes = None,
    dimension: _Sizes = None,
    threads: _Sizes = None,
    rounds: _Rounds = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 when a target is not met.")
    ] = False,
    out: _Out = None,
) -> None:
    """The targets, each with its figure and whether it is met; about ten minutes."""
    sizes = {"rows": rows, "dimension": dimension, "threads": threads}
    _run(["bar"], sizes | {"rounds": rounds, "strict": strict, "out": out})


@bench.command()
def plot(out: _Out = None) -> None:
    """Draw the rows measured so far."""
    _run(["plot"], {"out": out})


def checkout() -> Path:
    """The checkout: this folder or one above it, or the one that the package is installed from.

    Raises:
        DependencyError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[2]):
        if (folder / _MARK).is_file() and (folder / "secure_fl" / "__init__.py").is_file():
            return folder
    problem = "the benchmark's programs are in a checkout only"
    raise DependencyError(problem, field="bench", value=str(here), remedy=_CLONE)


def _run(what: list[str], options: dict[str, Any]) -> None:
    """The program in the checkout, its output passed through; it calls its options as ours are."""
    command = [sys.executable, "-m", "bench.kernels", *what]
    for name, value in options.items():
        if value is None or value is False or value == []:
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        command += [
            f"--{name}",
            *(str(each.resolve() if isinstance(each, Path) else each) for each in values),
        ]
    # this interpreter, arguments of our own
    code = subprocess.run(command, cwd=checkout(), check=False).returncode  # noqa: S603
    if code:
        raise typer.Exit(code)
