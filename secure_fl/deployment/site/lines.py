"""What a check finds: a line for each thing, with what to do where it does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Self

from secure_fl.errors import SecureFLError


@dataclass(frozen=True)
class Line:
    """One thing that was looked at."""

    what: str
    state: Literal["ok", "warn", "fail"]
    said: str
    remedy: str = ""

    @classmethod
    def ok(cls, what: str, said: str) -> Self:
        """It holds."""
        return cls(what, "ok", said)

    @classmethod
    def warn(cls, what: str, said: str, remedy: str) -> Self:
        """It may become a problem, or is not known."""
        return cls(what, "warn", said, remedy)

    @classmethod
    def fail(cls, what: str, said: str, remedy: str) -> Self:
        """The site would not take part, or not to the end."""
        return cls(what, "fail", said, remedy)


def guarded(what: str, lines: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """The lines of one part; what it raises is a line too, so that the others are looked at."""
    try:
        yield from lines()
    except SecureFLError as error:
        said = f"{error.field}: {error.problem}"
        if error.field.endswith("path"):  # other values may be of the examples
            said += f" ({error.value})"
        yield Line.fail(what, said, error.remedy)
