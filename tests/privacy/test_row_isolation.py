"""Models and calls whose rows cannot be told apart, or whose gradients no rule forms: refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from secure_fl.errors import PrivacyError
from secure_fl.privacy.row_isolation import check_separable
from secure_fl.privacy.unit_gradients import clipped_sum


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.layer(x) * self.scale


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "batch norm": (lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), 'norm = "group"'),
    "frozen batch norm in train mode": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4).requires_grad_(False)),
        'norm = "group"',
    ),
    "running statistics": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.InstanceNorm1d(4, track_running_stats=True)),
        'norm = "group"',
    ),
    "weights of its own": (Scaled, "freeze it"),
    "circular padding": (
        lambda: nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"),
        "padding_mode",
    ),
    "attention": (lambda: nn.MultiheadAttention(4, 2), "freeze it"),
    "recurrent": (lambda: nn.LSTM(4, 4), "freeze it"),
    "renormalised embedding": (lambda: nn.Embedding(4, 4, max_norm=1.0), "max_norm"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_mix_rows_or_have_no_rule_are_refused(name: str) -> None:
    make, remedy = REFUSED[name]
    with pytest.raises(PrivacyError, match=remedy):
        check_separable(make())


class Merged(nn.Module):
    """Takes positions for rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(-1, 2)).reshape(len(x), -1)


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        y = self.layer(x)
        x += 1
        return y + x


def test_calls_that_cannot_be_right_are_refused() -> None:
    rows = torch.randn(6, 4)
    plain = nn.Linear(4, 3)
    for match, call in (
        (
            "rows cannot be told apart",
            lambda: clipped_sum(Merged(), rows, 2, lambda h, z: z.sum((1, 2)), 1.0),
        ),
        (
            "changed in place",
            lambda: clipped_sum(InPlace(), rows, 2, lambda h, z: z.sum((1, 2)), 1.0),
        ),
        ("not one loss a unit", lambda: clipped_sum(plain, rows, 2, lambda h, z: z.sum(), 1.0)),
        ("do not fill units", lambda: clipped_sum(plain, rows, 4, lambda h, z: z.sum((1, 2)), 1.0)),
    ):
        with pytest.raises(PrivacyError, match=match):
            call()
