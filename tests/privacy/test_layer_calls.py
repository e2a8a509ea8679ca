"""Trained weights act through their layers' calls alone, or are refused: a gradient that is missed
is trained on noise without a word.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from secure_fl.errors import PrivacyError
from secure_fl.privacy.row_isolation import check_separable
from secure_fl.privacy.unit_gradients import clipped_sum

WIDTH = 6


class Net(nn.Module):
    """Two layers, used in one of several ways."""

    def __init__(self, way: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.way = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def plain(net: Net, x: Tensor) -> Tensor:
    return net.second(torch.relu(net.first(x)))


def tied(net: Net, x: Tensor) -> Tensor:
    return functional.linear(net.second(net.first(x)), net.first.weight.T)


def penalty(net: Net, x: Tensor) -> Tensor:
    return plain(net, x) + net.first.weight.square().sum()


BESIDE: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "functional": lambda net, x: functional.linear(
        torch.relu(net.first(x)), net.second.weight, net.second.bias
    ),
    "bias alone": lambda net, x: plain(net, x) + net.first.bias,
    "tied by hand": tied,
    "penalty in the output": penalty,
    "scaled weight": lambda net, x: net.second(x) @ (2 * net.first.weight),
    "checkpoint": lambda net, x: net.second(
        checkpoint(net.first, x.requires_grad_(), use_reentrant=True)
    ),
}


def losses(_h: Tensor, z: Tensor) -> Tensor:
    return z.square().sum((1, 2))


def one_at_a_time(net: nn.Module, rows: Tensor, bound: float) -> list[Tensor]:
    """What autograd sums, each row's gradient clipped."""
    parameters = list(net.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    for row in rows:
        gradients = torch.autograd.grad(
            net(row[None]).square().sum(), parameters, materialize_grads=True
        )
        factor = min(
            1.0, bound / float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())
        )
        total = [t + factor * g for t, g in zip(total, gradients, strict=True)]
    return total


@pytest.mark.parametrize("way", BESIDE)
def test_a_weight_that_is_used_beside_its_layer_is_refused_by_name(way: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(PrivacyError, match="beside its layer") as caught:
            clipped_sum(Net(BESIDE[way]), torch.randn(8, WIDTH), 1, losses, 0.7)
    assert caught.value.field.startswith("model.")


FINE: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "plain": plain,
    "twice": lambda net, x: net.first(torch.relu(net.first(x))),
    "in place": lambda net, x: net.second(functional.relu_(net.first(x))),
    "to both ends": lambda net, x: net.second(net.first(x)) + net.first(x),
    "without gradient": lambda net, x: (
        plain(net, x) + functional.linear(x, net.second.weight.detach())
    ),
    "by name": lambda net, x: net.second(input=torch.relu(net.first(input=x))),
    "unused": lambda net, x: net.first(x),
    "checkpoint": lambda net, x: net.second(checkpoint(net.first, x, use_reentrant=False)),
}


@pytest.mark.parametrize("way", FINE)
def test_what_goes_through_the_layers_is_what_autograd_sums(way: str) -> None:
    net, rows = Net(FINE[way]), torch.randn(8, WIDTH)
    found = clipped_sum(net, rows, 1, losses, 0.7).gradients
    for got, expected in zip(found, one_at_a_time(net, rows, 0.7), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_losses_that_read_the_model_s_weights_are_refused() -> None:
    net = Net(plain)
    for closing in (
        lambda h, z: losses(h, z) + net.first.weight.square().sum(),
        lambda h, z: losses(h, net.second(z)),
    ):
        with pytest.raises(PrivacyError, match="beside its layer"):
            clipped_sum(net, torch.randn(8, WIDTH), 1, closing, 0.7)
    prototypes = nn.Linear(WIDTH, WIDTH)  # of the losses' own, which nobody trains here
    clipped_sum(net, torch.randn(8, WIDTH), 1, lambda h, z: losses(h, prototypes(z)), 0.7)


def _weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(nn.Linear(4, 4))


def _hooked() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.register_forward_hook(lambda *_: None)
    return layer


def _patched() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.forward = lambda x: x  # type: ignore[method-assign]
    return layer


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (_weight_norm, "weight_g, weight_v"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), "no rule"),
        (_hooked, "hooks"),
        (_patched, "forward of its own"),
    ],
    ids=["weight norm", "parametrised", "hook", "patched"],
)
def test_layers_whose_rule_would_not_fit_are_refused(
    make: Callable[[], nn.Module], problem: str
) -> None:
    with pytest.raises(PrivacyError, match=problem):
        check_separable(make())
    check_separable(make().requires_grad_(False))


def test_a_layer_fades_out_before_anything_overflows_and_not_by_a_step() -> None:
    """Gradients of ordinary length made of inputs that have no square in float32: the old factor
    was C/‖g‖ or 0, by a bit of rounding.
    """
    net = nn.Conv1d(1, 1, 2, bias=False)

    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = net

        def forward(self, x: Tensor) -> Tensor:
            return self.convolution(x).flatten(1)

    def length(scale: float) -> float:
        rows = scale * torch.ones(1, 1, 9)
        (found,) = clipped_sum(
            Sequence(), rows, 1, lambda h, z: z.sum((1, 2)) / scale, 1.0
        ).gradients
        return float(found.norm())

    lengths = [length(scale) for scale in (1.0, 1e10, 2e17, 3e17, 3.8e17, 1e18, 1.9e19, 1e30)]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)
    assert lengths[1:] == sorted(lengths[1:], reverse=True)
    assert lengths[0] > lengths[2] > lengths[4] > 0
    assert lengths[-3:] == [0.0, 0.0, 0.0]
    for scale in (1e10, 2e17, 3e17, 3.8e17, 4e17, 1.84e19):
        assert abs(length(scale * (1 + 1e-5)) - length(scale)) < 1e-4 * lengths[0]
