"""InfoNCE of queries against keys on a GPU: one row-sum pass, one gradient pass for queries and one for keys.

Reference: `reference.info_nce_loss`; the loops are in `contrast`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secure_fl_kernels.gpu import ntxent
from secure_fl_kernels.gpu.rows import project


def forward(q: Tensor, k: Tensor, temperature: float) -> tuple[Tensor, ...]:
    """(loss, padded unit queries, their inverse lengths, padded unit keys, theirs, row sums `[N]`) of raw rows."""
    scale = ntxent.scale_of(temperature)
    (zq, inverse_q, *_), (zk, inverse_k, *_) = project(q, None, scale=scale), project(k, None, scale=scale)
    sums, positive = ntxent.row_sums(zq, zk, len(q), len(k), temperature)
    return ntxent.mean_loss(sums, positive, len(k), temperature), zq, inverse_q, zk, inverse_k, sums


def backward(
    grad: Tensor, zq: Tensor, inverse_q: Tensor, zk: Tensor, inverse_k: Tensor, sums: Tensor, temperature: float, dimension: int
) -> tuple[Tensor, Tensor]:
    """Gradients by the raw queries `[N, D]` and keys `[K, D]` of grad · loss."""
    count, keys = len(inverse_q), len(inverse_k)
    running = ntxent.online(keys, temperature)
    of_query = sums if running else sums.reciprocal()
    of_key = torch.full_like(inverse_k, torch.inf if running else 0.0)
    by_q = ntxent.gradient(zq, zk, of_query, of_key, grad, inverse_q, count, count, temperature, dimension)
    by_k = ntxent.gradient(zk, zq, of_key, of_query, grad, inverse_k, count, count, temperature, dimension)
    return by_q, by_k
