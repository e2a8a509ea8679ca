"""Tiles on one thread or several.

Torch releases the interpreter's lock inside its operations, so Python threads over tiles keep all
processors busy, and each works on tiles that fit its cache. Torch's own threads inside small
products do not: beside another process they collapse. They also spin for up to 10 ms after each
operation, on the processors that the tiles want: so around tiles torch computes on one thread, and
threads that take tiles are kept. With few rows everything is over before the spinning is, and
torch's own threads are the faster ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from secure_fl_kernels.cpu.tiles import Tile

Work = Callable[[Iterator[Tile]], Tensor]
_P = ParamSpec("_P")
_R = TypeVar("_R")
_FEWEST_ROWS = 4096
"""Below, torch's own threads took two thirds of the time of one or of these, measured at 512, 1,024
and 2,048 rows with two threads; at 4,096 these took .75 to .87 of theirs.
"""
_TAKEN: ContextVar[int] = ContextVar("threads that take tiles", default=1)


def tiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function` with as many threads for the tiles that it has `shared` as torch has, and one for
    torch meanwhile, where one of its arguments has many rows.
    """

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        had = torch.get_num_threads()
        matrices = (each for each in args if isinstance(each, Tensor) and each.ndim == 2)
        if had == 1 or max(map(len, matrices), default=0) < _FEWEST_ROWS:
            return function(*args, **kwargs)
        token = _TAKEN.set(had)
        torch.set_num_threads(1)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_num_threads(had)
            _TAKEN.reset(token)

    return call


def shared(work: Work, tiles: list[Tile]) -> Tensor:
    """`work` over the tiles, dealt out to the threads that `tiled` gives; the parts are added in
    thread order, so results repeat bit for bit.

    `work` returns a tensor of its own: accumulators are private, never shared.
    """
    threads = min(_TAKEN.get(), len(tiles))
    if threads <= 1:
        return work(iter(tiles))

    def one(number: int) -> Tensor:
        with torch.no_grad():
            return work(iter(tiles[number::threads]))

    parts = list(_pool(os.getpid(), threads).map(one, range(threads)))
    for part in parts[1:]:
        parts[0] += part
    return parts[0]


@cache
def _pool(_process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process, which a fork of it does not have."""
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
