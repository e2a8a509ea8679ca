"""What the hot loop costs, read from its instructions: a bound on cycles that needs no GPU, and two
numbers that CI can hold.

The hot loop is the first innermost loop with products and exponentials of them (products alone
where there are none). A loop inside it, over chunks of dimensions, counts as often as it turns.
Work that warps repeat of each other, or that the compiler does twice, counts as often as it is
done: a loop that promises one exponential and shows two is one to look at.

Per similarity: `slots`, instructions issued by one thread, and `exps`, exp₂ on the special-function
units. The cycles of a multiprocessor per similarity are at least the largest of tensor, exponential
and issue cycles. It is a model of lower bounds: latency, memory and the scheduler come on top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from secure_fl_kernels.proof.binary import Binary, is_exponential, is_matrix
from secure_fl_kernels.proof.flow import Cycle, cycles
from secure_fl_kernels.proof.sass import Code, Instruction

Resource = Literal["tensor", "exponential", "issue"]


@dataclass(frozen=True)
class Cost:
    """The hot loop's cost per similarity.

    Attributes:
        slots: instructions of one thread.
        exps: exp₂ on the special-function units.
        cycles: of a multiprocessor, by resource.
        matrix: instructions that multiply matrices, per warp and turn; 0 is a loop that does not
            use the matrix units.
    """

    slots: float
    exps: float
    cycles: Mapping[Resource, float]
    matrix: frozenset[str]

    @property
    def bound(self) -> Resource:
        """What the loop would wait for if nothing else were in its way."""
        return max(self.cycles, key=lambda resource: self.cycles[resource])

    @property
    def floor(self) -> float:
        """Cycles per similarity and multiprocessor, at least."""
        return self.cycles[self.bound]


def cost(binary: Binary) -> Cost | None:
    """The hot loop's cost, or None where the variant has none or the binary's cannot be found."""
    loop = binary.variant.loop
    hot = None if loop is None else hot_loop(binary.code)
    if loop is None or hot is None:
        return None
    places = {
        place
        for cycle in cycles(binary.code)
        if hot.holds(cycle) and _matrix(cycle.of(binary.code))
        for place in cycle.body
    }
    inner = [binary.code[place] for place in sorted(places)]
    outer = [binary.code[place] for place in sorted(hot.body - places)]
    repeats = binary.chunks if inner else 0
    each = binary.variant.warps * binary.target.gpu.warp_size / loop.elements
    slots = (len(outer) + repeats * len(inner)) * each
    exps = (_exps(outer) + repeats * _exps(inner)) * each
    flop, target = 2 * loop.products * loop.width * _passes(binary), binary.target
    busy: dict[Resource, float] = {
        "tensor": flop / target.flop.get(precision(binary), target.flop["fp32"]),
        "exponential": exps / target.exponentials,
        "issue": slots / target.slots,
    }
    return Cost(
        slots, exps, busy, frozenset(i.name for i in hot.of(binary.code) if is_matrix(i.name))
    )


def hot_loop(code: Code) -> Cycle | None:
    """The first innermost loop with products and exponentials, else the first innermost
    with products.
    """
    products = [cycle for cycle in cycles(code) if _matrix(cycle.of(code))]
    candidates = [cycle for cycle in products if _exps(cycle.of(code))] or products
    innermost = [
        cycle for cycle in candidates if not any(cycle.holds(other) for other in candidates)
    ]
    return min(innermost, key=lambda cycle: cycle.head, default=None)


def precision(binary: Binary) -> str:
    """How the operands of the products are held: their type, or for float32 what the variant's
    constants ask for.
    """
    half = {kind.lstrip("*k") for kind in binary.variant.types.values()} & {"bf16", "fp16"}
    if half:
        return half.pop()
    asked = [value for value in binary.variant.constants.values() if isinstance(value, str)]
    return "fp32" if "ieee" in asked else "tf32"


def _passes(binary: Binary) -> int:
    """Products on the matrix units per product asked for."""
    return 3 if precision(binary) == "tf32" and "tf32x3" in binary.variant.constants.values() else 1


def _matrix(code: Sequence[Instruction]) -> int:
    return sum(is_matrix(i.name) for i in code)


def _exps(code: Sequence[Instruction]) -> int:
    return sum(is_exponential(i.name, i.modifiers) for i in code)
