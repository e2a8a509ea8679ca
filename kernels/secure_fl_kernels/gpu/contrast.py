"""Contrast: the two loops over all pairs that NT-Xent and InfoNCE are made of. Neither writes a similarity to memory.

LEFT and RIGHT hold unit rows scaled by √(log₂e / τ), so a product is a similarity in units of log₂ and exp₂ needs nothing
before it. Two ways to keep exponentials in range: `ONLINE` false takes them as they are (τ ≥ 1/76 with unit rows), true
subtracts a running maximum. Tiles on the diagonal and the last columns are done after the hot loop, which has no mask.

row_sums:  r_i = Σ_j exp₂ s_ij, or its log₂ when ONLINE.
gradient:  Σ_j G_ij right_j − pull · right_p(i), G_ij = exp₂(s_ij)(a_i + a_j), or exp₂(s_ij − a_i) + exp₂(s_ij − a_j) when ONLINE;
           then the dimension-scaled regulariser and the normalisation's backward, so the raw rows' gradient leaves in one write.
Rows wider than a tile split the output: each program recomputes its similarities and writes one chunk of dimensions.
"""

import triton
import triton.language as tl

from secure_fl_kernels.gpu.blocks import load_tile, partner_of, similarities, skip_zone


@triton.jit
def _valid(rows, columns, count, SELF: tl.constexpr):
    """Which pairs count: columns that exist, and not a row with itself."""
    if SELF:
        return (columns[None, :] < count) & (columns[None, :] != rows[:, None])
    else:
        return (columns[None, :] < count) & (rows[:, None] >= 0)


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
def row_sums_kernel(
    LEFT,
    RIGHT,
    SUMS,
    POSITIVE,
    count,
    columns,
    WIDTH: tl.constexpr,
    SELF: tl.constexpr,
    ONLINE: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Row sums, and every row's similarity with its positive. Axis: blocks of M rows."""
    tl.static_assert(M % N == 0)
    first = tl.program_id(0) * M
    rows = first + tl.arange(0, M)
    z_m = load_tile(LEFT, first, 0, WIDTH, M, DEPTH)
    total = tl.zeros([M], tl.float32)
    top = tl.full([M], float("-inf"), tl.float32)
    full = columns // N * N
    inside = (first + M <= full) & SELF
    hot = tl.where(inside, full - M, tl.minimum(first, full) if SELF else full)
    for k in range(0, hot, N):
        s, _ = similarities(z_m, LEFT, RIGHT, first, skip_zone(k, first, M) if SELF else k, WIDTH, M, N, DEPTH, PRECISION)
        total, top = _accumulate(total, top, s, ONLINE)
    for k in range(0, M + N if SELF else N, N):
        start = tl.where(k < M, first + k, tl.where(inside, full, columns)) if SELF else full
        if start < columns:
            s, _ = similarities(z_m, LEFT, RIGHT, first, start, WIDTH, M, N, DEPTH, PRECISION)
            s = tl.where(_valid(rows, start + tl.arange(0, N), columns, SELF), s, float("-inf"))
            total, top = _accumulate(total, top, s, ONLINE)
    if ONLINE:
        total = top + tl.log2(total)
    partner = partner_of(rows, count, SELF)
    positive = tl.zeros([M], tl.float32)
    for d in range(0, WIDTH, DEPTH):
        other = tl.load(RIGHT + tl.cast(partner, tl.int64)[:, None] * WIDTH + (d + tl.arange(0, DEPTH))[None, :]).to(tl.float32)
        positive += tl.sum(load_tile(LEFT, first, d, WIDTH, M, DEPTH).to(tl.float32) * other, 1)
    tl.store(SUMS + rows, total, mask=rows < count)
    tl.store(POSITIVE + rows, positive, mask=rows < count)


@triton.jit
def _weigh(s, a_m, a_n, ONLINE: tl.constexpr):
    """G of a tile."""
    if ONLINE:
        return tl.exp2(s - a_m[:, None]) + tl.exp2(s - a_n[None, :])
    else:
        return tl.exp2(s) * (a_m[:, None] + a_n[None, :])


@triton.jit
def _gather(
    acc, turn, z_m, a_m, LEFT, RIGHT, A_RIGHT, rows, first, start, chunk, columns, WIDTH: tl.constexpr, SELF: tl.constexpr,
    ONLINE: tl.constexpr, EDGE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, DEPTH: tl.constexpr, OUT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile into the accumulator; `turn` gathers Σ_j G_ij s_ij where the row's own dimensions are not all here."""
    s, z_n = similarities(z_m, LEFT, RIGHT, first, start, WIDTH, M, N, DEPTH, PRECISION)
    n = start + tl.arange(0, N)
    if EDGE:
        a_n = tl.load(A_RIGHT + n, mask=n < columns, other=float("inf") if ONLINE else 0.0)
        g = tl.where(_valid(rows, n, columns, SELF), _weigh(s, a_m, a_n, ONLINE), 0.0)
    else:
        g = _weigh(s, a_m, tl.load(A_RIGHT + n), ONLINE)
    if WIDTH != OUT:
        turn += tl.sum(g * s, 1)
        z_n = load_tile(RIGHT, start, chunk, WIDTH, N, OUT)
    return tl.dot(g.to(z_n.dtype), z_n, acc, input_precision=PRECISION), turn


@triton.jit
def gradient_kernel(
    LEFT,
    RIGHT,
    A_LEFT,
    A_RIGHT,
    GRAD,
    POSITIVE,
    INVERSE,
    OMEGA,
    ENERGY,
    OWN,
    SPAN,
    OUT,
    count,
    columns,
    pairs,
    pull,
    factor,
    shrink,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    OWNED: tl.constexpr,
    SELF: tl.constexpr,
    ONLINE: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    DEPTH: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradient by the raw rows of LEFT. Axes: blocks of M rows, chunks of dimensions. `shrink` undoes the rows' scale."""
    tl.static_assert(M % N == 0)
    first = tl.program_id(0) * M
    chunk = tl.program_id(1) * CHUNK
    rows = first + tl.arange(0, M)
    there = rows < count
    z_m = load_tile(LEFT, first, 0, WIDTH, M, DEPTH)
    a_m = tl.load(A_LEFT + rows, mask=there, other=0.0)
    acc = tl.zeros([M, CHUNK], tl.float32)
    turn = tl.zeros([M], tl.float32)
    full = columns // N * N
    inside = (first + M <= full) & SELF
    hot = tl.where(inside, full - M, tl.minimum(first, full) if SELF else full)
    for k in range(0, hot, N):
        start = skip_zone(k, first, M) if SELF else k
        acc, turn = _gather(
            acc, turn, z_m, a_m, LEFT, RIGHT, A_RIGHT, rows, first, start, chunk, columns, WIDTH, SELF, ONLINE, False, M, N, DEPTH, CHUNK, PRECISION
        )
    for k in range(0, M + N if SELF else N, N):
        start = tl.where(k < M, first + k, tl.where(inside, full, columns)) if SELF else full
        if start < columns:
            acc, turn = _gather(
                acc,
                turn,
                z_m,
                a_m,
                LEFT,
                RIGHT,
                A_RIGHT,
                rows,
                first,
                start,
                chunk,
                columns,
                WIDTH,
                SELF,
                ONLINE,
                True,
                M,
                N,
                DEPTH,
                CHUNK,
                PRECISION,
            )
    d = chunk + tl.arange(0, CHUNK)
    paired = rows < pairs
    partner = tl.cast(partner_of(rows, count, SELF), tl.int64)
    acc -= tl.load(RIGHT + partner[:, None] * WIDTH + d[None, :], mask=paired[:, None], other=0.0).to(tl.float32) * pull
    scale = tl.load(GRAD) * factor
    v = acc * scale
    z = load_tile(LEFT, first, chunk, WIDTH, M, CHUNK).to(tl.float32) * shrink
    if WIDTH != CHUNK:
        turn -= tl.load(POSITIVE + rows, mask=there & paired, other=0.0) * pull
        along = turn * (scale * shrink)
    else:
        along = tl.sum(z * v, 1)
    if OWNED > 0:
        omega = tl.load(OMEGA + rows, mask=there, other=0.0)
        own = load_tile(OWN, first, 0, OWNED, M, OWNED)
        v += tl.dot(own, tl.trans(load_tile(SPAN, chunk, 0, OWNED, CHUNK, OWNED)), input_precision=PRECISION) * omega[:, None]
        along += omega * tl.load(ENERGY + rows, mask=there, other=0.0)
    inverse = tl.load(INVERSE + rows, mask=there, other=0.0)
    out = ((v - along[:, None] * z) * inverse[:, None]).to(OUT.dtype.element_ty)
    tl.store(OUT + tl.cast(rows, tl.int64)[:, None] * D + d[None, :], out, mask=there[:, None] & (d[None, :] < D))
