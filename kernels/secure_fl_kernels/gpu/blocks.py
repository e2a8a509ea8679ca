"""The pieces that kernels share: a tile of a padded buffer, and a tile of similarities.

Buffers of unit rows are padded with zeros to whole tiles (`padding`), so these loads need no mask.
A row is held whole in one tile of `DEPTH` dimensions where it fits (`WHOLE`), and is walked in
chunks of `DEPTH` where it does not.
"""

import triton
import triton.language as tl


@triton.jit
def load_tile(BASE, first, column, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """`BASE[first : first + ROWS, column : column + COLUMNS]` of a buffer `[*, WIDTH]`."""
    rows = tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    corner = BASE + tl.cast(first, tl.int64) * WIDTH + column
    return tl.load(corner + rows[:, None] * WIDTH + columns[None, :])


@triton.jit
def similarities(
    z_m,
    LEFT,
    RIGHT,
    first,
    start,
    WIDTH: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """(products of M rows of LEFT from `first` with N rows of RIGHT from `start`, the latter's
    first DEPTH columns).

    Where rows are held whole, `z_m` is the tile of LEFT and the second result all of the N rows.
    """
    z_n = load_tile(RIGHT, start, 0, WIDTH, N, DEPTH)
    if WIDTH == DEPTH:
        s = tl.dot(z_m, tl.trans(z_n), input_precision=PRECISION)
    else:
        s = tl.zeros([M, N], tl.float32)
        for d in range(0, WIDTH, DEPTH):
            left = load_tile(LEFT, first, d, WIDTH, M, DEPTH)
            right = load_tile(RIGHT, start, d, WIDTH, N, DEPTH)
            s = tl.dot(left, tl.trans(right), s, input_precision=PRECISION)
    return s, z_n


@triton.jit
def skip_zone(k, first, ZONE: tl.constexpr):
    """Column `k` of the hot loop, moved past the zone `[first, first + ZONE)`."""
    return tl.where(k >= first, k + ZONE, k)
