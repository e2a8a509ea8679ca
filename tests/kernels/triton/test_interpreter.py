"""The interpreter's repairs and its guard, each shown a kernel with the fault that it is there
to find.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from secure_fl_kernels import reference
from secure_fl_kernels.proof import interpreter
from secure_fl_kernels.proof.check import Outcome, _watched
from secure_fl_kernels.proof.interpreter import OutOfBounds, Race, Traffic

pytestmark = [pytest.mark.triton]

needs_interpreter = pytest.mark.skipif(not interpreter.interpreted(), reason="a GPU has no guard")
pytestmark.append(needs_interpreter)


@triton.jit
def scale(X, Y, rows, width, step, BLOCK: tl.constexpr, MASKED: tl.constexpr):  # type: ignore[no-untyped-def]
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    if MASKED:
        tl.store(
            Y + row * step + column,
            2 * tl.load(X + row * step + column, mask=column < width),
            mask=column < width,
        )
    else:
        tl.store(Y + row * step + column, 2 * tl.load(X + row * step + column))


@triton.jit
def row_sums(
    Z,
    SUMS,
    rows,
    width: tl.constexpr,
    scaled,
    BLOCK: tl.constexpr,
    MASK: tl.constexpr,
    SHIFT: tl.constexpr,
):  # type: ignore[no-untyped-def]
    """Row sums of exp2(scaled·Z·Zᵀ) without the diagonal; MASK and SHIFT plant the faults."""
    mine, column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, width)
    left = tl.load(
        Z + mine[:, None] * width + column[None, :], mask=mine[:, None] < rows, other=0.0
    )
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, rows, BLOCK):
        other = start + tl.arange(0, BLOCK)
        right = tl.load(
            Z + other[:, None] * width + column[None, :], mask=other[:, None] < rows, other=0.0
        )
        kernel = tl.exp2(tl.dot(left, tl.trans(right), input_precision="ieee") * scaled)
        kept = other[None, :] != mine[:, None] + SHIFT
        if MASK:
            kept = kept & (other[None, :] < rows)
        total += tl.sum(tl.where(kept, kernel, 0.0), 1)
    tl.store(SUMS + mine, total, mask=mine < rows)


@triton.jit
def passed_on(X, rows, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Each program adds its left neighbour's block to its own, in place: order decides."""
    mine = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    left = tl.load(X + mine - BLOCK, mask=mine >= BLOCK, other=0.0)
    tl.store(X + mine, tl.load(X + mine, mask=mine < rows) + left, mask=mine < rows)


@triton.jit
def last_one_wins(X, OUT, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    tl.store(OUT + tl.arange(0, BLOCK), tl.load(X + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)))


@triton.jit
def lanes_collide(X, OUT, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    lane = tl.arange(0, BLOCK)
    tl.store(OUT + lane // 2, tl.load(X + lane))


@triton.jit
def added_up(X, OUT, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    tl.atomic_add(
        OUT + tl.arange(0, BLOCK), tl.load(X + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))
    )


@triton.jit
def handed_over(OUT):  # type: ignore[no-untyped-def]
    tl.atomic_xchg(OUT, tl.program_id(0))


@triton.jit
def product(A, B, OUT, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    spot = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(OUT + spot, tl.dot(tl.load(A + spot), tl.load(B + spot)).to(OUT.dtype.element_ty))


@triton.jit
def cast_only(X, OUT, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    spot = tl.arange(0, SIZE)
    tl.store(OUT + spot, tl.load(X + spot).to(OUT.dtype.element_ty))


def unit(rows: int, width: int) -> Tensor:
    return reference.normalize(
        torch.randn(rows, width, generator=torch.Generator().manual_seed(rows))
    )


def sums_of(z: Tensor, block: int = 32, mask: bool = True, shift: int = 0) -> Tensor:
    sums = z.new_zeros(len(z))
    row_sums[(triton.cdiv(len(z), block),)](z, sums, len(z), z.shape[1], 3.0, block, mask, shift)
    return sums


def expected(z: Tensor) -> Tensor:
    return torch.exp2(3.0 * (z @ z.T).double()).fill_diagonal_(0).sum(1).float()


def test_a_sound_kernel_passes_and_agrees() -> None:
    z = unit(100, 16)
    torch.testing.assert_close(sums_of(z), expected(z), rtol=1e-5, atol=0)


def test_a_lane_out_of_bounds_is_found_and_nothing_is_written() -> None:
    said = (
        r"scale, program \(0, 0, 0\): load of 4 bytes out of bounds in 8 of 16 active lanes, the "
        r"first \+32 bytes from the start of X, which has 32"
    )
    with pytest.raises(OutOfBounds, match=said):
        scale[(1,)](torch.ones(1, 8), torch.zeros(1, 16), 1, 8, 8, 16, False)
    out = torch.zeros(1, 8)
    with pytest.raises(OutOfBounds, match="store"):
        scale[(1,)](torch.ones(1, 16), out, 1, 8, 8, 16, False)
    assert not out.any()


def test_a_lane_in_the_gap_between_a_views_rows_is_out_of_bounds() -> None:
    """The storage goes on there, so nothing would crash: it is another tensor's data."""
    whole, out = torch.ones(4, 16), torch.zeros(4, 16)
    scale[(4,)](whole[:, :8], out[:, :8], 4, 8, 16, 16, True)
    assert out.sum() == 64
    with pytest.raises(OutOfBounds):
        scale[(4,)](whole[:, :8], out, 4, 8, 16, 16, False)
    with pytest.raises(OutOfBounds, match="store"):
        scale[(4,)](whole, out[:, :8], 4, 8, 16, 16, False)


def test_a_missing_tail_mask_gives_wrong_sums() -> None:
    """Its loads are masked, so the guard is content: rows past the end count as similarity 0, and
    the reference shows it.
    """
    z = unit(100, 16)
    error = (sums_of(z, mask=False) - expected(z)).abs().max()
    assert error > 20
    assert (sums_of(unit(96, 16), mask=False) - expected(unit(96, 16))).abs().max() < 1e-3


def test_a_wrong_diagonal_gives_wrong_sums() -> None:
    z = unit(100, 16)
    assert (sums_of(z, shift=1) - expected(z)).abs().max() > 1


@pytest.mark.parametrize("order", [interpreter.reversed_grid, lambda: interpreter.shuffled_grid(0)])
def test_bits_do_not_depend_on_the_order_of_programs(
    order: Callable[[], AbstractContextManager[None]],
) -> None:
    z = unit(100, 16)
    forwards = sums_of(z)
    with order():
        assert torch.equal(sums_of(z), forwards)


@pytest.mark.parametrize("order", [interpreter.reversed_grid, lambda: interpreter.shuffled_grid(0)])
def test_a_race_gives_other_bits_in_another_order(
    order: Callable[[], AbstractContextManager[None]],
) -> None:
    def run() -> Tensor:
        x = torch.arange(64.0)
        with interpreter.guarded(races=False):
            passed_on[(4,)](x, 64, 16)
        return x

    forwards = run()
    assert forwards[-1] == 63 + 47 + 31 + 15
    with order():
        assert not torch.equal(run(), forwards)


@pytest.mark.parametrize("order", [nullcontext, interpreter.reversed_grid])
def test_the_guard_names_races_between_programs(
    order: Callable[[], AbstractContextManager[None]],
) -> None:
    x, out = torch.arange(64.0), torch.zeros(16)
    with order(), pytest.raises(Race, match=r"another program has (stored|loaded), in X"):
        passed_on[(4,)](x, 64, 16)
    with order(), pytest.raises(Race, match="stores where another program has stored, in OUT"):
        last_one_wins[(4,)](x, out, 16)


def test_the_guard_names_races_between_lanes() -> None:
    out = torch.zeros(16)
    with pytest.raises(Race, match="different values to one element"):
        lanes_collide[(1,)](torch.arange(32.0), out, 32)
    lanes_collide[(1,)](torch.arange(32.0) // 2, out, 32)
    assert torch.equal(out, torch.arange(16.0))


def test_atomics_are_no_race_but_must_be_in_bounds() -> None:
    out = torch.zeros(16)
    added_up[(4,)](torch.ones(64), out, 16)
    assert torch.equal(out, torch.full((16,), 4.0))
    with pytest.raises(OutOfBounds, match="atomic"):
        added_up[(4,)](torch.ones(64), out[:8], 16)


def test_a_check_compares_bits_in_both_orders() -> None:
    """An exchange is atomic and still leaves what came last: the guard has no objection, the
    reversed order finds it.
    """

    def ordered() -> Outcome:
        out = torch.zeros(1, dtype=torch.int32)
        handed_over[(3,)](out)
        return out, ()

    outcome, problem = _watched(ordered)
    assert outcome[0] == 2
    assert problem == "other bits when programs run in reverse order"
    assert _watched(lambda: (sums_of(unit(100, 16)), ()))[1] == ""


def test_temporaries_of_a_launcher_are_covered_without_being_listed(guard: Traffic) -> None:
    def doubled_twice(x: Tensor) -> Tensor:
        between, out = torch.empty_like(x), torch.empty_like(x)
        scale[(4,)](x, between, 4, 8, 8, 16, True)
        scale[(4,)](between, out, 4, 8, 8, 16, True)
        return out

    assert torch.equal(doubled_twice(torch.ones(4, 8)), torch.full((4, 8), 4.0))
    assert guard.launches == {"scale": 2}


def test_a_tensor_of_another_launch_is_out_of_bounds() -> None:
    """The allocator may put it right behind: only what this launch was given counts."""
    both = torch.ones(2, 64)
    with pytest.raises(OutOfBounds):
        scale[(1,)](both[0], torch.zeros(128), 1, 65, 0, 128, True)
    with interpreter.guarded(both):
        scale[(1,)](both[0], torch.zeros(128), 1, 65, 0, 128, True)


def test_traffic_is_what_active_lanes_move(guard: Traffic) -> None:
    rows, width, block = 100, 16, 32
    sums_of(unit(rows, width), block)
    programs = 4
    assert guard.loaded("row_sums", "Z") == (rows + programs * rows) * width * 4
    assert guard.stored("row_sums", "SUMS") == rows * 4
    assert guard.loaded() == guard.loaded("row_sums") == guard.loaded("row_sums", "Z")
    with interpreter.guarded() as inner:
        scale[(4,)](torch.ones(4, 8), torch.zeros(4, 8), 4, 8, 8, 16, True)
    assert inner.loaded() == inner.stored() == 4 * 8 * 4
    assert guard.stored() == rows * 4 + inner.stored()


def test_bfloat16_products_are_right_once_installed() -> None:
    a, b = (
        torch.randn(32, 32, generator=torch.Generator().manual_seed(k)).bfloat16() for k in range(2)
    )
    out = torch.empty(32, 32)
    product[(1,)](a, b, out, 32)
    torch.testing.assert_close(out, a.float() @ b.float(), rtol=1e-5, atol=1e-5)


def test_bfloat16_products_are_garbage_unless_installed() -> None:
    """Documents why `install` exists; when this fails, triton has learnt bfloat16 and the repair
    can go.
    """
    script = (
        "import torch, triton, triton.language as tl\n"
        "import importlib.util as u\n"
        f"spec = u.spec_from_file_location('planted', {str(Path(__file__))!r})\n"
        "planted = u.module_from_spec(spec)\n"
        "spec.loader.exec_module(planted)\n"
        "one, out = torch.ones(16, 16).bfloat16(), torch.empty(16, 16)\n"
        "planted.product[(1,)](one, one, out, 16)\n"
        "print(out[0, 0].item())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert float(run.stdout) > 1e9


def test_casts_to_bfloat16_round_to_the_nearest_even() -> None:
    hard = torch.tensor(
        [
            1.99999,
            1.00390625,
            1.01171875,
            -3.9999,
            0.1,
            1e-40,
            3.4e38,
            torch.inf,
            -torch.inf,
            torch.nan,
            0.0,
            -0.0,
            7e-46,
            65504.0,
            2.0**-133,
            5.0,
        ]
    )
    x = torch.cat([hard, torch.randn(1008, generator=torch.Generator().manual_seed(0))]).reshape(
        1, 1024
    )
    out = torch.empty(1, 1024, dtype=torch.bfloat16)
    cast_only[(1,)](x, out, 1024)
    assert torch.equal(
        out.nan_to_num(nan=7).view(torch.int16), x.bfloat16().nan_to_num(nan=7).view(torch.int16)
    )
    back = torch.empty(1, 1024)
    cast_only[(1,)](out, back, 1024)
    assert torch.equal(back.nan_to_num(nan=7), out.float().nan_to_num(nan=7))


def test_autotuned_kernels_run_without_a_gpu() -> None:
    tuned = triton.autotune(
        configs=[triton.Config({"BLOCK": size}) for size in (16, 32)], key=["rows"]
    )(scale)
    out = torch.zeros(4, 8)
    tuned[(4,)](torch.ones(4, 8), out, 4, 8, 8, MASKED=True)
    assert torch.equal(out, torch.full((4, 8), 2.0))
    assert tuned.best_config.kwargs == {"BLOCK": 16}


def test_installing_twice_is_installing_once() -> None:
    from triton.runtime.interpreter import InterpreterBuilder

    interpreter.install()
    assert InterpreterBuilder.create_dot is not None
    before = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl
    interpreter.install()
    assert (InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl) == before
