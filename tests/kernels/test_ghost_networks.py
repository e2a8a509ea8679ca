"""Ghost norms of whole networks against per-sample and per-group gradients that autograd forms one
at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from secure_fl_kernels import dispatch, per_sample, reference

Losses = Callable[[Tensor], Tensor]
"""From the network's outputs to one loss for each sample or group."""


class Sequences(nn.Module):
    """Linear layers over positions and one after their mean."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first, self.second, self.last = (
            nn.Linear(inputs, width),
            nn.Linear(width, 5, bias=False),
            nn.Linear(5, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x).tanh()).tanh().flatten(1, -2).mean(1))


class Images(nn.Module):
    """Convolutions of every kind and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, (3, 2), stride=2, padding=(1, 0))
        self.second = nn.Conv2d(6, 4, 3, padding=2, dilation=2, groups=2)
        self.third = nn.Conv2d(4, 4, 1, groups=4, bias=False)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.third(self.second(self.first(x).tanh()).tanh()).mean((2, 3)))


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def of_layer(layer: nn.Module, activations: Tensor, backprops: Tensor, group_size: int) -> Tensor:
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return per_sample.ghost_square_norms_linear(activations, backprops, bias, group_size)
    assert isinstance(layer, nn.Conv2d)
    return per_sample.ghost_square_norms_conv2d(
        activations,
        backprops,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        bias,
        group_size,  # type: ignore[arg-type]
    )


def ghost(network: nn.Module, x: Tensor, losses: Losses, group_size: int = 1) -> Tensor:
    """Squared norms from one forward and one backward pass over the whole batch."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    hooks = [
        layer.register_forward_hook(lambda one, given, out: seen.update({one: (given[0], out)}))
        for layer in layers
    ]
    total = losses(network(x)).sum()
    for hook in hooks:
        hook.remove()
    backprops = torch.autograd.grad(total, [seen[layer][1] for layer in layers])
    return torch.stack(
        [
            of_layer(layer, seen[layer][0], b, group_size)
            for layer, b in zip(layers, backprops, strict=True)
        ]
    ).sum(0)


def formed(network: nn.Module, x: Tensor, losses: Losses, group_size: int = 1) -> Tensor:
    """Squared norms of gradients formed one sample or group at a time."""
    parameters = list(network.parameters())
    result = []
    for start in range(0, len(x), group_size):
        gradients: Sequence[Tensor] = torch.autograd.grad(
            losses(network(x[start : start + group_size])).sum(), parameters
        )
        result.append(torch.stack([gradient.square().sum() for gradient in gradients]).sum())
    return torch.stack(result)


def squared(outputs: Tensor) -> Tensor:
    return outputs.square().sum(1)


def contrasted(outputs: Tensor) -> Tensor:
    """NT-Xent inside every group of four rows, two pairs each: a loss that does not split
    into samples.
    """
    return torch.stack(
        [reference.nt_xent_loss(group[:2], group[2:], 0.5) for group in outputs.split(4)]
    )


@pytest.fixture(params=["cpu", "reference"])
def provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, request.param)


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("losses", "group_size"), [(squared, 1), (contrasted, 4)])
@pytest.mark.parametrize("kind", ["vectors", "sequences", "images"])
def test_a_network_in_one_backward_pass(
    kind: str, losses: Losses, group_size: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    network = (Images() if kind == "images" else Sequences(7, 30)).to(dtype)
    shape = {"vectors": (8, 1, 7), "sequences": (8, 2, 3, 7), "images": (8, 2, 9, 8)}[kind]
    x = random(*shape, dtype=dtype)
    expected = formed(network.double(), x.double(), losses, group_size)
    got = ghost(network.to(dtype), x, losses, group_size)
    assert got.shape == (8 // group_size,)
    assert torch.allclose(
        got.double(), expected, rtol=1e-10 if dtype == torch.float64 else 1e-4, atol=0
    )


@settings(max_examples=30, deadline=None)
@given(
    samples=st.integers(1, 3),
    group_size=st.integers(1, 2),
    channels=st.integers(1, 3),
    outputs=st.integers(1, 3),
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    size=st.tuples(st.integers(5, 8), st.integers(5, 8)),
    bias=st.booleans(),
)
def test_any_convolution(
    samples: int,
    group_size: int,
    channels: int,
    outputs: int,
    groups: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    size: tuple[int, int],
    bias: bool,
) -> None:
    layer = nn.Conv2d(
        channels * groups, outputs * groups, kernel, stride, padding, dilation, groups, bias
    ).double()
    x = random(samples * group_size, channels * groups, *size, seed=samples)
    weights = random(*layer(x).shape[1:], seed=1)

    def losses(y: Tensor) -> Tensor:
        return (y.square() * weights).sum((1, 2, 3))

    assert torch.allclose(
        ghost(layer, x, losses, group_size), formed(layer, x, losses, group_size), rtol=1e-9, atol=0
    )


def test_patches_in_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from secure_fl_kernels.reference import gradients

    x, y = random(6, 3, 7, 7), random(6, 4, 7, 7, seed=1)
    whole = per_sample.ghost_square_norms_conv2d(x, y, 3, padding=1, group_size=2)
    monkeypatch.setattr(gradients, "PATCHES", 1)
    assert torch.allclose(
        per_sample.ghost_square_norms_conv2d(x, y, 3, padding=1, group_size=2), whole, rtol=1e-12
    )
    assert per_sample.ghost_square_norms_conv2d(x[:0], y[:0], 3, padding=1).shape == (0,)


def test_a_clipped_step_without_gradients_is_the_step_with_them() -> None:
    """Factors from ghost norms in a second backward pass: Σ_b f_b ∇ℓ_b, which `clip_and_sum` forms
    from rows.
    """
    torch.manual_seed(0)
    network, x = Sequences(7, 12).double(), random(6, 4, 7)
    factors = per_sample.clip_factors(ghost(network, x, squared), 1.27)
    second = torch.autograd.grad((factors * squared(network(x))).sum(), list(network.parameters()))
    singles = [
        torch.autograd.grad(squared(network(row[None])).sum(), list(network.parameters()))
        for row in x
    ]
    rows = torch.stack(
        [torch.cat([gradient.flatten() for gradient in gradients]) for gradients in singles]
    )
    assert int((factors < 1).sum()) not in (0, 6)
    expected = per_sample.clip_and_sum(rows, per_sample.square_norms(rows), 1.27)
    assert torch.allclose(
        torch.cat([gradient.flatten() for gradient in second]), expected, rtol=1e-9, atol=1e-12
    )


def test_what_is_no_such_convolution_is_refused() -> None:
    x, y = random(4, 4, 6, 6), random(4, 6, 4, 4)
    assert per_sample.ghost_square_norms_conv2d(x, y, 3).shape == (4,)
    for match, call in (
        (
            r"backprops must be \[B, O, 6, 6\]",
            lambda: per_sample.ghost_square_norms_conv2d(x, y, 3, padding=1),
        ),
        (
            r"backprops must be \[B, O, 4, 4\]",
            lambda: per_sample.ghost_square_norms_conv2d(x, y[:3], 3),
        ),
        (
            "do not divide into 4 groups",
            lambda: per_sample.ghost_square_norms_conv2d(x, y, 3, groups=4),
        ),
        ("groups of 3", lambda: per_sample.ghost_square_norms_conv2d(x, y, 3, group_size=3)),
        ("4 axes", lambda: per_sample.ghost_square_norms_conv2d(x[0], y, 3)),
    ):
        with pytest.raises(ValueError, match=match):
            call()
