"""Training with the kernels is training without them: losses and gradients, step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secure_fl.config import ObjectiveConfig
from secure_fl.models.heads import EncoderProjector
from secure_fl.objectives.build import build_objective
from secure_fl.objectives.objective import Objective, TwoViews, total_loss
from secure_fl.objectives.separation import SeparationPlan
from secure_fl_kernels import dispatch

STEPS = 100


def network(dtype: torch.dtype) -> EncoderProjector:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 16))
    return EncoderProjector(
        encoder, nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16))
    ).to(dtype)


def batch(step: int, dtype: torch.dtype) -> TwoViews:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    first, second = (
        x + 0.3 * torch.randn(40, 12, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    return TwoViews(first.to(dtype), second.to(dtype))


def objective(name: str) -> Objective:
    config = ObjectiveConfig(name=name, temperature=0.2)  # type: ignore[arg-type]
    return build_objective(config, SeparationPlan.draw(config, 16, 4, seed=0).of(1, 0))


def loss_and_gradient(
    chosen: Objective, model: EncoderProjector, views: TwoViews
) -> tuple[Tensor, Tensor]:
    loss = total_loss(chosen.weights, chosen.terms(views, model))
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return loss.detach(), torch.cat([g.flatten() for g in gradients])


def train(name: str, provider: str, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Losses of steps that run free in float64."""
    monkeypatch.setenv(dispatch.VARIABLE, provider)
    model, chosen, losses = network(torch.float64), objective(name), []
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(STEPS):
        loss = total_loss(chosen.weights, chosen.terms(batch(step, torch.float64), model))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", ["ssd", "ssd_nt_xent"])
def test_a_hundred_steps_in_double_precision_are_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_kernels, without = train(name, "cpu", monkeypatch), train(name, "reference", monkeypatch)
    assert max(abs(a - b) for a, b in zip(with_kernels, without, strict=True)) < 1e-9
    assert without[-1] < without[0] - 0.1


@pytest.mark.parametrize("name", ["ssd", "ssd_nt_xent"])
def test_a_hundred_steps_in_single_precision_agree_at_the_same_weights(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, chosen = network(torch.float32), objective(name)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(STEPS):
        views, got = batch(step, torch.float32), {}
        for provider in ("cpu", "reference"):
            monkeypatch.setenv(dispatch.VARIABLE, provider)
            got[provider] = loss_and_gradient(chosen, model, views)
        (loss, gradient), (expected, exact) = got["cpu"], got["reference"]
        assert abs(loss - expected) <= 1e-5 * abs(expected)
        assert (gradient - exact).norm() <= 1e-5 * exact.norm()
        sizes = [p.numel() for p in model.parameters()]
        for parameter, part in zip(model.parameters(), exact.split(sizes), strict=True):
            parameter.grad = part.reshape(parameter.shape)
        optimiser.step()
