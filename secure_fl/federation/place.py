"""Where a federation's program is: known to everybody, also to who holds no model."""

from __future__ import annotations

from dataclasses import dataclass

from secure_fl.crypto.strict_json import malformed


@dataclass(frozen=True, order=True)
class Place:
    """Where a program is.

    Attributes:
        step: steps of the program that are behind it.
        round: rounds finished in the step under way.
    """

    step: int
    round: int

    def __post_init__(self) -> None:
        if not all(0 <= value < 1 << 32 for value in (self.step, self.round)):
            raise malformed("place", "step and round are numbers of 32 bits")
