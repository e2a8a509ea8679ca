"""Dropout's masks are an example's own: the same whoever else was drawn, and as often as they
should be.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from secure_fl.coins import Coins
from secure_fl.errors import PrivacyError
from secure_fl.privacy.keyed_dropout import keyed_dropout, row_draws

COINS = Coins.public(0)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Dropout(0.3), (7,)),
        (nn.Dropout1d(0.3), (4, 6)),
        (nn.Dropout2d(0.3), (4, 3, 3)),
        (nn.Dropout(0.3, inplace=True), (2, 5)),
    ],
)
def test_masks_belong_to_examples(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x, some = torch.rand(40, *shape) + 0.1, torch.tensor([31, 2, 17])
    with keyed_dropout(layer, COINS.at(1, torch.arange(40))):
        together = layer(x.clone())
    with keyed_dropout(layer, COINS.at(1, some)):
        alone = layer(x[some])
    assert torch.equal(together[some], alone)
    with keyed_dropout(layer, COINS.at(2, torch.arange(40))):
        assert not torch.equal(layer(x.clone()), together)
    dropped = (together == 0).double()
    kept = x[together != 0] / 0.7
    torch.testing.assert_close(together[together != 0], kept)
    if isinstance(layer, nn.Dropout1d | nn.Dropout2d):
        assert torch.equal(dropped.flatten(2).amin(2), dropped.flatten(2).amax(2))
    assert "forward" not in vars(layer)


def test_torch_s_own_masks_would_be_found() -> None:
    """The planted fault: drawn in the order of rows."""
    layer, x = nn.Dropout(0.3), torch.rand(40, 7)
    torch.manual_seed(0)
    together = layer(x)
    torch.manual_seed(0)
    assert not torch.equal(layer(x[[31, 2]]), together[[31, 2]])


def test_masks_come_at_their_rate_and_differ_between_calls_and_views() -> None:
    layer = nn.Dropout(0.25)
    draws = row_draws(COINS.at(0, torch.arange(1000)), 1000, 2)
    assert len(draws) == 2000
    with keyed_dropout(layer, draws):
        first, second = layer(torch.ones(2000, 50)), layer(torch.ones(2000, 50))
    assert not torch.equal(first, second)
    views = first.view(1000, 2, 50)
    assert not torch.equal(views[:, 0], views[:, 1])
    assert abs(float((first == 0).double().mean()) - 0.25) < 5 * (0.25 * 0.75 / 1e5) ** 0.5


def test_rows_of_a_group_are_its_members_view_by_view() -> None:
    examples = torch.tensor([[5, 2], [7, 9]])
    rows = row_draws(COINS.at(0, examples.flatten()), 2, 4).words(2, 0)
    for row, (example, view) in enumerate(
        ((5, 0), (2, 0), (5, 1), (2, 1), (7, 0), (9, 0), (7, 1), (9, 1))
    ):
        assert (rows[row] == COINS.at(0, torch.tensor([example])).of_view(view).words(2, 0)).all()


def test_edges() -> None:
    x, draws = torch.ones(3, 4), COINS.at(0, torch.arange(3))
    with keyed_dropout(nn.Dropout(1.0), draws):
        pass
    everything, nothing, evaluated = nn.Dropout(1.0), nn.Dropout(0.0), nn.Dropout(0.5).eval()
    model = nn.ModuleList([everything, nothing, evaluated])
    with keyed_dropout(model, draws):
        assert not everything(x).any()
        assert torch.equal(nothing(x), x)
        assert torch.equal(evaluated(x), x)


def test_what_has_no_masks_of_its_own_is_refused() -> None:
    draws = COINS.at(0, torch.arange(3))
    with (
        pytest.raises(PrivacyError, match="no masks for each example"),
        keyed_dropout(nn.AlphaDropout(0.5), draws),
    ):
        pass
    layer = nn.Dropout(0.5)
    with (
        keyed_dropout(layer, draws),
        pytest.raises(PrivacyError, match="rows cannot be told apart"),
    ):
        layer(torch.ones(4, 2))


def test_what_is_computed_again_with_other_masks_is_refused() -> None:
    """Checkpointing runs layers a second time in the backward pass, whose masks would be the
    next call's.
    """
    layer, x = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4)), torch.ones(3, 4)
    with keyed_dropout(layer, COINS.at(0, torch.arange(3))):
        layer(x).sum().backward()
        made = checkpoint(layer, x, use_reentrant=False)
        with pytest.raises(PrivacyError, match="computed again"):
            made.sum().backward()


def test_masks_are_put_away_after_an_error_too() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            raise ValueError

    model = Fails()
    with pytest.raises(ValueError), keyed_dropout(model, COINS.at(0, torch.arange(3))):
        model(torch.ones(3))
    assert "forward" not in vars(model.drop)
