"""What several commands share: an option, groups, new files, and how far they are."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.progress import track
from typer.core import TyperCommand

from secure_fl.cli.console import err
from secure_fl.errors import ConfigError

if TYPE_CHECKING:
    from secure_fl.config import PrivacyConfig

Step = TypeVar("Step")
_LOG_SECONDS = 3.0

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=c", help="Change a setting; may be repeated."),
]


class _Plain(TyperCommand):
    """Its help is plain text, in which typer escapes brackets for rich where no markup is read."""

    def get_help(self, ctx: Any) -> str:
        return super().get_help(ctx).replace("\\[", "[")


class _Commands(typer.Typer):
    def command(self, *names: Any, **more: Any) -> Any:
        return super().command(*names, **{"cls": _Plain} | more)


def command_group(said: str, **more: Any) -> typer.Typer:
    """Commands under one name; without any of them it prints its help."""
    return _Commands(help=said, no_args_is_help=True, rich_markup_mode=None, **more)


def said_budget(privacy: PrivacyConfig) -> str:
    """A run's budget in words."""
    kind = f"δ = {privacy.delta:g}, {privacy.unit} level, {privacy.adjacency}"
    return f"ε = {privacy.epsilon:g}, {kind}"


def write_new(path: Path, text: str, *, force: bool) -> None:
    """Write a file that everybody may read; with `force`, in place of one that is there.

    Raises:
        ConfigError: there is one.
    """
    from secure_fl.files import PUBLIC, make_folder, write_atomically

    if path.exists() and not force:
        remedy = "choose another name or pass --force"
        raise ConfigError("exists already", field="path", value=str(path), remedy=remedy)
    make_folder(path.parent)
    write_atomically(path, text, mode=PUBLIC)


def steps(said: str, items: Iterable[Step], total: int) -> Iterator[Step]:
    """The items as they come, with a bar on the terminal, or a line now and then in a log."""
    if err.is_terminal:
        yield from track(items, said, total=total, console=err, transient=True)
        return
    told = time.monotonic()
    for number, item in enumerate(items, 1):
        if time.monotonic() - told > _LOG_SECONDS:
            told = time.monotonic()
            err.print(f"{said}: {number} of {total}")
        yield item
