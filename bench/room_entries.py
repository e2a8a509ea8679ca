"""How often one round of one client enters each room of the house.

    python -m bench.room_entries [--protection bfv+masked] [--callers]

Four clients pre-train under the default protection, each on one batch of sixteen examples. In the
second round every call is looked at that is made while the first client takes its messages: from
the plan of the round to the state after it, training and protection included. An entry is a call of
a function of one room by a function of another; what other packages do in between is the caller's.
`answer` are those under the client's answer, which is its training; `messages` the others.
`--callers` says who enters by which function.

Prints entries by room and in all. When last counted: 386 into 15 rooms, 34 of them under the
answer and of these at most 6 into one room. The others grow with messages (nine) and peers (three),
each of whose signatures is checked by itself, and hardly with parameters.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch

from bench.parties import Rounds, federation
from secure_fl.federation.client import Client
from secure_fl.federation.parties.participant import Participant

_PACKAGES = {
    name: Path(str(find_spec(name).origin)).parent  # type: ignore[union-attr]
    for name in ("secure_fl", "secure_fl_kernels")
}
"""Where ours are; a checkout may have the name of one too."""
Entry = tuple[str, str, str]
"""The room entered, the function called, and the function that calls it."""


def room_of(code: CodeType) -> str | None:
    """The folder, or the file, of a package of ours that some code lies in; None elsewhere."""
    path = Path(code.co_filename)
    package = next(
        (name for name, folder in _PACKAGES.items() if path.is_relative_to(folder)), None
    )
    if package is None:
        return None
    inside = path.relative_to(_PACKAGES[package]).parts
    return package if package == "secure_fl_kernels" else inside[0].removesuffix(".py")


@dataclass
class Entries:
    """Counts calls between rooms while one party receives.

    Attributes:
        party: its name.
        answer, messages: entries under the client's answer, and all others.
    """

    party: str
    answer: Counter[Entry] = field(default_factory=Counter)
    messages: Counter[Entry] = field(default_factory=Counter)
    _receiving: FrameType | None = None
    _answering: FrameType | None = None

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """For `sys.setprofile`."""
        code = frame.f_code
        if event == "call":
            if self._receiving is None and code is Participant.receive.__code__:
                ours = getattr(frame.f_locals["self"], "name", "") == self.party
                self._receiving = frame if ours else None
            if self._receiving is not None:
                if code is Client.answered.__code__:
                    self._answering = frame
                self._count(frame)
        elif event == "return":
            self._receiving = None if frame is self._receiving else self._receiving
            self._answering = None if frame is self._answering else self._answering

    def _count(self, frame: FrameType) -> None:
        room, caller = room_of(frame.f_code), _caller(frame)
        resumed = frame.f_code.co_flags & inspect.CO_GENERATOR and frame.f_lasti > 4
        if room is None or caller is None or resumed or room_of(caller) == room:
            return
        into = self.messages if self._answering is None else self.answer
        into[room, frame.f_code.co_qualname, caller.co_qualname] += 1


def _caller(frame: FrameType) -> CodeType | None:
    """The nearest of our functions below this one."""
    back = frame.f_back
    while back is not None and room_of(back.f_code) is None:
        back = back.f_back
    return None if back is None else back.f_code


def measure(protection: str) -> Entries:
    """The second round of the first of four clients."""
    made = federation(4, 3, 16, protection=protection)
    rounds = Rounds(made)
    rounds.run(1, lambda: 0.0)
    entries = Entries("client-0000")
    sys.setprofile(entries)
    try:
        rounds.run(1, lambda: 0.0)
    finally:
        sys.setprofile(None)
        rounds.close()
    return entries


def lines(entries: Entries, *, callers: bool) -> Iterator[str]:
    """What was counted, the most entered room first."""
    both = entries.answer + entries.messages
    rooms = Counter[str]()
    for (room, _, _), times in both.items():
        rooms[room] += times
    yield f"{'room':<20}{'answer':>8}{'messages':>10}"
    for room, _ in rooms.most_common():
        answer, messages = (
            sum(times for (where, _, _), times in counted.items() if where == room)
            for counted in (entries.answer, entries.messages)
        )
        yield f"{room:<20}{answer:>8}{messages:>10}"
        for (where, called, caller), times in both.most_common() if callers else ():
            if where == room:
                yield f"  {times:>6}  {called} by {caller}"
    sums = entries.answer.total(), entries.messages.total()
    yield f"{sum(sums)} entries into {len(rooms)} rooms, {sums[0]} of them under the answer"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protection", default="bfv+masked", choices=["bfv+masked", "masked"])
    parser.add_argument("--callers", action="store_true", help="say who enters by what")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for line in lines(measure(arguments.protection), callers=arguments.callers):
        print(line)


if __name__ == "__main__":
    main()
