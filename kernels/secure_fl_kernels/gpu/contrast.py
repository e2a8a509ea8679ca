"""Contrast: the two loops over all pairs that NT-Xent and InfoNCE are made of. Neither writes a
similarity to memory.

LEFT and RIGHT hold unit rows scaled by √(log₂e / τ), view by view and padded, so a product is a
similarity in units of log₂ and exp₂ needs nothing before it. Row i of one view has its positive at
i of the other (NT-Xent, both buffers one, VIEWS 2) or of the keys (InfoNCE, VIEWS 1). Columns with
the row's own index, itself and its positive, are left out of both loops: what is due to positives
is added apart, without the cancellation that a well-trained loss would suffer.

Exponentials are kept in range in one of two ways: `ONLINE` false takes them as they are (τ ≥ 1/76
with unit rows), true subtracts a running maximum. The tiles at the row's own index and the last
columns are done after the hot loop, which has no mask.

row_sums:  Σ_j exp₂ s_ij, or its log₂ when ONLINE, and the positive's s_ip.
gradient:  Σ_j G_ij right_j − pull_i · right_p(i),
           G_ij = exp₂(s_ij)(a_i + a_j), or exp₂(s_ij − a_i) + exp₂(s_ij − a_j) when ONLINE;
           then the dimension-scaled regulariser and the normalisation's backward, so the raw rows'
           gradient leaves in one write.
Rows wider than a tile split the output: each program recomputes its similarities and writes one
chunk of dimensions.
"""

import triton
import triton.language as tl

from secure_fl_kernels.gpu.blocks import load_tile, similarities, skip_zone


@triton.jit
def _hot_columns(first, columns, M: tl.constexpr, N: tl.constexpr):
    """(columns that the hot loop walks, where the last columns start if the zone does not
    hold them).
    """
    full = columns // N * N
    beyond = tl.where(first <= full, first, full)
    hot = tl.where(first + M <= full, full - M, beyond)
    tail = tl.where((first + M <= full) | (first > full), full, columns)
    return hot, tail


@triton.jit
def _accumulate(total, top, s, ONLINE: tl.constexpr):
    """(sum, maximum) with one more tile."""
    if ONLINE:
        new = tl.maximum(top, tl.max(s, 1))
        safe = tl.where(new == float("-inf"), 0.0, new)
        return total * tl.exp2(top - safe) + tl.sum(tl.exp2(s - safe[:, None]), 1), new
    else:
        return total + tl.sum(tl.exp2(s), 1), top


@triton.jit
def _with_partner(
    LEFT, RIGHT, row, partner, WIDTH: tl.constexpr, M: tl.constexpr, DEPTH: tl.constexpr
):
    """Products of M rows of LEFT with those of RIGHT from `partner` on, one by one, `[M]`."""
    positive = tl.zeros([M], tl.float32)
    for d in range(0, WIDTH, DEPTH):
        mine = load_tile(LEFT, row, d, WIDTH, M, DEPTH).to(tl.float32)
        positive += tl.sum(mine * load_tile(RIGHT, partner, d, WIDTH, M, DEPTH).to(tl.float32), 1)
    return positive


@triton.jit
def row_sums_kernel(
    LEFT, RIGHT, SUMS, POSITIVE, count, columns, padded_left, padded_right, WIDTH: tl.constexpr,
    VIEWS: tl.constexpr, ONLINE: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Row sums, and every row's similarity with its positive. Axes: blocks of M rows, views."""
    tl.static_assert(M % N == 0)
    first = tl.program_id(0) * M
    view = tl.program_id(1)
    row = view * padded_left + first
    rows = first + tl.arange(0, M)
    z_m = load_tile(LEFT, row, 0, WIDTH, M, DEPTH)
    total = tl.zeros([M], tl.float32)
    top = tl.full([M], float("-inf"), tl.float32)
    hot, tail = _hot_columns(first, columns, M, N)
    for other in range(VIEWS):
        base = other * padded_right
        for k in range(0, hot, N):
            s, _ = similarities(
                z_m, LEFT, RIGHT, row, base + skip_zone(k, first, M), WIDTH, M, N, DEPTH, PRECISION
            )
            total, top = _accumulate(total, top, s, ONLINE)
        for k in range(0, M + N, N):
            start = tl.where(k < M, first + k, tail)
            if start < columns:
                s, _ = similarities(
                    z_m, LEFT, RIGHT, row, base + start, WIDTH, M, N, DEPTH, PRECISION
                )
                n = start + tl.arange(0, N)
                s = tl.where(
                    (n[None, :] < columns) & (n[None, :] != rows[:, None]), s, float("-inf")
                )
                total, top = _accumulate(total, top, s, ONLINE)
    if ONLINE:
        total = top + tl.log2(total)
    partner = (VIEWS - 1 - view) * padded_right + first
    positive = _with_partner(LEFT, RIGHT, row, partner, WIDTH, M, DEPTH)
    tl.store(SUMS + view * count + rows, total, mask=rows < count)
    tl.store(POSITIVE + view * count + rows, positive, mask=rows < count)


@triton.jit
def _gather(
    acc, turn, z_m, a_m, LEFT, RIGHT, A_RIGHT, rows, row, base, start, chunk, columns,
    WIDTH: tl.constexpr, ONLINE: tl.constexpr, EDGE: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    DEPTH: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile into the accumulator; `turn` gathers Σ_j G_ij s_ij where the row's own dimensions
    are not all here.
    """
    s, z_n = similarities(z_m, LEFT, RIGHT, row, base + start, WIDTH, M, N, DEPTH, PRECISION)
    n = start + tl.arange(0, N)
    if EDGE:
        valid = (n[None, :] < columns) & (n[None, :] != rows[:, None])
        weighed = tl.where(valid, s, float("-inf"))
        a_n = tl.load(A_RIGHT + n, mask=n < columns, other=0.0)
    else:
        weighed = s
        a_n = tl.load(A_RIGHT + n)
    if ONLINE:
        g = tl.exp2(weighed - a_m[:, None]) + tl.exp2(weighed - a_n[None, :])
    else:
        g = tl.exp2(weighed) * (a_m[:, None] + a_n[None, :])
    if WIDTH != CHUNK:
        turn += tl.sum(g * s, 1)
        z_n = load_tile(RIGHT, base + start, chunk, WIDTH, N, CHUNK)
    return tl.dot(g.to(z_n.dtype), z_n, acc, input_precision=PRECISION), turn


@triton.jit
def _gather_all(
    acc, turn, z_m, a_m, LEFT, RIGHT, A_RIGHT, rows, row, first, chunk, columns, padded_right,
    WIDTH: tl.constexpr, VIEWS: tl.constexpr, ONLINE: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, DEPTH: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All columns into the accumulators: the hot loop, then the rows' own index and the end."""
    hot, tail = _hot_columns(first, columns, M, N)
    for other in range(VIEWS):
        base = other * padded_right
        for k in range(0, hot, N):
            acc, turn = _gather(
                acc, turn, z_m, a_m, LEFT, RIGHT, A_RIGHT + other * columns, rows, row, base,
                skip_zone(k, first, M), chunk, columns, WIDTH, ONLINE, False, M, N, DEPTH, CHUNK,
                PRECISION,
            )  # fmt: skip
        for k in range(0, M + N, N):
            start = tl.where(k < M, first + k, tail)
            if start < columns:
                acc, turn = _gather(
                    acc, turn, z_m, a_m, LEFT, RIGHT, A_RIGHT + other * columns, rows, row, base,
                    start, chunk, columns, WIDTH, ONLINE, True, M, N, DEPTH, CHUNK, PRECISION,
                )  # fmt: skip
    return acc, turn


@triton.jit
def _regularised(
    v, omega, OWN, SPAN, row, chunk, OWNED: tl.constexpr, M: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """v + ω · own coordinates in the span's dimensions: the dimension-scaled regulariser's pull."""
    STEP: tl.constexpr = 32 if OWNED > 32 else OWNED
    for o in tl.static_range(0, OWNED, STEP):
        own = load_tile(OWN, row, o, OWNED, M, STEP).to(tl.float32) * omega[:, None]
        span = load_tile(SPAN, chunk, o, OWNED, CHUNK, STEP).to(tl.float32)
        v = tl.dot(own, tl.trans(span), v, input_precision=PRECISION)
    return v


@triton.jit
def _less_partners(acc, RIGHT, partner, paired, pull, d, WIDTH: tl.constexpr):
    """acc − pull · the rows `partner` of RIGHT, at dimensions `d`."""
    place = RIGHT + tl.cast(partner, tl.int64)[:, None] * WIDTH + d[None, :]
    other = tl.load(place, mask=paired[:, None], other=0.0)
    return acc - other.to(tl.float32) * pull[:, None]


@triton.jit
def _store(OUT, out, at, d, there, D: tl.constexpr):
    """Rows `at` and dimensions `d` of the gradient, without padding."""
    place = OUT + tl.cast(at, tl.int64)[:, None] * D + d[None, :]
    tl.store(place, out.to(OUT.dtype.element_ty), mask=there[:, None] & (d[None, :] < D))


@triton.jit
def gradient_kernel(
    LEFT, RIGHT, A_LEFT, A_RIGHT, PULL, GRAD, POSITIVE, INVERSE, OMEGA, ENERGY, OWN, SPAN, OUT,
    count, columns, pairs, padded_left, padded_right, factor, shrink, D: tl.constexpr,
    WIDTH: tl.constexpr, OWNED: tl.constexpr, VIEWS: tl.constexpr, ONLINE: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, DEPTH: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient by the raw rows of LEFT. Axes: blocks of M rows, chunks of dimensions, views.
    `shrink` undoes the rows' scale.
    """
    tl.static_assert(M % N == 0)
    first, chunk, view = tl.program_id(0) * M, tl.program_id(1) * CHUNK, tl.program_id(2)
    row = view * padded_left + first
    rows = first + tl.arange(0, M)
    at = view * count + rows
    there = rows < count
    z_m = load_tile(LEFT, row, 0, WIDTH, M, DEPTH)
    a_m = tl.load(A_LEFT + at, mask=there, other=0.0)
    acc, turn = tl.zeros([M, CHUNK], tl.float32), tl.zeros([M], tl.float32)
    acc, turn = _gather_all(
        acc, turn, z_m, a_m, LEFT, RIGHT, A_RIGHT, rows, row, first, chunk, columns, padded_right,
        WIDTH, VIEWS, ONLINE, M, N, DEPTH, CHUNK, PRECISION,
    )  # fmt: skip
    d, paired = chunk + tl.arange(0, CHUNK), rows < pairs
    pull = tl.load(PULL + at, mask=there & paired, other=0.0)
    partner = (VIEWS - 1 - view) * padded_right + rows
    scale = tl.load(GRAD) * factor
    v = _less_partners(acc, RIGHT, partner, paired, pull, d, WIDTH) * scale
    z = load_tile(LEFT, row, chunk, WIDTH, M, CHUNK).to(tl.float32) * shrink
    if WIDTH != CHUNK:
        turn -= tl.load(POSITIVE + at, mask=there & paired, other=0.0) * pull
        along = turn * (scale * shrink)
    else:
        along = tl.sum(z * v, 1)
    if OWNED > 0:
        omega = tl.load(OMEGA + at, mask=there, other=0.0)
        v = _regularised(v, omega, OWN, SPAN, row, chunk, OWNED, M, CHUNK, PRECISION)
        along += omega * tl.load(ENERGY + at, mask=there, other=0.0)
    inverse = tl.load(INVERSE + at, mask=there, other=0.0)
    _store(OUT, (v - along[:, None] * z) * inverse[:, None], at, d, there, D)
