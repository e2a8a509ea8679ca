"""InfoNCE of queries against keys on a GPU: one row-sum pass, one gradient pass for queries and one
for keys.

Reference: `reference.info_nce_loss`; the loops are in `contrast`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secure_fl_kernels.gpu import ntxent
from secure_fl_kernels.gpu.ntxent import Softmax
from secure_fl_kernels.gpu.rows import project


def forward(q: Tensor, k: Tensor, temperature: float) -> tuple[Tensor, ...]:
    """(loss, padded unit queries, their inverse lengths, padded unit keys, theirs, query statistics
    `[2, N]`) of raw rows.
    """
    scale = ntxent.scale_of(temperature)
    (zq, inverse_q, *_), (zk, inverse_k, *_) = (
        project(q, None, scale=scale),
        project(k, None, scale=scale),
    )
    softmax = Softmax.of(
        *ntxent.row_sums(zq, zk, 1, len(q), len(k), temperature), ntxent.online(len(k), temperature)
    )
    return softmax.loss(), zq, inverse_q, zk, inverse_k, torch.stack(softmax)


def backward(
    grad: Tensor, zq: Tensor, inverse_q: Tensor, zk: Tensor, inverse_k: Tensor, statistics: Tensor,
    temperature: float, dimension: int, dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients by the raw queries `[N, D]` and keys `[K, D]` of grad · loss."""
    count, keys, softmax = len(inverse_q), len(inverse_k), Softmax(*statistics)
    running = ntxent.online(keys, temperature)
    of_query, pull, grad = softmax.weight(running), softmax.pull(), grad / count
    of_key = torch.full_like(inverse_k, torch.inf if running else 0.0)
    out_q, out_k = (zq.new_empty((rows, dimension), dtype=dtype) for rows in (count, keys))
    ntxent.gradient(
        zq,
        zk,
        of_query,
        of_key,
        pull,
        softmax.positive,
        grad,
        inverse_q,
        1,
        temperature,
        running,
        out_q,
    )
    ntxent.gradient(
        zk,
        zq,
        of_key,
        of_query,
        pull,
        softmax.positive,
        grad,
        inverse_k,
        1,
        temperature,
        running,
        out_k,
    )
    return out_q, out_k
