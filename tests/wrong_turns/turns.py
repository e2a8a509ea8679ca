"""A wrong turn that somebody takes in the first hour, and what the message must say of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from secure_fl.errors import SecureFLError


@dataclass(frozen=True)
class Turn:
    """One row of a table.

    Attributes:
        name: what is done.
        do: does it, given what the table's test prepares.
        field: what the message must name: a setting, argument or file.
        shows: the value, or its type, that it must show.
        remedy: words of the remedy, as a regular expression.
        hides: what it must not show, of examples.
        mended: does what the remedy says, where that can be tried; nothing may be raised then.
    """

    name: str
    do: Callable[[Any], Any]
    field: str
    shows: str
    remedy: str
    hides: tuple[str, ...] = ()
    mended: Callable[[Any], Any] | None = None

    def taken(self, given: Any) -> SecureFLError:
        """Take it, and hold the message against the row."""
        with pytest.raises(SecureFLError) as caught:
            self.do(given)
        error, text = caught.value, str(caught.value)
        if given is not None:
            text = text.replace(str(given), "FOLDER")  # whose name has digits of its own
        assert error.field == self.field, text
        assert f"(got {error_value(text)}). Remedy: " in text, text
        assert self.shows in error_value(text), text
        assert re.search(self.remedy, error.remedy), text
        for hidden in self.hides:
            assert hidden not in text, text
        if self.mended is not None:
            self.mended(given)
        return error


def error_value(text: str) -> str:
    """What stands as the value in a message."""
    found = re.search(r"\(got (.*)\)\. Remedy: ", text, re.DOTALL)
    assert found is not None, text
    return found[1]


def named(turns: list[Turn]) -> dict[str, Any]:
    """For `pytest.mark.parametrize`."""
    assert len({turn.name for turn in turns}) == len(turns)
    return {"argnames": "turn", "argvalues": turns, "ids": [turn.name for turn in turns]}
