"""The sum of one round: when it may be opened, what was, and what that took."""

from __future__ import annotations

from dataclasses import dataclass

from secure_fl.secure_sum.grid import Blocks


@dataclass(frozen=True)
class Cost:
    """What a round has taken.

    Attributes:
        bytes_down, bytes_up: of its messages, over all parties.
        seconds: over all phases and parties: what one process spends on what many machines would do
            side by side.
        refused: messages that were turned away, as `sender phase: reason`; sender and phase are
            what the message claimed. The first of them, then how many more there were.
    """

    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summed:
    """What was opened.

    Attributes:
        total: summed blocks; a pool that stayed closed is zero.
        survivors: clients in the sum.
        groups: what each group's sum gave that was opened, where clients were summed in groups;
            `total` is the sum of theirs.
        left_out: why each group whose sum was refused is not among them, in one stable word.
    """

    total: Blocks
    survivors: int
    groups: tuple[Summed, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opening:
    """When a sum may be opened.

    There must be `fewest` clients in it, beside what `security` asks for, and `minimum` in a pool
    whose count goes up by `count_unit` a member. An opened field lies within `bound` for each
    client in it, in the head within `head_bound`, and `margin` for their noise; a sum beyond that
    is refused. With `whole` a field fills its slot of the secure sum, and there is one group. With
    a `group_size`, groups of so many clients or more are drawn by `group_seed` and summed apart,
    and this holds for each.
    """

    bound: int
    head_bound: int = 1
    margin: int = 0
    fewest: int = 2
    minimum: int = 1
    count_unit: int = 1
    whole: bool = False
    group_size: int | None = None
    group_seed: bytes = b""
