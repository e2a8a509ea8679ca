"""Runs a model on noise to see whether a row's output is that row's alone, and whether the model
remembers rows.

No list of layers can tell: a mean over the batch, a recurrent layer that takes the batch for time,
a hook or a buffer look like anything else. So every other row is replaced (by noise, zeros, copies,
huge values, NaN), rows are moved and batches made smaller and larger, in each mode the model may be
used in, with gradients and without; outputs and gradients of the rows that stayed must stay too.

**Guarantee**: a refusal names a dependence that was seen.

**Assumes**: a model is not written to tell noise from examples.

**Not covered**: one that shows on no noise tried here, such as a branch that needs a particular
picture. Training checks the losses of every step besides (`unit_gradients`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from secure_fl.coins import global_generators
from secure_fl.errors import PrivacyError
from secure_fl.privacy.remembered import changes, remembered

_SAME = 1e-6
"""Of a row's largest output: two batches of one shape are computed alike, row by row, so that
nothing but rounding in the last bit is allowed.
"""
_RESHAPED = 1e-3
"""The same for batches of other sizes, summed in other orders: 1e-6 a layer."""

Change = Callable[[Tensor, Tensor], Tensor]
"""(rows, one of them) -> rows of the same shape to stand in place of the others."""

PLAIN: Mapping[str, Change] = {
    "others": lambda rows, _: rows.roll(1, 0),
    "zeros": lambda rows, _: torch.zeros_like(rows),
    "copies": lambda rows, kept: kept.expand_as(rows),
}
EXTREME: Mapping[str, Change] = {
    "large": lambda rows, _: 100 - 300 * rows,
    "huge": lambda rows, _: 1e30 * (rows - 0.5),
    "nan": lambda rows, _: torch.full_like(rows, torch.nan),
    "infinite": lambda rows, _: torch.full_like(rows, torch.inf),
}
"""What a model that takes pictures only may refuse by an error of its own, which proves nothing."""
_TELLING = ("others", "large", "nan")
_MODEST = 64
"""Rows of a batch that is kept for gradients at no great cost."""
_Combinations = tuple[tuple[bool | None, bool], ...]
"""(False: eval mode, None: as the model is; with gradients); the first two closely."""
_WHILE_TRAINED: _Combinations = ((None, True), (False, False), (None, False), (False, True))
_WHILE_USED: _Combinations = ((None, False), (None, True))


def check_rows_alone(
    model: nn.Module, rows: Tensor, *, sizes: Sequence[int] = (), quick: bool = False
) -> None:
    """Refuse a model that gives a row another output when other rows stand beside it, or that
    remembers rows.

    Run in the mode the model is in and in eval mode (a model in eval mode is used in no
    other), with and without gradients. Dropout is off: its masks are drawn for each
    example (`keyed_dropout`).

    Args:
        rows: `[N, ...]`, N at least 2, of no one's data.
        sizes: of further, larger batches.
        quick: in the mode the model is in only (with gradients if that is train mode), and fewer
            neighbours: for what has been checked before.

    Raises:
        PrivacyError: an output or a gradient differs by more than rounding, rows get lost,
            something that the model holds has changed, or it draws coins of its own.
    """
    before, found = global_generators(), None
    with _modes_put_back(model) as modes:
        combinations = _WHILE_TRAINED if model.training else _WHILE_USED
        for number, (mode, graded) in enumerate(combinations[:1] if quick else combinations):
            _set_mode(modes, mode)
            with torch.set_grad_enabled(graded):
                _outputs(model, rows)  # what is made once, and kept, is made here
                held = remembered(model=model)
                closely = number < 2 and not quick
                # All sizes in the first way only, in which the model is used.
                large = _largest(sizes, graded=graded) if number else sizes
                _check(model, rows, large, quick=not closely)
                found = found or next(iter(changes(held, remembered(model=model))), None)
    if found is not None:
        _refuse_memory(model, found)
    if before != global_generators():
        raise draws_coins(_kind(model))


@contextmanager
def _modes_put_back(model: nn.Module) -> Iterator[dict[nn.Module, bool]]:
    """The mode of every layer, in which it will be again at the end of the context."""
    modes = {layer: layer.training for layer in model.modules()}
    try:
        yield modes
    finally:
        for layer, training in modes.items():
            layer.training = training


def _largest(sizes: Sequence[int], *, graded: bool) -> list[int]:
    """The largest batch, but none whose gradients take much memory."""
    return [size for size in sizes[-1:] if not graded or size <= _MODEST]


def draws_coins(name: str) -> PrivacyError:
    """The refusal of a model whose coins are not given to it."""
    remedy = "use nn.Dropout, whose masks belong to examples: other coins follow rows' order"
    return PrivacyError("draws coins of its own", "model", name, remedy)


@torch.no_grad()
def check_some_alone(model: nn.Module, rows: Tensor, outputs: Sequence[Tensor]) -> None:
    """Refuse a model that gives two rows, drawn at random from a batch of any data, other outputs
    when they are by themselves.

    Cheap enough for every step; left out where dropout is on. Rounding is measured by the largest
    output of the batch.

    Args:
        rows: `[N, ...]`.
        outputs: what the model made of them in the same mode.

    Raises:
        PrivacyError: an output differs by more than rounding.
    """
    if len(rows) < 3 or any(layer.training and _drops(layer) for layer in model.modules()):
        return
    places = [int.from_bytes(os.urandom(8)) % len(rows) for _ in range(2)]
    some = torch.tensor(places, device=rows.device)
    for together, alone in zip(outputs, _outputs(model, rows[some]), strict=True):
        largest = together.abs().where(together.isfinite(), 0.0).max()
        _require(model, [together[some]], [alone], _RESHAPED, scale=float(largest))


def _set_mode(modes: Mapping[nn.Module, bool], mode: bool | None) -> None:
    """Every layer as it was (None) or in one mode; no dropout, frozen normalisation stays."""
    for layer, training in modes.items():
        frozen = isinstance(layer, _NormBase) and not training
        layer.training = (training if mode is None or frozen else mode) and not _drops(layer)


def _drops(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.dropout._DropoutNd)


def _check(model: nn.Module, rows: Tensor, sizes: Sequence[int], *, quick: bool) -> None:
    """Hold the model against itself, in the mode that it is in."""
    together = _outputs(model, rows)
    if not quick:
        before, again = global_generators(), _outputs(model, rows)
        if before != global_generators():
            raise draws_coins(_kind(model))
        _require(model, together, again, _SAME, "gives other outputs when it is asked again")
    for kept, changed, may_fail in _neighbours(rows, quick=quick):
        with forgiven(may_fail):
            _require(model, _cut(together, kept), _cut(_outputs(model, changed), kept), _SAME)
    _require(model, [part.flip(0) for part in together], _outputs(model, rows.flip(0)), _SAME)
    for row in range(1 if quick else len(rows)):
        one = slice(row, row + 1)
        _require(model, _cut(together, one), _outputs(model, rows[one]), _RESHAPED)
    for size in sizes if quick else (2, *sizes):
        filled = rows[torch.arange(size, device=rows.device) % len(rows)]
        shared = slice(min(size, len(rows)))
        _require(model, _cut(together, shared), _cut(_outputs(model, filled), shared), _RESHAPED)
    if torch.is_grad_enabled() and rows.is_floating_point():
        _check_gradients(model, rows)


def _cut(parts: Sequence[Tensor], chosen: Tensor | slice) -> list[Tensor]:
    return [part[chosen] for part in parts]


def _among(kept: Tensor, rows: Tensor, others: Tensor) -> Tensor:
    """The rows that are kept, and others in place of the rest."""
    return torch.where(kept.view(-1, *[1] * (rows.ndim - 1)), rows, others)


def _neighbours(rows: Tensor, *, quick: bool) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """(rows that stay, the batch with all others changed, whether the model may fail on it)."""
    everyone = torch.arange(len(rows), device=rows.device)
    contents = [*PLAIN.items(), *(EXTREME.items() if rows.is_floating_point() else ())]
    if quick:
        contents = [(name, change) for name, change in contents if name in _TELLING]
    for number, (name, change) in enumerate(contents):
        chosen = [everyone % 2 == number % 2] if quick else [everyone % 2 == 0, everyone % 2 == 1]
        single = (everyone == row for row in everyone[number % len(rows) :: len(contents)])
        for kept in (*chosen, *single):
            yield kept, _among(kept, rows, change(rows, rows[kept][:1])), name in EXTREME


def _check_gradients(model: nn.Module, rows: Tensor) -> None:
    """Gradients by the rows, of outputs of some rows: none by the others, and the same whatever the
    others are and whether they count.

    An element that no row's output has a finite gradient by, as a square root's at zero, tells
    nothing: 0 · ∞ is NaN.
    """
    half = torch.arange(len(rows), device=rows.device) % 2 == 0
    own = _gradient(model, rows, half)
    beside = _gradient(model, _among(half, rows, 1 - rows), half | True)
    if own is None or beside is None:
        return
    whole = None if bool(own.isfinite().all()) else _gradient(model, rows, half | True)
    if whole is not None:
        own, beside = (part.where(whole.isfinite(), 0.0) for part in (own, beside))
    of_half = torch.where(half[:, None], own, 0.0)
    _require(model, [of_half], [own], _SAME, scale=float(own.abs().max()))
    _require(model, [own[half]], [beside[half]], _SAME)


def _gradient(model: nn.Module, rows: Tensor, counted: Tensor) -> Tensor | None:
    """`[N, -1]`, by the rows, of a fixed combination of counted rows' outputs; None for none."""
    x = rows.clone().requires_grad_()
    outputs = [part.reshape(len(part), -1) for part in _tensors(model(x)) if part.requires_grad]
    if not outputs:
        return None
    total = outputs[0].new_zeros(())
    for part in outputs:
        weights = torch.arange(1, part.shape[1] + 1, device=part.device).cos()
        total = total + (part * weights).sum(1)[counted].sum()
    (gradient,) = torch.autograd.grad(total, x, allow_unused=True)
    return None if gradient is None else gradient.flatten(1)


def _require(
    model: nn.Module,
    these: Sequence[Tensor],
    those: Sequence[Tensor],
    share: float,
    problem: str = "",
    *,
    scale: float | None = None,
) -> None:
    """Refuse rows `[N, ...]` that differ by more than a share of their largest element."""
    for one, other in zip(these, those, strict=True):
        a, b = one.detach().flatten(1).double(), other.detach().flatten(1).double()
        finite = a.isfinite()
        largest = a.where(finite, 0.0).abs().amax(1, keepdim=True) if scale is None else scale
        if one.is_floating_point() and share == _RESHAPED:
            share = max(share, 8 * torch.finfo(one.dtype).eps)
        close = (a - b).abs() <= share * largest
        if not bool((close | ((a == b) | (a.isnan() & b.isnan()))).all()):
            problem = problem or "a row's output depends on the other rows"
            remedy = "remove what combines examples, such as means, or use client-level privacy"
            raise PrivacyError(problem, "model", _kind(model), remedy)


def _outputs(model: nn.Module, rows: Tensor) -> list[Tensor]:
    """All outputs of the model, each `[N, ...]` with one place for each row."""
    outputs = [part.detach() for part in _tensors(model(rows))]
    for part in outputs:
        if part.ndim < 1 or len(part) != len(rows):
            problem = "rows cannot be told apart in its output"
            remedy = "return [N, ...] for [N, ...]: one output a row, in their order"
            raise PrivacyError(problem, "model", _kind(model), remedy)
    return [part.unsqueeze(1) if part.ndim == 1 else part for part in outputs]


def _tensors(outputs: object) -> tuple[Tensor, ...]:
    parts = outputs if isinstance(outputs, tuple | list) else (outputs,)
    return tuple(part for part in parts if isinstance(part, Tensor))


def _refuse_memory(model: nn.Module, path: str) -> None:
    name = path.removeprefix("model.")
    weight = "a parameter" if name in dict(model.named_parameters()) else "an attribute"
    kind = "a buffer" if name in dict(model.named_buffers()) else weight
    remedy = "drop it, or keep it as in training: it would leave, or reach others, without noise"
    raise PrivacyError(f"{kind} changes with the rows it sees", path, _kind(model), remedy)


@contextmanager
def forgiven(may_fail: bool) -> Iterator[None]:
    """A caller's own refusal, as of values out of range, says nothing of the rows that stayed."""
    try:
        yield
    except PrivacyError:
        raise
    except Exception:
        if not may_fail:
            raise


def _kind(layer: nn.Module) -> str:
    return type(layer).__name__
