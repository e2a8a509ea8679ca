"""Models that let a row see others, or remember rows, are found by running them; models that do not
are let through.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.errors import PrivacyError
from secure_fl.models.convnet import MLP, ConvNet, SeriesConvNet
from secure_fl.models.heads import EncoderProjector, Projector
from secure_fl.models.scattering import ScatteringEncoder
from secure_fl.models.view_features import WhitenedEncoder
from secure_fl.privacy.rows_alone import check_rows_alone, check_some_alone
from secure_fl.privacy.unit_gradients import clipped_sum

WIDTH = 12


class Layer(nn.Module):
    """A linear layer and what a careless author puts behind it."""

    def __init__(self, then: Callable[[Layer, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.then = nn.Linear(WIDTH, WIDTH), then
        self.register_buffer("seen", torch.zeros(WIDTH))
        self.count, self.bank = 0, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self, self.linear(x))


def centred(h: Tensor) -> Tensor:
    return h - h.mean(0)


def only(condition: Callable[[Layer, Tensor], bool]) -> Callable[[Layer, Tensor], Tensor]:
    return lambda layer, h: centred(h) if condition(layer, h) else h


def hooked(layer: Layer, h: Tensor) -> Tensor:
    if h.requires_grad:
        h = h * 1
        h.register_hook(lambda gradient: gradient - gradient.mean(0))
    return h


def counting(layer: Layer, h: Tensor) -> Tensor:
    layer.count += 1
    return h


def banking(layer: Layer, h: Tensor) -> Tensor:
    layer.bank.append(h.detach())
    return h


def noting(layer: Layer, h: Tensor) -> Tensor:
    layer.seen = h.detach().mean(0)
    return h


def noting_with_gradients(layer: Layer, h: Tensor) -> Tensor:
    if layer.training and torch.is_grad_enabled():
        layer.seen.lerp_(h.detach().mean(0), 1.0)
    return h


def noting_behind_autograd(layer: Layer, h: Tensor) -> Tensor:
    layer.seen.data.add_(h.detach().mean(0))
    return h


COUPLED: dict[str, Callable[[Layer, Tensor], Tensor]] = {
    "mean": lambda _, h: centred(h),
    "weak mean": lambda _, h: h + 1e-5 * h.mean(0),
    "running mean": lambda _, h: h.cumsum(0),
    "median": lambda _, h: h - h.median(0)[0],
    "deviation": lambda _, h: h / h.std(0, correction=0).clamp_min(0.1),
    "normalised over the batch": lambda _, h: functional.layer_norm(h.T, (len(h),)).T,
    "largest of all": lambda _, h: h / h.abs().max(),
    "attention over the batch": lambda _, h: torch.softmax(h @ h.T, 1) @ h,
    "distances": lambda _, h: h + torch.cdist(h, h).mean(1, keepdim=True),
    "copies": lambda _, h: h * (torch.cdist(h, h) < 1e-9).sum(1, keepdim=True),
    "sorted": lambda _, h: h.sort(0)[0],
    "rolled": lambda _, h: h.roll(1, 0),
    "turned round": lambda _, h: h.flip(0),
    "by position": lambda _, h: h + 0.01 * torch.arange(len(h))[:, None],
    "first row": lambda _, h: torch.cat([2 * h[:1], h[1:]]),
    "size": lambda _, h: h / len(h),
    "rows dropped": lambda _, h: h[h.sum(1) > h.sum(1).median()],
    "rows merged": lambda _, h: h.unique(dim=0),
    "in train mode": only(lambda layer, _: layer.training),
    "in eval mode": only(lambda layer, _: not layer.training),
    "with gradients": only(lambda *_: torch.is_grad_enabled()),
    "without gradients": only(lambda *_: not torch.is_grad_enabled()),
    "in even batches": only(lambda _, h: len(h) % 2 == 0),
    "in large batches": only(lambda _, h: len(h) > 32),
    "in large batches in train mode": only(lambda layer, h: layer.training and len(h) > 100),
    "beside NaN": lambda _, h: torch.zeros_like(h) if bool(h.isnan().any()) else h,
    "beside large values": lambda _, h: 0 * h if bool((h.abs() > 100).any()) else h,
    "in half precision": lambda _, h: centred(h).half(),
    "by a hook on gradients": hooked,
    "through its own gradient": lambda _, h: h.detach() + (h - h.detach()) * h.detach().std(0),
}
REMEMBERING = {
    "count": counting,
    "bank": banking,
    "buffer": noting,
    "graded": noting_with_gradients,
    "data": noting_behind_autograd,
}
DRAWING: dict[str, Callable[[Layer, Tensor], Tensor]] = {
    "functional dropout": lambda _, h: functional.dropout(h, 0.5),
    "shuffled": lambda _, h: h[torch.randperm(len(h))],
    "numpy": lambda _, h: h * np.random.rand(),
    "Python": lambda _, h: h * random.random(),
}


def refusal(then: Callable[[Layer, Tensor], Tensor]) -> PrivacyError:
    with pytest.raises(PrivacyError) as caught:
        check_rows_alone(Layer(then), torch.rand(5, WIDTH), sizes=[33, 129])
    return caught.value


@pytest.mark.parametrize("way", COUPLED)
def test_rows_that_see_each_other_are_refused(way: str) -> None:
    found = refusal(COUPLED[way])
    assert found.field == "model"
    assert "rows" in found.problem


@pytest.mark.parametrize("way", REMEMBERING)
def test_a_model_that_remembers_is_refused_by_the_name_of_what_changed(way: str) -> None:
    found = refusal(REMEMBERING[way])
    assert "changes with the rows" in found.problem
    assert found.field.split(".")[1] in ("count", "bank", "seen")


@pytest.mark.parametrize("way", DRAWING)
def test_a_model_with_coins_of_its_own_is_refused(way: str) -> None:
    assert "coins" in refusal(DRAWING[way]).problem


def test_a_generator_of_its_own_is_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    assert (
        "asked again"
        in refusal(lambda _, h: h + torch.rand(h.shape[1], generator=generator)).problem
    )


@pytest.mark.parametrize("frozen", [nn.LSTM(WIDTH, WIDTH), nn.GRU(WIDTH, WIDTH, 2)])
def test_a_recurrent_layer_that_takes_the_batch_for_time_is_refused(frozen: nn.Module) -> None:
    """`[N, D]` is one sequence of length N to it: every row sees those before it, and the first
    sees nobody.
    """

    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = frozen.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.recurrent(x)[0]

    with pytest.raises(PrivacyError, match="depends on the other rows"):
        check_rows_alone(Causal(), torch.rand(4, WIDTH))


def test_a_check_of_the_first_row_alone_would_have_missed_it() -> None:
    """The planted fault."""
    causal, rows = Layer(COUPLED["running mean"]), torch.rand(4, WIDTH)
    torch.testing.assert_close(causal(rows)[:1], causal(rows[:1]))


ALONE: dict[str, Callable[[Layer, Tensor], Tensor]] = {
    "as it is": lambda _, h: h,
    "half precision": lambda _, h: h.half(),
    "normalised": lambda _, h: functional.normalize(h),
    "softmax": lambda _, h: h.softmax(1),
    "rounded": lambda _, h: h.round(),
    "signs": lambda _, h: h.sign(),
    "whole numbers": lambda _, h: h.clamp(0, 5).long(),
    "NaN made zero": lambda _, h: h.nan_to_num(0, 0, 0),
    "nothing": lambda _, h: 0 * h,
    "cut off": lambda _, h: h.detach(),
    "square root": lambda _, h: h.clamp_min(0).sqrt(),
}


@pytest.mark.parametrize("way", ALONE)
def test_rows_by_themselves_are_let_through(way: str) -> None:
    model = Layer(ALONE[way])
    check_rows_alone(model, torch.rand(5, WIDTH), sizes=[33, 129])
    check_rows_alone(model, torch.rand(4, WIDTH), quick=True)
    assert model.training


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (EncoderProjector(ConvNet(1, 32), Projector(32, 40, 16, "group")), (1, 12, 12)),
        (MLP((9,), 16), (9,)),
        (SeriesConvNet(3, 32), (3, 30)),
        (ScatteringEncoder((1, 12, 12), 32), (1, 12, 12)),
        (ScatteringEncoder((3, 30), 32), (3, 30)),
        (WhitenedEncoder((1, 12, 12), 32), (1, 12, 12)),
        (nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 3)), (6,)),
        (nn.Sequential(nn.BatchNorm1d(6).requires_grad_(False).eval(), nn.Linear(6, 3)), (6,)),
    ],
    ids=[
        "convnet",
        "mlp",
        "series",
        "scattering of images",
        "scattering of series",
        "whitened",
        "dropout",
        "frozen batch norm",
    ],
)
def test_ordinary_models_are_let_through(model: nn.Module, shape: tuple[int, ...]) -> None:
    modes = [layer.training for layer in model.modules()]
    check_rows_alone(model, torch.rand(5, *shape), sizes=[7, 33])
    assert [layer.training for layer in model.modules()] == modes


def test_words_are_rows_too() -> None:
    words = nn.Sequential(nn.Embedding(7, 4), nn.Flatten())
    check_rows_alone(words, torch.randint(0, 7, (5, 3)))
    with pytest.raises(PrivacyError):
        check_rows_alone(nn.Sequential(words, Layer(COUPLED["mean"])), torch.randint(0, 7, (5, 3)))


def test_what_is_made_once_is_no_memory() -> None:
    def once(layer: Layer, h: Tensor) -> Tensor:
        layer.scale = getattr(layer, "scale", torch.ones(WIDTH))  # type: ignore[assignment]
        return h * layer.scale  # type: ignore[operator]

    check_rows_alone(Layer(once), torch.rand(5, WIDTH))


def test_a_picture_model_may_fail_on_what_is_no_picture() -> None:
    def strict(_: Layer, h: Tensor) -> Tensor:
        if bool((h.isnan() | (h.abs() > 100)).any()):
            raise ValueError("pixels out of range")
        return h

    check_rows_alone(Layer(strict), torch.rand(5, WIDTH))


def test_pictures_stay_pictures_where_gradients_are_compared() -> None:
    class Strict(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if not bool(((x >= 0) & (x <= 1)).all()):
                raise ValueError("pixels out of range")
            return super().forward(x)

    check_rows_alone(Strict(WIDTH, WIDTH), torch.rand(5, WIDTH), sizes=[33])


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_that_is_used_in_eval_mode_needs_no_coins_of_its_own(
    batch_first: bool,
) -> None:
    """Its attention drops in train mode by a function, not by a layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=batch_first), 2
        ).eval()
    rows = torch.rand(5, 3, WIDTH)
    if batch_first:
        check_rows_alone(model, rows, sizes=[33])
        with pytest.raises(PrivacyError, match="coins of its own"):
            check_rows_alone(model.train(), rows)
    else:
        with pytest.raises(PrivacyError, match="other rows"):
            check_rows_alone(model, rows)


@pytest.mark.parametrize("size", [40, 300])
def test_every_step_looks_at_two_of_its_own_rows(size: int) -> None:
    """A branch that begins at a size which no noise had."""
    model, rows = Layer(only(lambda _, h: len(h) > 30)), torch.rand(size, WIDTH)
    with pytest.raises(PrivacyError, match="other rows"):
        check_some_alone(model, rows, [model(rows)])
    with pytest.raises(PrivacyError, match="other rows"):
        clipped_sum(model, rows, 1, lambda _, z: z.square().sum((1, 2)), 1.0)
    check_some_alone(Layer(ALONE["as it is"]), rows, [Layer(ALONE["as it is"])(rows)])
