"""The objectives in plain torch: short, differentiable, correct in float64. Every other
implementation is judged by these.

Shapes: `z`, `z1`, `z2`, `h` are `[N, D]`; every loss is a scalar. A suffix names a tensor's axes: N
rows, D dimensions, S own dimensions. Inputs need not be unit vectors. Half-precision inputs are
computed in float32.

Edges: a row with norm below 1e-12 normalises to zero and gets zero gradient. NaN passes through.

Every loss raises TypeError where rows are not floating point, and ValueError where they are not
`[N, D]` with N, D ≥ 1, where shapes that should be alike differ, and where a temperature or `t` is
not positive and finite.

Sources: SSD, arXiv 2508.01251, and its authors' code; Wang & Isola 2020 (alignment, uniformity);
Chen et al. 2020 (NT-Xent); HaoChen et al. 2021 (spectral contrastive).
"""

from __future__ import annotations

from math import inf
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

DSRForm = Literal["code", "paper", "normalized"]
Direction = Literal["projector_to_encoder", "encoder_to_projector"]

SMALLEST_NORM = 1e-12


def normalize(z: Tensor) -> Tensor:
    """Rows scaled to unit length; rows shorter than `SMALLEST_NORM` become zero, with
    zero gradient.
    """
    norm = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    tiny = norm < SMALLEST_NORM
    return torch.where(
        tiny, torch.zeros_like(z), z / torch.where(tiny, torch.ones_like(norm), norm)
    )


def align_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Mean squared distance between the two views' unit vectors: (1/N) Σ ‖ẑ¹ᵢ − ẑ²ᵢ‖²."""
    z1, z2 = pair(z1, z2)
    return (normalize(z1) - normalize(z2)).square().sum(1).mean()


def uniformity_loss(z: Tensor, t: float = 2.0) -> Tensor:
    """log of the mean of exp(−t ‖ẑᵢ − ẑⱼ‖²) over distinct pairs; negative, to be minimised.

    Raises:
        ValueError: fewer than two rows.
    """
    positive("t", t)
    z_ND = normalize(rows(z))
    if len(z_ND) < 2:
        raise ValueError("uniformity is defined on pairs: two rows at least")
    square_N = z_ND.square().sum(1)
    gram_NN = z_ND @ z_ND.T
    i, j = torch.triu_indices(len(z_ND), len(z_ND), offset=1, device=z.device)
    distance = square_N[i] + square_N[j] - 2 * gram_NN[i, j]
    pairs = torch.tensor(float(len(i)), dtype=distance.dtype, device=z.device)
    return torch.logsumexp(-t * distance, 0) - pairs.log()


def nt_xent_loss(z1: Tensor, z2: Tensor, temperature: float = 0.5) -> Tensor:
    """SimCLR's loss over the 2N rows: cross-entropy of each row's partner among all others; 0 at
    N = 1.
    """
    positive("temperature", temperature)
    z1, z2 = pair(z1, z2)
    count = len(z1)
    z_ND = normalize(torch.cat([z1, z2]))
    similarity_NN = z_ND @ z_ND.T / temperature
    itself = torch.eye(2 * count, dtype=torch.bool, device=z_ND.device)
    partner = torch.arange(2 * count, device=z_ND.device).roll(count)
    return functional.cross_entropy(similarity_NN.masked_fill(itself, -torch.inf), partner)


def info_nce_loss(q: Tensor, k: Tensor, temperature: float = 0.5) -> Tensor:
    """Cross-entropy of every query's own key among all keys: q `[N, D]`, k `[K, D]`, key i belongs
    to query i, N ≤ K.

    Raises:
        ValueError: widths differ or keys are fewer than queries.
    """
    positive("temperature", temperature)
    q, k = rows(q), rows(k)
    if q.shape[1] != k.shape[1] or len(k) < len(q):
        raise ValueError(
            f"keys must be as wide as queries and at least as many: widths {q.shape[1]} and "
            f"{k.shape[1]}"
        )
    similarity_NK = normalize(q) @ normalize(k).T / temperature
    return functional.cross_entropy(similarity_NK, torch.arange(len(q), device=q.device))


def group_nt_xent_loss(z1: Tensor, z2: Tensor, group_size: int, temperature: float = 0.5) -> Tensor:
    """NT-Xent within disjoint groups of consecutive examples: `[G]` losses of
    `[G · group_size, D]` views.

    Raises:
        ValueError: the examples do not fill groups.
    """
    positive("temperature", temperature)
    z1, z2 = pair(z1, z2)
    if group_size < 1 or len(z1) % group_size:
        raise ValueError(f"the examples do not fill groups of {group_size}")
    shape = (-1, group_size, z1.shape[1])
    z_GRD = torch.cat([normalize(z1).reshape(shape), normalize(z2).reshape(shape)], 1)
    similarity_GRR = z_GRD @ z_GRD.mT / temperature
    itself = torch.eye(2 * group_size, dtype=torch.bool, device=z1.device)
    partner = torch.arange(2 * group_size, device=z1.device).roll(group_size)
    logits = similarity_GRR.masked_fill(itself, -torch.inf).log_softmax(2)
    return -logits[:, torch.arange(2 * group_size, device=z1.device), partner].mean(1)


def spectral_attraction(z1: Tensor, z2: Tensor) -> Tensor:
    """−2 mean ẑ¹ᵢ·ẑ²ᵢ, the pulling half of the spectral contrastive loss."""
    z1, z2 = pair(z1, z2)
    return -2 * (normalize(z1) * normalize(z2)).sum(1).mean()


def spectral_moment(z1: Tensor, z2: Tensor) -> Tensor:
    """‖M‖²_F with M the second moment of all 2N unit vectors, `[D, D]`: the spreading half of the
    spectral contrastive loss.
    """
    z_ND = normalize(torch.cat(pair(z1, z2)))
    return (z_ND.T @ z_ND / len(z_ND)).square().sum()


def dsr_target(z: Tensor, dims: Tensor, alpha: float, basis: Tensor | None = None) -> Tensor:
    """((ẑU)⊙d)Uᵀ with d = alpha on `dims`, 1 elsewhere; without a basis U is the identity.
    Not detached.
    """
    unit_ND = normalize(z)
    scale_D = torch.ones(z.shape[1], dtype=z.dtype, device=z.device).index_fill(
        0, dims.to(z.device), alpha
    )
    if basis is None:
        return unit_ND * scale_D
    basis_DD = basis.to(z)
    return ((unit_ND @ basis_DD) * scale_D) @ basis_DD.T


def dsr_loss(
    z: Tensor,
    dims: Tensor,
    alpha: float = 10.0,
    basis: Tensor | None = None,
    form: DSRForm = "code",
) -> Tensor:
    """Dimension-scaled regulariser: pull ẑ towards a copy of itself, own dimensions scaled.

    With P the detached target of `dsr_target`, and P̂ its rows renormalised: `code` ‖Ẑ − P̂‖_F / N,
    not squared (the authors' runs); `paper` mean ‖ẑ − p‖² (as printed); `normalized` mean ‖ẑ − p̂‖².

    All forms are zero with zero gradient at alpha = 1; so is `code` where ‖Ẑ − P̂‖_F ≤ 8·eps·√N, its
    square root's corner.

    Args:
        dims: int64 `[S]`, the client's own dimensions (of the basis, where there is one).
        alpha: their scale, at least 1.
        basis: `[D, D]`, basis vectors in columns, used as given.

    Raises:
        ValueError: alpha is below 1 or not finite, the form is unknown, or a dimension is not one
            of D.
    """
    z = rows(z)
    scaling(alpha)
    own_dims(dims, z.shape[1])
    if alpha == 1:
        return (z * 0).sum()
    target_ND = dsr_target(z, dims, alpha, basis).detach()
    if form == "paper":
        return (normalize(z) - target_ND).square().sum(1).mean()
    residual_ND = normalize(z) - normalize(target_ND)
    if form == "normalized":
        return residual_ND.square().sum(1).mean()
    if form != "code":
        raise ValueError(f"unknown form {form!r}; it is 'code', 'paper' or 'normalized'")
    length = torch.linalg.vector_norm(residual_ND)
    corner = length <= 8 * torch.finfo(z.dtype).eps * len(z) ** 0.5
    return torch.where(corner, torch.zeros_like(length), length) / len(z)


def distillation_loss(
    h: Tensor, z: Tensor, temperature: float = 0.5, direction: Direction = "projector_to_encoder"
) -> Tensor:
    """Mean KL divergence between the softmaxes of `h` and `z` over their features; gradients
    reach both.

    `projector_to_encoder` is D(σ(z/τ) ‖ σ(h/τ)), `encoder_to_projector` its reverse. Rows are used
    as they are, not normalised.

    Raises:
        ValueError: widths differ, or the direction is unknown.
    """
    positive("temperature", temperature)
    h, z = pair(h, z)
    log_h, log_z = (
        functional.log_softmax(h / temperature, 1),
        functional.log_softmax(z / temperature, 1),
    )
    if direction == "encoder_to_projector":
        log_h, log_z = log_z, log_h
    elif direction != "projector_to_encoder":
        raise ValueError(
            f"unknown direction {direction!r}; it is 'projector_to_encoder' or "
            "'encoder_to_projector'"
        )
    return (log_z.exp() * (log_z - log_h)).sum(1).mean()


def rows(z: Tensor) -> Tensor:
    """`z` if it is a non-empty floating `[N, D]`, in at least float32."""
    if not z.is_floating_point():
        raise TypeError(f"floating-point rows are needed, not {z.dtype}")
    if z.ndim != 2 or 0 in z.shape:
        raise ValueError(
            f"[N, D] with N, D at least 1 is needed, not {z.ndim} axes or an empty one"
        )
    return z.float() if z.dtype in (torch.float16, torch.bfloat16) else z


def pair(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both views, checked as `rows` does and to have one shape."""
    if first.shape != second.shape:
        raise ValueError(
            f"shapes differ, in the number of rows or in a row's: {tuple(first.shape[1:])} and "
            f"{tuple(second.shape[1:])}"
        )
    return rows(first), rows(second)


def positive(name: str, value: float) -> None:
    """Refuse a setting that is not positive and finite."""
    if not 0 < value < inf:
        raise ValueError(f"{name} must be positive and finite, not {value}")


def scaling(alpha: float) -> None:
    """Refuse a scale of own dimensions that would shrink them."""
    if not 1 <= alpha < inf:
        raise ValueError(f"alpha must be at least 1 and finite, not {alpha}")


def own_dims(dims: Tensor, width: int) -> None:
    """Refuse own dimensions that are not int64 `[S]`, each one of `width`, none twice."""
    if dims.ndim != 1 or dims.dtype != torch.int64:
        raise ValueError(f"dims must be int64 [S], not {dims.dtype} with {dims.ndim} axes")
    if dims.numel() and not 0 <= int(dims.min()) <= int(dims.max()) < width:
        raise ValueError(f"dims must lie between 0 and {width - 1}, rows being {width} wide")
    if len(dims.unique()) != len(dims):
        raise ValueError("dims must differ from each other")
