"""The commands in the pages about several machines are those of this version."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():  # of typer, about the version of click that is there
    warnings.simplefilter("ignore")
    import click
    import typer.main

    from secure_fl.cli.main import app

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLE = DOCS.parent / "examples" / "hospitals" / "README.md"
NAMES = ("deployment", "data-protection-sheet", "threat-model")
PAGES = [*(DOCS / f"{name}.md" for name in NAMES), EXAMPLE]
FENCED = re.compile(r"^```\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(secure-fl [^`]+)`")


def commands(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    fenced = [line for block in FENCED.findall(text) for line in block.splitlines()]
    typed = [line.partition("#")[0].strip() for line in fenced if line.startswith("secure-fl ")]
    return typed + INLINE.findall(FENCED.sub("", text))


def refused(line: str) -> str:
    """Why the command line is none of this version; empty where it is."""
    words = [word for word in shlex.split(line)[1:] if word not in ("…", "...")]
    command = typer.main.get_command(app)
    context = click.Context(command)
    while isinstance(command, click.Group):
        if not words:
            return ""  # a group by itself
        name = words.pop(0)
        found = command.get_command(context, name)
        if found is None:
            return f"no command {name}"
        command, context = found, click.Context(found, parent=context)
    try:
        command.make_parser(context).parse_args(words)
    except click.UsageError as error:
        return error.format_message()
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_line_is_one(page: Path) -> None:
    assert {line: why for line in commands(page) if (why := refused(line))} == {}


def test_the_guide_shows_all_steps_of_both_sides() -> None:
    told = {tuple(line.split()[1:3]) for line in commands(DOCS / "deployment.md")}
    steps = {"init", "sign", "start", "status", "resume", "stop", "revoke", "renew"}
    assert {("federate", name) for name in steps} <= told
    assert {("site", name) for name in ("init", "join", "check", "run", "status", "renew")} <= told


@pytest.mark.parametrize(
    "line", ["secure-fl site fly DIR", "secure-fl federate init fl --nme x", "secure-fl nothing"]
)
def test_a_command_that_is_none_is_found(line: str) -> None:
    assert refused(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
