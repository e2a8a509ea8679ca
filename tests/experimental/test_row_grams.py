"""J Jᵀ layer by layer is that of the Jacobians, and weights that act beside their layers
are noticed.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.errors import PrivacyError
from secure_fl.experimental import row_grams
from secure_fl.experimental.row_grams import embeddings_and_grams, jacobian_grams
from secure_fl.models.heads import EncoderProjector


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Models and the shape of a row, between them every kind of layer and every way
    through `_layer_grams`.
    """
    torch.manual_seed(0)
    image = nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=2, padding=1, bias=False), nn.GroupNorm(2, 6), nn.ReLU(),
        nn.Conv2d(6, 6, (2, 3), dilation=(1, 2), groups=3), nn.InstanceNorm2d(6, affine=True),
        nn.Tanh(), nn.Conv2d(6, 5, 3, padding="same"), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    series = nn.Sequential(
        nn.Conv1d(2, 4, 5, stride=2, padding=2),
        nn.LayerNorm(4),
        nn.Tanh(),
        nn.Linear(4, 3),
        nn.Flatten(),
    )
    frozen = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 5))
    frozen[0].weight.requires_grad_(False)
    return {
        "image": (EncoderProjector(image, nn.Linear(5, 4)), (2, 9, 9)),
        "series": (EncoderProjector(series, nn.Linear(12, 4, bias=False)), (2, 8)),
        "partly frozen": (EncoderProjector(frozen, nn.Linear(5, 3)), (7,)),
    }


def views_for(shape: tuple[int, ...], count: int = 5) -> Tensor:
    return torch.randn(count, 2, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", networks())
def test_grams_by_layers_are_those_by_jacobians(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, shape = networks()[name]
    views = views_for(shape)
    expected = jacobian_grams(model, views.flatten(0, 1))
    with monkeypatch.context() as patch:
        patch.setattr(row_grams, "jacobian_grams", None)  # it must not be needed
        patch.setattr(row_grams, "_JACOBIAN_ELEMENTS", 3 * 4 * 300)  # several chunks
        found = embeddings_and_grams(model, views)
    torch.testing.assert_close(found[0].flatten(0, 1), expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        found[1].flatten(0, 1), expected[1], rtol=1e-4, atol=1e-5 * float(expected[1].abs().max())
    )


class Borrows(nn.Module):
    """Weights that act outside of their layer, in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.layer, self.last = way, nn.Linear(4, 4), nn.Linear(4, 3)
        self.same = self.layer if way == "shared" else nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.way == "functional":
            x = functional.linear(x, self.layer.weight)
        x = self.layer(x).tanh()
        if self.way == "twice":
            x = self.layer(x).tanh()
        z = self.last(self.same(x))
        return z, z + self.layer.bias.sum() if self.way == "after" else z


@pytest.mark.parametrize("way", ["functional", "twice", "shared", "after"])
def test_weights_that_act_beside_their_layer_are_not_left_out(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, views = Borrows(way), views_for((4,))
    right = jacobian_grams(model, views.flatten(0, 1))[1]
    assert all(parameter.requires_grad for parameter in model.parameters()), (
        "the model is left as it was"
    )
    torch.testing.assert_close(embeddings_and_grams(model, views)[1].flatten(0, 1), right)
    if way in ("functional", "after"):  # without the check the lengths would be too small
        monkeypatch.setattr(row_grams, "_only_through_layers", lambda *_: True)
        wrong = embeddings_and_grams(model, views)[1].flatten(0, 1)
        assert not torch.allclose(wrong, right, rtol=1e-2)


def test_an_embedding_that_is_drawn_is_refused() -> None:
    model = EncoderProjector(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5)), nn.Linear(8, 3))
    with pytest.raises(PrivacyError, match="differently each time"):
        embeddings_and_grams(model, views_for((4,)))
    embeddings_and_grams(model.eval(), views_for((4,)))


def test_an_input_changed_in_place_is_refused() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.first(x) * 1
            z = self.second(y)
            y.detach().add_(1)
            return z, z

    with pytest.raises((PrivacyError, RuntimeError), match=r"in place|inplace"):
        embeddings_and_grams(InPlace(), views_for((4,)))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_broken_row_stays_by_itself(value: float) -> None:
    model, shape = networks()["image"]
    views = views_for(shape)
    broken = views.clone()
    broken[2, 1, 0, 0, 0] = value
    good, found = embeddings_and_grams(model, views)[1], embeddings_and_grams(model, broken)[1]
    assert not torch.isfinite(found[2, 1].sum())
    torch.testing.assert_close(found[[0, 1, 3, 4]], good[[0, 1, 3, 4]], rtol=1e-4, atol=1e-6)
