"""The readers of binaries, each shown a kernel with the fault that it is there to find."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import triton
import triton.language as tl

from secure_fl_kernels.gpu.variants import Loop, Variant
from secure_fl_kernels.proof import matrix, sass
from secure_fl_kernels.proof.binary import Binary, Failure, _noted, compile_all, source
from secure_fl_kernels.proof.flow import cycles
from secure_fl_kernels.proof.loop import Cost, cost, hot_loop
from secure_fl_kernels.proof.matrix import Finding, Held, Kind, Snapshot, Verdict
from secure_fl_kernels.proof.targets import FAMILIES, TARGETS, target_of

pytestmark = pytest.mark.compiled


@triton.jit
def row_sums(
    Z, SUMS, rows, stride, scaled, M: tl.constexpr, N: tl.constexpr, WIDTH: tl.constexpr,
    DEPTH: tl.constexpr, EXPS: tl.constexpr, PRECISION: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Row sums of exp2(scaled·Z·Zᵀ) of whole tiles; EXPS of them an element, dimensions in chunks
    of DEPTH.
    """
    tl.static_assert(EXPS >= 0)
    mine = tl.program_id(0) * M + tl.arange(0, M)
    deep = tl.arange(0, DEPTH)
    left = tl.load(Z + mine[:, None] * stride + deep[None, :])
    total = tl.zeros([M], tl.float32)
    for start in range(0, rows, N):
        other = start + tl.arange(0, N)
        if WIDTH == DEPTH:
            s = tl.dot(
                left,
                tl.trans(tl.load(Z + other[:, None] * stride + deep[None, :])),
                input_precision=PRECISION,
            )
        else:
            s = tl.zeros([M, N], tl.float32)
            for d in range(0, WIDTH, DEPTH):
                a = tl.load(Z + mine[:, None] * stride + (d + deep)[None, :])
                b = tl.load(Z + other[:, None] * stride + (d + deep)[None, :])
                s = tl.dot(a, tl.trans(b), s, input_precision=PRECISION)
        kernel = s
        for _ in tl.static_range(EXPS):
            kernel = tl.exp2(kernel * scaled)
        total += tl.sum(kernel, 1)
    tl.store(SUMS + mine, total)


def variant(
    dtype: str = "bf16",
    m: int = 128,
    n: int = 64,
    depth: int = 128,
    warps: int = 8,
    stages: int = 2,
    exps: int = 1,
    **more: Any,
) -> Variant:
    width, precision = (
        more.get("width", depth),
        more.get("precision", "ieee" if dtype != "fp32" else "tf32"),
    )
    types = {"Z": f"*{dtype}", "SUMS": "*fp32", "rows": "i32", "stride": "i32", "scaled": "fp32"}
    constants = {
        "M": m,
        "N": n,
        "WIDTH": width,
        "DEPTH": depth,
        "EXPS": exps,
        "PRECISION": precision,
    }
    return Variant(
        f"row_sums/{dtype}/{width}",
        row_sums,
        types,
        constants,
        warps,
        stages,
        Loop(m * n, 1, width),
    )


@cache
def compiled(target: str = "sm90", **settings: Any) -> Binary:
    (result,) = compile_all([variant(**settings)], TARGETS[target])
    assert isinstance(result, Binary)
    return result


def priced(binary: Binary) -> Cost:
    price = cost(binary)
    assert price is not None
    return price


def snapshot(binary: Binary, slots: float | None = None, exps: float = 1.0) -> Snapshot:
    held = Held(priced(binary).slots if slots is None else slots, exps)
    return Snapshot(triton.__version__, {f"{binary.target.name}/{binary.variant.name}": held})


def kinds(binary: Binary, held: Snapshot | None = None) -> list[Kind]:
    return [
        finding.kind for finding in matrix.judge(binary, held or snapshot(binary), cost(binary))
    ]


@pytest.mark.parametrize("target", [target.name for target in FAMILIES])
def test_a_sound_kernel_has_no_findings_on_any_family(target: str) -> None:
    binary = compiled(target, m=64, warps=4)
    price = priced(binary)
    assert kinds(binary) == []
    assert 0 < binary.registers <= binary.target.registers
    assert 0 < binary.shared <= binary.target.shared
    assert price.exps == 1
    assert 3 < price.slots < 12
    assert price.floor == price.cycles[price.bound] >= 1 / 16


def test_a_spilled_configuration_is_found() -> None:
    """A tile of 256×128 float32 is 256 registers a thread of 4 warps, before anything else."""
    binary = compiled("sm80", m=256, n=128, warps=4, stages=1)
    assert binary.spills > 0
    assert kinds(binary) == ["spills"]


def test_spills_of_amd_are_read_from_the_closing_notes() -> None:
    """A kernel that spills there takes LLVM many seconds; what it notes of one that does not is a
    zero in the same place.
    """
    kernel = triton.compile(
        source(variant(m=64, warps=4)),
        target=TARGETS["gfx942"].gpu,
        options={"num_warps": 4, "enable_fp_fusion": True},
    )
    notes = kernel.asm["amdgcn"]
    assert _noted(notes, "vgpr_spill_count") == 0 < _noted(notes, "vgpr_count")
    assert (
        _noted(notes.replace(".vgpr_spill_count: 0", ".vgpr_spill_count: 17"), "vgpr_spill_count")
        == 17
    )


def test_an_extra_exponential_in_the_hot_loop_is_found() -> None:
    one, two = compiled(), compiled(exps=2)
    assert (priced(one).exps, priced(two).exps) == (1, 2)
    assert set(kinds(two, snapshot(one))) == {"exponentials", "slots"}
    assert kinds(two, snapshot(two, exps=2.0)) == ["exponentials"], (
        "no snapshot makes a second one right"
    )


@pytest.mark.parametrize("target", ["sm80", "sm100", "gfx942"])
def test_an_extra_exponential_is_found_on_the_other_families(target: str) -> None:
    assert "exponentials" in kinds(compiled(target, exps=2), snapshot(compiled(target)))


def test_a_running_maximum_may_take_two_exponentials_and_the_snapshot_may_allow_less() -> None:
    def online(exps: int) -> Binary:
        binary = compiled(exps=exps)
        return replace(
            binary,
            variant=replace(binary.variant, constants={**binary.variant.constants, "ONLINE": True}),
        )

    assert kinds(online(2), snapshot(online(2), exps=2.0)) == []
    assert kinds(online(2), snapshot(online(2), exps=1.1)) == ["exponentials"]
    assert kinds(online(3), snapshot(online(3), exps=3.0)) == ["exponentials"]


def test_warps_that_repeat_each_other_show_as_exponentials() -> None:
    """Rows of 32 by 32 are one AMD wave's product: four waves do it four times, and every one
    its exponentials.
    """
    binary = compiled("gfx942", m=32, n=32, warps=4)
    assert priced(binary).exps >= 2
    assert "exponentials" in kinds(binary)


def test_slots_may_grow_by_five_percent_and_no_more() -> None:
    binary = compiled()
    slots = priced(binary).slots
    assert kinds(binary, snapshot(binary, slots / 1.04)) == []
    assert kinds(binary, snapshot(binary, slots / 1.06)) == ["slots"]
    assert kinds(binary, replace(snapshot(binary, slots / 1.06), triton="0.0.0")) == [], (
        "another compiler's slots are not ours to hold"
    )


def test_a_kernel_that_no_snapshot_holds_is_a_finding() -> None:
    empty = Snapshot(triton.__version__, {})
    assert kinds(compiled(), empty) == ["not in snapshot"]
    assert set(kinds(compiled(exps=2), empty)) == {"not in snapshot", "exponentials"}


def test_too_much_shared_memory_is_found() -> None:
    binary = compiled("sm80", m=128, n=128, stages=8)
    assert binary.shared > 163 * 1024
    assert "shared memory" in kinds(binary)


def test_limits_of_the_target_are_the_ones_that_count() -> None:
    binary = compiled("sm100")
    assert 0 < binary.columns <= 512
    narrow = replace(
        binary,
        target=replace(
            binary.target,
            columns=binary.columns - 1,
            registers=binary.registers - 1,
            shared=binary.shared - 1,
        ),
    )
    assert kinds(narrow) == ["registers", "shared memory", "tensor memory"]


def test_products_that_miss_the_matrix_units_are_found() -> None:
    """Float32 asked for exactly has no matrix unit on NVIDIA; a kernel whose operands say tf32 must
    have one.
    """
    exact = compiled(
        "sm80", dtype="fp32", m=32, n=32, depth=64, warps=4, stages=1, precision="ieee"
    )
    assert exact.counts["HMMA"] == 0 < exact.counts["FFMA"]
    assert cost(exact) is None, (
        "no instruction multiplies matrices, so there is no hot loop to find"
    )
    assert kinds(exact, Snapshot("", {})) == ["no hot loop"]
    old = compiled("sm80", m=64, warps=4)
    as_hopper = replace(old, target=replace(old.target, matrix="HGMMA"))
    assert kinds(as_hopper) == ["no matrix instruction"]


def test_what_does_not_compile_is_a_finding_with_the_reason() -> None:
    sound = variant()
    broken = replace(sound, constants={**sound.constants, "EXPS": -1})
    results = compile_all([broken, sound], TARGETS["sm80"])
    assert isinstance(results[0], Failure)
    assert isinstance(results[1], Binary), "one that fails does not take the others with it"
    (finding,) = matrix.judge(results[0], Snapshot("", {}))
    assert finding.kind == "not compiled"
    assert "CompileTimeAssertionFailure" in str(finding)


def test_arguments_that_do_not_fit_the_kernel_are_named() -> None:
    sound = variant()
    with pytest.raises(ValueError, match="stride"):
        source(replace(sound, types={k: v for k, v in sound.types.items() if k != "stride"}))
    with pytest.raises(ValueError, match="COLUMNS"):
        source(replace(sound, constants={**sound.constants, "COLUMNS": 3}))


@pytest.mark.parametrize("target", ["sm80", "sm90", "sm100", "gfx942"])
def test_a_loop_over_chunks_counts_as_often_as_it_turns(target: str) -> None:
    """Eight chunks of 64 do the products of 512 dimensions: as many exps, and about twice the slots
    of the products of 256.
    """
    chunked, half = (
        compiled(target, m=64, n=64, depth=64, width=width, warps=4) for width in (512, 256)
    )
    assert priced(chunked).exps == priced(half).exps == 1
    assert 1.3 * priced(half).slots < priced(chunked).slots < 2 * priced(half).slots
    hot = hot_loop(chunked.code)
    assert hot is not None
    inside = [cycle for cycle in cycles(chunked.code) if hot.holds(cycle)]
    assert inside or target == "gfx942", (
        "the chunks are a loop of their own, which AMD's compiler may unroll"
    )
    once = len(hot.body) * 4 * chunked.target.gpu.warp_size / (64 * 64)
    assert priced(chunked).slots > once or not inside


def test_many_kernels_read_at_once_are_the_ones_read_alone() -> None:
    target = TARGETS["sm80"]
    kernels = [
        triton.compile(
            source(variant(depth=depth)),
            target=target.gpu,
            options={"num_warps": 8, "enable_fp_fusion": True},
        )
        for depth in (64, 128)
    ]
    cubins = [kernel.asm["cubin"] for kernel in kernels]
    together = sass.disassemble(cubins, target.processor)
    assert together == [sass.disassemble([cubin], target.processor)[0] for cubin in cubins]
    assert any(instruction.jump for instruction in together[1])
    with pytest.raises(RuntimeError, match="nvdisasm"):
        sass.disassemble([kernels[0].asm["cubin"]], "SM7")


def test_unknown_targets_are_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"sm91.*sm80.*gfx1100"):
        target_of("sm91")


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    binary = compiled()
    file = tmp_path / "snapshot.json"
    assert matrix.read_snapshot(file).held == {}
    matrix.write_snapshot([Verdict(binary, cost(binary), ())], file)
    read = matrix.read_snapshot(file)
    assert read.triton == triton.__version__
    held = read.of(binary.variant, binary.target)
    assert held is not None
    assert held.slots == pytest.approx(priced(binary).slots, abs=1e-3)
    assert kinds(binary, read) == []


def test_renewing_a_part_keeps_what_is_shipped_and_drops_what_is_not(tmp_path: Path) -> None:
    binary, file = compiled(), tmp_path / "snapshot.json"
    mine, other, gone = f"sm90/{binary.variant.name}", "sm80/other/half/128", "sm80/gone/half/128"
    file.write_text(
        f'{{"triton": "{triton.__version__}", "slots and exponentials": {{"{mine}": [99, 9], '
        f'"{other}": [3.5, 1.0], "{gone}": [1, 1]}}}}'
    )
    matrix.write_snapshot([Verdict(binary, cost(binary), ())], file, [mine, other])
    read = matrix.read_snapshot(file).held
    assert set(read) == {mine, other}
    assert read[other] == Held(3.5, 1.0)
    assert read[mine].slots < 12
    matrix.write_snapshot([Verdict(binary, cost(binary), ())], file)
    assert set(matrix.read_snapshot(file).held) == {mine}


def test_a_finding_reads_as_a_sentence() -> None:
    assert (
        str(Finding("slots", "a/bf16/128", "sm90", 6.49999, 5.0))
        == "sm90 a/bf16/128: slots: 6.5, allowed 5"
    )


def test_the_core_is_what_ci_has_time_for() -> None:
    names = (
        "loss/bf16/64", "loss/bf16/128", "loss/bf16/512", "loss/fp16/128", "loss/fp32.tf32/128",
        "loss/fp32.tf32x3/128", "loss/fp32.tf32x3/512", "clip/fp32/256", "clip/fp32/1024",
        "rows/bf16/128", "rows/bf16/128/own", "noise",
    )  # fmt: skip
    shipped = [
        Variant(name, None, {}, {}, 4, 2, Loop(1, 1, 1) if name.startswith("loss") else None)
        for name in names
    ]

    def core(target: str) -> set[str]:
        return {
            variant.name
            for variant in matrix.core_of(sorted(shipped, key=lambda v: v.name), TARGETS[target])
        }

    quadratic, others = (
        {"loss/bf16/128", "loss/fp32.tf32x3/128"},
        {"clip/fp32/1024", "rows/bf16/128/own", "noise"},
    )
    assert core("sm80") == core("sm100") == quadratic
    assert core("gfx942") == quadratic | others
    assert core("sm90") == quadratic | others | {"loss/bf16/512"}
