"""What `--help` says is what is meant: of every command there is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from secure_fl.quantities import counted

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # typer reads what click will drop
    import typer.main

    from secure_fl.cli.main import app


def commands(command: Any, name: str = "secure-fl") -> Iterator[tuple[str, str]]:
    """Each command's name and help, those of groups too."""
    with typer.Context(command, info_name=name) as context:
        yield name, command.get_help(context)
    for each, found in getattr(command, "commands", {}).items():
        yield from commands(found, f"{name} {each}")


def test_no_help_has_marks_in_it() -> None:
    found = dict(commands(typer.main.get_command(app)))
    assert len(found) > 30
    assert {name for name, text in found.items() if "\\" in text} == set()
    assert "[required]" in found["secure-fl federate init"]


@pytest.mark.parametrize(
    ("number", "what", "said"),
    [
        (0, "round", "0 rounds"),
        (1, "round", "1 round"),
        (2, "party", "2 parties"),
        (1, "party", "1 party"),
        (3, "class", "3 classes"),
        (1, "class", "1 class"),
        (2, "day", "2 days"),
    ],
)
def test_one_is_not_many(number: int, what: str, said: str) -> None:
    assert counted(number, what) == said
