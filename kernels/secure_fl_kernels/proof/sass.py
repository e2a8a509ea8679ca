"""Machine code as a list of instructions, NVIDIA's from the cubin and AMD's from the assembly, with
jumps resolved.

`nvdisasm` needs a second to start, whatever it is given; so many kernels of one processor are read
in one go, as raw code laid end to end.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import triton

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
"""The wheel brings NVIDIA's disassembler; no CUDA toolkit is needed."""

_WIDTH = 16
"""Bytes of an instruction since sm70."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes:
        name: without modifiers, as in `HMMA` or `v_exp_f32_e32`.
        modifiers: as in `.16816.F32.BF16`; AMD has none.
        jump: index of the instruction jumped to, for branches inside the kernel.
        final: whether the instruction behind it is not the next to run.
    """

    name: str
    modifiers: str
    jump: int | None
    final: bool


Code = tuple[Instruction, ...]


def disassemble(cubins: Sequence[bytes], processor: str) -> list[Code]:
    """The code of every cubin, all for one processor such as `SM90a`.

    Raises:
        RuntimeError: the disassembler refuses.
    """
    if not cubins:
        return []
    texts = [_text(cubin) for cubin in cubins]
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(b"".join(texts))
        file.flush()
        run = subprocess.run(  # noqa: S603 # a tool that comes with Triton
            [_TOOLS / "nvdisasm", "-b", processor, file.name],
            capture_output=True,
            text=True,
            check=False,
        )
    lines = list(_NVIDIA.finditer(run.stdout))
    if run.returncode or len(lines) * _WIDTH != sum(map(len, texts)):
        raise RuntimeError(
            f"nvdisasm read {len(lines)} instructions of {sum(map(len, texts)) // _WIDTH}: "
            f"{run.stderr[:200]}"
        )
    codes, start = [], 0
    for text in texts:
        count = len(text) // _WIDTH
        codes.append(
            tuple(_instruction(line, start, count) for line in lines[start : start + count])
        )
        start += count
    return codes


_NVIDIA = re.compile(
    r"^\s*/\*[0-9a-f]+\*/\s+(?P<if>@!?U?P\w+\s+)?(?P<name>\w+)(?P<modifiers>[\w.]*)(?P<rest>[^;]*);",
    re.MULTILINE,
)
_TARGET = re.compile(r"0x([0-9a-f]+)\s*$")


def _instruction(line: re.Match[str], start: int, count: int) -> Instruction:
    jump = None
    if line["name"] == "BRA" and (target := _TARGET.search(line["rest"])):
        index = int(target[1], 16) // _WIDTH - start
        jump = index if 0 <= index < count else None
    # `BRA.U !UP0, 0x120` has its condition among the operands
    conditional = line["if"] is not None or "," in line["rest"]
    return Instruction(
        line["name"],
        line["modifiers"],
        jump,
        line["name"] in ("BRA", "EXIT", "RET") and not conditional,
    )


def _text(cubin: bytes) -> bytes:
    """The machine code of an ELF64 file: all its `.text` sections."""
    table, = struct.unpack_from("<Q", cubin, 0x28)  # fmt: skip
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + k * size) for k in range(count)]
    strings = sections[names][4]

    def name(section: tuple[int, ...]) -> bytes:
        start = strings + section[0]
        return cubin[start : cubin.index(b"\0", start)]

    return b"".join(cubin[s[4] : s[4] + s[5]] for s in sections if name(s).startswith(b".text"))


def resources(cubin: bytes) -> dict[str, int]:
    """What `cuobjdump` says one kernel needs: `REG`, `STACK`, `SHARED`, `LOCAL`; the largest of
    each over its functions.

    Raises:
        RuntimeError: the tool says nothing of the kind.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = subprocess.run(  # noqa: S603 # a tool that comes with Triton
            [_TOOLS / "cuobjdump", "--dump-resource-usage", file.name],
            capture_output=True,
            text=True,
            check=False,
        )
    needs: dict[str, int] = {}
    for key, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", run.stdout):
        needs[key] = max(needs.get(key, 0), int(value))
    if "REG" not in needs:
        raise RuntimeError(f"cuobjdump gave no resource usage: {run.stderr[:200]}")
    return needs


_AMD = re.compile(r"^\s+(?P<name>[a-z]\w+)(?P<rest>.*)$")
_LABEL = re.compile(r"^(?P<label>\.?L\w+):")


def read_assembly(text: str) -> Code:
    """Instructions of AMD assembly, from the kernel's first label to its `s_endpgm`."""
    labels: dict[str, int] = {}
    kept: list[tuple[str, str]] = []
    for line in _kernel_lines(text):
        if label := _LABEL.match(line):
            labels[label["label"]] = len(kept)
        elif (found := _AMD.match(line)) and not line.lstrip().startswith("."):
            kept.append((found["name"], found["rest"].split(";")[0].strip()))
    final = ("s_branch", "s_endpgm", "s_setpc_b64")
    return tuple(
        Instruction(name, "", labels.get(rest) if "branch" in name else None, name in final)
        for name, rest in kept
    )


def _kernel_lines(text: str) -> Iterator[str]:
    """Lines of the code section alone; metadata that follows has indented words too."""
    inside = False
    for line in text.splitlines():
        if re.match(r"^\w+:\s", line + " "):
            inside = True
        if line.startswith((".Lfunc_end", "\t.section", "\t.end_amdhsa_kernel")):
            inside = False
        if inside:
            yield line
