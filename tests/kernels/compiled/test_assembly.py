"""Loops are found in assembly as it is printed."""

from __future__ import annotations

import pytest

from secure_fl_kernels.proof import sass
from secure_fl_kernels.proof.flow import cycles
from secure_fl_kernels.proof.loop import hot_loop
from secure_fl_kernels.proof.sass import Instruction

pytestmark = pytest.mark.compiled


def test_loops_of_assembly() -> None:
    text = "\n".join((
        "kernel:  ; @kernel", "\ts_mov_b32 s0, 0", ".LBB0_1: ; outer",
        "\tv_add_f32 v0, v1, v2 ; comment", ".LBB0_2:", "\tv_mfma_f32_32x32x8_bf16 v[0:1], v[2:3]",
        "\ts_cbranch_scc1 .LBB0_2", "\tv_exp_f32_e32 v0, v1", "\ts_cbranch_vccnz .LBB0_1",
        "\ts_cbranch_scc0 .LBB0_4", ".LBB0_4:", "\ts_endpgm", ".Lfunc_end0:", "\t.section x",
        "  - .agpr_count:     0",
    ))  # fmt: skip
    code = sass.read_assembly(text)
    assert [i.name for i in code][-1] == "s_endpgm"
    outer, inner = cycles(code)
    assert [i.name for i in inner.of(code)] == ["v_mfma_f32_32x32x8_bf16", "s_cbranch_scc1"]
    assert outer.holds(inner)
    assert hot_loop(code) == outer, "the exponential is there"


def test_a_path_laid_behind_the_end_belongs_to_the_loop_it_returns_to() -> None:
    """Place 1 to 3 is the loop; 1 may wait at 5, which is a loop by itself, and comes back to 2. No
    loop goes from 2 to 6.
    """

    def at(name: str, jump: int | None = None, final: bool = False) -> Instruction:
        return Instruction(name, "", jump, final)

    code = (
        at("MOV"),
        at("BRA", 5),
        at("HMMA"),
        at("BRA", 1),
        at("EXIT", final=True),
        at("BRA", 5),
        at("BRA", 2, final=True),
    )
    assert [(cycle.head, sorted(cycle.body)) for cycle in cycles(code)] == [
        (1, [1, 2, 3, 5, 6]),
        (5, [5]),
    ]
