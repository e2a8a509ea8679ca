"""`secure-fl bench`: measure the kernels on this machine. The programs are in the repository's
`bench/`, not in the package.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from secure_fl.errors import DependencyError

_MARK = Path("bench") / "kernels" / "__main__.py"
_CLONE = (
    "git clone REPOSITORY secure_fl && cd secure_fl && pip install -e "
    "'.[bench,report]', then run this there"
)

bench = typer.Typer(
    help="Measure the kernels on this machine; needs a checkout of the repository.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Rows = Annotated[list[int] | None, typer.Option("--rows", help="Sizes; may be repeated.")]
_Dimension = Annotated[
    list[int] | None, typer.Option("--dimension", help="Widths; may be repeated.")
]
_Threads = Annotated[
    list[int] | None, typer.Option("--threads", help="Numbers of threads; may be repeated.")
]
_Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder for the CSV and plots; the checkout's bench/results when not given."
    ),
]
_Kernels = Annotated[
    list[str] | None,
    typer.Option("--kernel", help="Only this one; may be repeated. All when not given."),
]
_Dtypes = Annotated[
    list[str] | None,
    typer.Option("--dtype", help="float32, float64, bfloat16 or float16; may be repeated."),
]
_Limit = Annotated[
    float | None,
    typer.Option("--limit", help="Leave out a provider whose call takes longer, in seconds."),
]
_Memory = Annotated[
    bool,
    typer.Option("--memory/--no-memory", help="Measure peak memory, each in a process of its own."),
]
_Plot = Annotated[
    bool, typer.Option("--plot", help="Draw time and memory against rows, beside the CSV.")
]
_Rounds = Annotated[int | None, typer.Option("--rounds", min=3, help="Samples of each provider.")]


@bench.command()
def kernels(
    kernel: _Kernels = None,
    rows: _Rows = None,
    dimension: _Dimension = None,
    threads: _Threads = None,
    dtype: _Dtypes = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    full: Annotated[bool, typer.Option("--full", help="All sizes, longer limits: hours.")] = False,
    rounds: _Rounds = None,
    limit: _Limit = None,
    memory: _Memory = True,
    plot: _Plot = False,
    out: _Out = None,
) -> None:
    """Time, memory, error and share of the floor of every provider; about ten minutes on
    two processors.
    """
    sizes = [
        *_many("--rows", rows),
        *_many("--dimension", dimension),
        *_many("--threads", threads),
        *_many("--dtype", dtype),
    ]
    limits = ["--device", device, *_one("--rounds", rounds), *_one("--limit", limit)]
    switches = {"--full": full, "--no-memory": not memory, "--plot": plot}
    flags = [flag for flag, given in switches.items() if given]
    _run([*(kernel or ["all"]), *sizes, *limits, *flags], out)


@bench.command()
def bar(
    rows: _Rows = None,
    dimension: _Dimension = None,
    threads: _Threads = None,
    rounds: _Rounds = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 when a target is not met.")
    ] = False,
    out: _Out = None,
) -> None:
    """The targets, each with its figure and whether it is met; about ten minutes."""
    sizes = [*_many("--rows", rows), *_many("--dimension", dimension), *_many("--threads", threads)]
    _run(["bar", *sizes, *_one("--rounds", rounds), *(["--strict"] if strict else [])], out)


@bench.command()
def plot(out: _Out = None) -> None:
    """Draw the rows measured so far."""
    _run(["plot"], out)


def checkout() -> Path:
    """The checkout: this folder or one above it, or the one that the package is installed from.

    Raises:
        DependencyError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[2]):
        if (folder / _MARK).is_file() and (folder / "secure_fl" / "__init__.py").is_file():
            return folder
    raise DependencyError(
        "the benchmark's programs are in a checkout only",
        field="bench",
        value=str(here),
        remedy=_CLONE,
    )


def _run(arguments: list[str], out: Path | None) -> None:
    """The program in the checkout, its output passed through."""
    command = [sys.executable, "-m", "bench.kernels", *arguments]
    if out is not None:
        command += ["--out", str(out.resolve())]
    # this interpreter, arguments of our own
    code = subprocess.run(command, cwd=checkout(), check=False).returncode  # noqa: S603
    if code:
        raise typer.Exit(code)


def _many(flag: str, values: list[int] | list[str] | None) -> list[str]:
    return [flag, *map(str, values)] if values else []


def _one(flag: str, value: float | None) -> list[str]:
    return [] if value is None else [flag, f"{value:g}"]
