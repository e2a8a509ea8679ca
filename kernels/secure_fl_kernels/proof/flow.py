"""Loops of machine code: by control flow, since compilers lay out the rare paths of a loop far
from it.

A loop is what goes around a jump back to an instruction that every way there passes (it dominates
the jump). Looking at jumps alone would also take for loops the waits that sm100 code puts behind a
kernel's end and returns from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from secure_fl_kernels.proof.sass import Code, Instruction


@dataclass(frozen=True)
class Cycle:
    """One loop: its first instruction, and the places of all its instructions, those of loops
    inside it too.
    """

    head: int
    body: frozenset[int]

    def holds(self, other: Cycle) -> bool:
        """Whether the other loop is inside this one."""
        return other.body < self.body

    def of(self, code: Code) -> list[Instruction]:
        return [code[place] for place in sorted(self.body)]


def cycles(code: Code) -> list[Cycle]:
    """Every loop, by the place of its head; jumps back to one head make one loop."""
    blocks = _blocks(code)
    starts = {block.start: number for number, block in enumerate(blocks)}
    after = [[starts[place] for place in _next(code, block.stop - 1)] for block in blocks]
    before: list[list[int]] = [[] for _ in blocks]
    for number, following in enumerate(after):
        for other in following:
            before[other].append(number)
    above = _dominators(after, before)
    bodies: dict[int, set[int]] = {}
    for number, following in enumerate(after):
        for head in following:
            if head in above[number]:
                bodies.setdefault(head, {head}).update(_around(number, head, before))
    found = [
        Cycle(
            blocks[head].start,
            frozenset(
                place
                for number in members
                for place in range(blocks[number].start, blocks[number].stop)
            ),
        )
        for head, members in bodies.items()
    ]
    return sorted(found, key=lambda cycle: cycle.head)


def _next(code: Code, place: int) -> list[int]:
    """Where control may go from an instruction."""
    instruction = code[place]
    places = [] if instruction.jump is None else [instruction.jump]
    if not instruction.final and place + 1 < len(code):
        places.append(place + 1)
    return places


def _blocks(code: Code) -> list[range]:
    """Runs of instructions with one way in and one way out."""
    cuts = {0, len(code)}
    for place, instruction in enumerate(code):
        if instruction.jump is not None or instruction.final:
            cuts.update({place + 1} if instruction.jump is None else {place + 1, instruction.jump})
    ordered = sorted(cut for cut in cuts if cut <= len(code))
    return [range(first, last) for first, last in pairwise(ordered)]


def _dominators(
    after: Sequence[Sequence[int]], before: Sequence[Sequence[int]]
) -> list[frozenset[int]]:
    """For each block those that every way to it passes, itself too; none for blocks that nothing
    leads to.
    """
    order = _reachable(after)
    above: dict[int, frozenset[int]] = {0: frozenset({0})} if order else {}
    changed = True
    while changed:
        changed = False
        for number in order[1:]:
            known = [above[other] for other in before[number] if other in above]
            new = frozenset.intersection(*known) | {number}
            if above.get(number) != new:
                above[number], changed = new, True
    return [above.get(number, frozenset()) for number in range(len(after))]


def _reachable(after: Sequence[Sequence[int]]) -> list[int]:
    """Blocks in reverse postorder from the first: each but heads of loops comes after all that lead
    to it.
    """
    seen, done = {0}, []
    stack = [(0, iter(after[0]))] if after else []
    while stack:
        number, left = stack[-1]
        for other in left:
            if other not in seen:
                seen.add(other)
                stack.append((other, iter(after[other])))
                break
        else:
            done.append(number)
            stack.pop()
    return done[::-1]


def _around(tail: int, head: int, before: Sequence[Sequence[int]]) -> set[int]:
    """Blocks from which `tail` can be reached without passing `head`."""
    members, left = {tail}, [tail]
    while left:
        number = left.pop()
        if number == head:
            continue
        for other in before[number]:
            if other not in members:
                members.add(other)
                left.append(other)
    return members
