"""Compile a shipped variant for a GPU that is not there, and read from the binary what it will need
and do.

Everything used comes with triton's wheel: the compilers for NVIDIA and AMD, and NVIDIA's
disassembler. Triton keeps compiled kernels in its cache, so a second run only reads.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import triton
from triton.compiler import ASTSource

from secure_fl_kernels.gpu.variants import Variant
from secure_fl_kernels.proof import sass
from secure_fl_kernels.proof.sass import Code
from secure_fl_kernels.proof.targets import Target

ALIGNED = [["tt.divisibility", 16]]
"""What a launch finds out about its arguments by itself: torch aligns tensors, and padded widths
are multiples of 16.
"""

_AMD_EXPONENTIAL = re.compile(r"v_exp_f(16|32)")
_AMD_MATRIX = re.compile(r"v_(mfma|smfmac|wmma)")
_MATRIX = re.compile(r"(UTC|HG|QG|IG|H|D|I|O)\w*MMA$")


@dataclass(frozen=True)
class Binary:
    """One variant compiled for one target.

    Attributes:
        registers: of one thread.
        spills: instructions that move registers to local memory and back (NVIDIA), registers
            spilled (AMD).
        shared: bytes of shared memory of one block.
        columns: of tensor memory.
        chunks: turns of the loop over chunks of dimensions inside the hot loop; 1 without one.
        counts: instructions by name.
        seconds: of processor time that compiling and reading took; next to nothing from the cache.
    """

    variant: Variant
    target: Target
    registers: int
    spills: int
    shared: int
    columns: int
    chunks: int
    counts: Mapping[str, int] = field(repr=False)
    code: Code = field(repr=False)
    seconds: float = 0.0


@dataclass(frozen=True)
class Failure:
    """A variant that does not compile for a target, and why, in one line."""

    variant: Variant
    target: Target
    reason: str


def compile_all(variants: Sequence[Variant], target: Target) -> list[Binary | Failure]:
    """Every variant for one target, in order. Several at once cost less than one by one: the
    disassembler is slow to start.

    Raises:
        RuntimeError: kernels are interpreted in this process, so there is nothing to compile.
    """
    if triton.knobs.runtime.interpret:
        raise RuntimeError(
            "TRITON_INTERPRET is set: an interpreted kernel cannot be compiled; run this in a "
            "process without it"
        )
    compiled = [_compile(variant, target) for variant in variants]
    start = _clock()
    codes = iter(
        _codes([kernel for kernel, _ in compiled if not isinstance(kernel, Failure)], target)
    )
    share = (_clock() - start) / max(1, len(compiled))
    return [
        kernel
        if isinstance(kernel, Failure)
        else _read(variant, target, kernel, next(codes), seconds + share)
        for variant, (kernel, seconds) in zip(variants, compiled, strict=True)
    ]


def _codes(kernels: Sequence[Any], target: Target) -> list[Code]:
    if target.processor:
        return sass.disassemble([kernel.asm["cubin"] for kernel in kernels], target.processor)
    return [sass.read_assembly(kernel.asm["amdgcn"]) for kernel in kernels]


def _clock() -> float:
    """Processor time of this process and of those it has waited for: the compilers' back ends are
    programs of their own.
    """
    return sum(os.times()[:4])


def source(variant: Variant) -> ASTSource:
    """The kernel with its types: pointers and strides aligned as torch makes them, everything not
    typed a constexpr.

    Raises:
        ValueError: the variant's arguments are not the kernel's.
    """
    names = list(variant.kernel.arg_names)
    if unknown := (set(variant.types) | set(variant.constants)) ^ set(names):
        raise ValueError(
            f"{variant.name}: {', '.join(sorted(unknown))} must be both an argument and in types "
            "or constants"
        )
    signature = {name: variant.types.get(name, "constexpr") for name in names}
    attributes = {
        (place,): ALIGNED for place, name in enumerate(names) if aligned(name, signature[name])
    }
    return ASTSource(
        fn=variant.kernel, signature=signature, constexprs=dict(variant.constants), attrs=attributes
    )


def aligned(name: str, kind: str) -> bool:
    """Whether a launch would see a multiple of 16: every pointer, and integers that are strides."""
    return kind.startswith("*") or (kind in ("i32", "i64") and name.lower().startswith("stride"))


def _compile(variant: Variant, target: Target) -> tuple[Any, float]:
    start = _clock()
    # the default; 3.9 wants it said
    options = {"num_warps": variant.warps, "num_stages": variant.stages, "enable_fp_fusion": True}
    try:
        return triton.compile(source(variant), target=target.gpu, options=options), _clock() - start
    except Exception as error:  # the compiler raises whatever its passes and its assembler raise
        return Failure(variant, target, _innermost(error)), 0.0


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _read(variant: Variant, target: Target, kernel: Any, code: Code, seconds: float) -> Binary:
    counts = Counter(instruction.name for instruction in code)
    columns = int(getattr(kernel.metadata, "tmem_size", None) or 0)
    if target.processor:
        registers, spills = (
            sass.resources(kernel.asm["cubin"])["REG"],
            counts["STL"] + counts["LDL"],
        )
    else:
        text = kernel.asm["amdgcn"]
        registers, spills = _noted(text, "vgpr_count"), _noted(text, "vgpr_spill_count")
    chunks = _chunks(kernel.asm["ttgir"])
    return Binary(
        variant,
        target,
        registers,
        spills,
        kernel.metadata.shared,
        columns,
        chunks,
        counts,
        code,
        seconds,
    )


_LOOP = re.compile(
    r"^(?P<indent>\s*)(?:%\S+ = )?scf\.for %\S+ = (?P<first>%\S+) to (?P<last>%\S+) step "
    r"(?P<step>%\S+)"
)
_CONSTANT = re.compile(r"%c(-?\d+)_i32")


def _chunks(text: str) -> int:
    """Turns of the first loop with constant bounds that stands right inside one without, in
    triton's own intermediate code.
    """
    above: list[tuple[int, bool]] = []
    for line in text.splitlines():
        if found := _LOOP.match(line):
            indent = len(found["indent"])
            above = [loop for loop in above if loop[0] < indent]
            bounds = [_CONSTANT.match(found[part]) for part in ("first", "last", "step")]
            first, last, step = (int(bound[1]) if bound else 0 for bound in bounds)
            if all(bounds) and above and not above[-1][1]:
                return -(-(last - first) // step)
            above.append((indent, all(bounds)))
    return 1


def _noted(text: str, key: str) -> int:
    """A number of the assembly's closing notes."""
    found = re.findall(rf"\.{key}:\s+(\d+)", text)
    return int(found[-1]) if found else 0


def is_matrix(name: str) -> bool:
    """Whether an instruction multiplies matrices."""
    return bool(_MATRIX.match(name) or _AMD_MATRIX.match(name))


def is_exponential(name: str, modifiers: str) -> bool:
    """Whether an instruction is an exp₂ on the special-function units."""
    return (name == "MUFU" and ".EX2" in modifiers) or bool(_AMD_EXPONENTIAL.match(name))
