"""The whole way from examples to what is noised: objectives, models and views that tie examples
together are refused on noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from privacy.broken import mixup
from privacy.example_cases import stream
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.coins import Coins
from secure_fl.errors import PrivacyError
from secure_fl.experimental.logit import LogitDP
from secure_fl.models.heads import EncoderProjector
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.unit_objectives import CrossEntropy
from secure_fl.privacy.engine import PrivateSpec, Sampling, choose_mechanism, train_privately
from secure_fl.privacy.mechanisms.mechanism import Labelled
from secure_fl.privacy.mechanisms.per_example import AdaptiveBound, PerExample
from secure_fl.privacy.unit_gradients import clipped_sum
from secure_fl.privacy.views_apart import Examples, check_views_apart
from secure_fl.privacy.whole_path import (
    check_adds_up,
    check_embedding,
    check_step,
    check_training,
)

WIDTH = 16
VECTORS = Examples((WIDTH,), torch.device("cpu"), 40)


# Objectives


class Objective:
    """Says that its losses belong to one example each."""

    coupling, statistic = Coupling.PER_EXAMPLE, None

    def __init__(self, losses: Callable[[Objective, Tensor, Tensor], Tensor]) -> None:
        self.losses, self.calls = losses, 0

    def unit_losses(self, h: Tensor, z: Tensor, released: Tensor | None) -> Tensor:
        return self.losses(self, h, z)


def apart(z: Tensor) -> Tensor:
    return (z[:, 0] - z[:, 1]).square().sum(1)


def detached_keys(_: Objective, h: Tensor, z: Tensor) -> Tensor:
    """MoCo's: queries against everybody's keys, which have no gradient."""
    queries = functional.normalize(z[:, 0], dim=1)
    keys = functional.normalize(z[:, 1], dim=1).detach()
    return functional.cross_entropy(queries @ keys.T / 0.2, torch.arange(len(z)), reduction="none")


class MeanInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] + 0.01 * ctx.saved_tensors[0].mean(0)


def counting(objective: Objective, h: Tensor, z: Tensor) -> Tensor:
    objective.calls += 1
    return apart(z) * (1 if objective.calls < 10_000 else 2)


LOSSES: dict[str, Callable[[Objective, Tensor, Tensor], Tensor]] = {
    "detached keys": detached_keys,
    "detached mean": lambda _, h, z: (z - z.detach().mean(0)).square().sum((1, 2)),
    "largest loss": lambda _, h, z: apart(z) / apart(z).detach().max(),
    "hardest left out": lambda _, h, z: apart(z) * (apart(z).detach() < apart(z).detach().max()),
    "by rank": lambda _, h, z: apart(z) * apart(z).detach().argsort().argsort(),
    "straight through": lambda _, h, z: ((z - z.detach()) * z.detach().std(0, correction=0)).sum(
        (1, 2)
    ),
    "in the backward pass": lambda _, h, z: apart(MeanInBackward.apply(z)),
    "through h": lambda _, h, z: apart(z) * h.detach().norm(),
    "number of units": lambda _, h, z: apart(z) / len(z),
    "in odd batches": lambda _, h, z: apart(z) * (1 + len(z) % 2),
    "in large batches": lambda _, h, z: apart(z) * (1 + (len(z) > 20)),
    "copies": lambda _, h, z: (
        apart(z) * ((z[:, None] - z).detach().flatten(2).norm(dim=2) < 1e-6).sum(1)
    ),
    "beside NaN": lambda _, h, z: apart(z) * float(not bool(z.isnan().any())),
    "counting": counting,
}


def model() -> EncoderProjector:
    torch.manual_seed(0)
    return EncoderProjector(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))


def per_example(losses: Callable[[Objective, Tensor, Tensor], Tensor]) -> Any:
    return choose_mechanism(Objective(losses), Sampling(60, 0.6, 1.0), dimension=WIDTH, seed=0)


def pairs(x: Tensor) -> Any:
    return lambda index, draws: torch.stack([x[index[:, 0]], x[index[:, 0]].flip(1)], 1)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_that_tie_units_together_are_refused_before_anything_is_released(name: str) -> None:
    with pytest.raises(PrivacyError):
        check_training(model(), per_example(LOSSES[name]), pairs, 1, VECTORS)
    network = model()
    before = [p.detach().clone() for p in network.parameters()]
    with pytest.raises(PrivacyError):
        train_privately(
            network,
            pairs(torch.randn(60, WIDTH)),
            per_example(LOSSES[name]),
            PrivateSpec(2, 0.1),
            stream(),
        )
    if (
        name != "counting"
    ):  # what an objective remembers is read at the end; its client sends nothing
        assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True))


@pytest.mark.parametrize(
    "name",
    ["detached keys", "detached mean", "straight through", "in the backward pass", "largest loss"],
)
def test_every_step_looks_at_its_losses_again(name: str) -> None:
    """In `clipped_sum` itself, for whoever calls a mechanism directly; halves are drawn
    at random.
    """
    mechanism, views = per_example(LOSSES[name]), torch.randn(24, 2, WIDTH)
    with pytest.raises(PrivacyError, match="other units' rows"):
        twenty_times(lambda: mechanism.released_sums(model(), views))


def twenty_times(call: Callable[[], object]) -> None:
    """Two units are in different halves with probability 1/2: one pair that is coupled gets through
    all once in a million times.
    """
    for _ in range(20):
        call()


def test_honest_losses_are_let_through() -> None:
    honest: list[Callable[[Objective, Tensor, Tensor], Tensor]] = [
        lambda _, h, z: apart(z),
        lambda _, h, z: z.flatten(1).norm(dim=1) + h.abs().amax((1, 2)),
    ]
    for losses in honest:
        mechanism = per_example(losses)
        check_training(model(), mechanism, pairs, 1, VECTORS)
        train_privately(
            model(), pairs(torch.randn(60, WIDTH)), mechanism, PrivateSpec(2, 0.1), stream()
        )


def test_models_of_pictures_and_of_words_may_refuse_what_is_neither() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.inner = nn.Embedding(256, WIDTH), model()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h, z = self.inner(self.words((255 * x).long())[:, :4].mean(1))
            return h, z

    mechanism = per_example(lambda _, h, z: apart(z))
    check_training(Words(), mechanism, pairs, 1, VECTORS)
    with pytest.raises(PrivacyError):
        check_training(Words(), per_example(LOSSES["detached mean"]), pairs, 1, VECTORS)


def test_clipping_hides_no_coupling() -> None:
    """A loss that counts the units, whose gradients are all clipped to one length, adds up; where
    nothing is clipped it does not.
    """
    tight = replace(per_example(LOSSES["number of units"]), clip=1e-4)
    views, draws = torch.rand(6, 2, WIDTH), Coins.public(0).at(0, torch.arange(6))
    whole, first, rest = (
        tight.released_sums(model(), part)[0] for part in (views, views[:1], views[1:])
    )
    torch.testing.assert_close(whole, first + rest, rtol=1e-4, atol=1e-9)
    with pytest.raises(PrivacyError, match="not the sum of its units' parts"):
        check_adds_up(model(), tight, views, draws)


def test_a_mechanism_that_couples_by_its_proof_is_left_to_it() -> None:
    views = torch.rand(6, 2, WIDTH)
    check_adds_up(
        model(), LogitDP(0.5, 1.0, 1.0, 0.5, 20, 16), views, Coins.public(0).at(0, torch.arange(6))
    )


def test_labels_and_counts_add_up_too() -> None:
    def labelled(x: Tensor) -> Any:
        return lambda index, draws: Labelled(x[index[:, 0]][:, None], index[:, 0] % 3)

    head = nn.Linear(WIDTH, 3)
    check_training(
        head, PerExample(CrossEntropy(), 40, 0.5, 1.0, AdaptiveBound(1.0)), labelled, 1, VECTORS
    )


# Models and views


def test_a_gate_that_is_closed_yet_hides_no_coupling() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.gate = nn.Linear(WIDTH, WIDTH), nn.Linear(1, 1, bias=False)
            nn.init.zeros_(self.gate.weight)

        def forward(self, x: Tensor) -> Tensor:
            h = self.linear(x)
            return h + self.gate(h.mean(0)[:, None])[:, 0]

    with pytest.raises(PrivacyError, match="other rows"):
        check_embedding(Gated(), VECTORS)


def test_views_that_depend_on_other_examples_are_refused_on_the_step_s_own() -> None:
    x, index = torch.rand(60, WIDTH), torch.arange(12)[:, None]
    draws = Coins.public(0).at(0, index[:, 0])
    check_views_apart(pairs(x), index, draws)
    for views_of in (
        lambda index, draws: torch.stack([mixup(x[index[:, 0]])] * 2, 1),
        lambda index, draws: torch.stack([x[index[:, 0]] + torch.rand(len(index), 1)] * 2, 1),
        lambda index, draws: torch.stack([x[index[:, 0]] - x[index[:, 0]].mean(0)] * 2, 1),
    ):
        with pytest.raises(PrivacyError, match="views depend on the others"):
            check_views_apart(views_of, index, draws)
        with pytest.raises(PrivacyError, match="views depend on the others"):
            train_privately(
                model(),
                views_of,
                per_example(lambda _, h, z: apart(z)),
                PrivateSpec(1, 0.1),
                stream(),
            )


def test_a_model_that_writes_to_its_weights_or_draws_in_a_step_is_refused() -> None:
    class Late(nn.Module):
        """Behaves while it is tried."""

        def __init__(self, late: Callable[[Late, Tensor], None]) -> None:
            super().__init__()
            self.inner, self.late = model(), late

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            if len(x) > 20:
                self.late(self, x)
            h, z = self.inner(x)
            return h, z

    def writes(late: Late, x: Tensor) -> None:
        with torch.no_grad():
            late.inner.encoder.bias.add_(0 * x.mean())  # type: ignore[operator]

    def draws(late: Late, x: Tensor) -> None:
        torch.rand(1)

    for late, message in ((writes, "writes to its weights"), (draws, "coins of its own")):
        mechanism = per_example(lambda _, h, z: apart(z))
        views = pairs(torch.randn(60, WIDTH))
        with pytest.raises(PrivacyError, match=message):
            train_privately(Late(late), views, mechanism, PrivateSpec(1, 0.1), stream(), tried=True)


@pytest.mark.parametrize(
    "rows", [torch.rand(6, 2, WIDTH), torch.rand(2, 2, WIDTH)], ids=["six", "two"]
)
def test_a_step_s_check_does_not_look_at_its_values(rows: Tensor) -> None:
    check_step(model(), per_example(lambda _, h, z: apart(z)), rows * torch.nan, 1)
    with pytest.raises(PrivacyError):
        check_step(model(), per_example(detached_keys), rows * torch.nan, 1)


def test_the_old_check_would_have_let_detached_keys_pass() -> None:
    """The planted fault: without the second look a unit's keys move the sum by more than twice
    the bound.
    """
    centre = functional.normalize(
        torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1
    )
    queries = centre + 0.15 * torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(1))
    keys = 0.35 * centre + 0.9 * functional.normalize(
        queries - centre * (queries @ centre.T), dim=1
    )
    views, hub = torch.stack([queries, keys], 1), torch.stack([-centre, centre], 1)

    def total(views: Tensor) -> Tensor:
        """What a sum clipped for each unit would be, without a look at others' values."""
        network = nn.Linear(WIDTH, WIDTH, bias=False)
        nn.init.eye_(network.weight)
        z = network(views.flatten(0, 1)).view(-1, 2, WIDTH)
        losses = detached_keys(Objective(detached_keys), z, z)
        parts = [torch.autograd.grad(loss, network.weight, retain_graph=True)[0] for loss in losses]
        return torch.stack([part / part.norm().clamp_min(1) for part in parts]).sum(0)

    assert float((total(torch.cat([views, hub])) - total(views)).norm()) > 2
    with pytest.raises(PrivacyError, match="other units' rows"):
        twenty_times(
            lambda: clipped_sum(
                model(),
                views.flatten(0, 1),
                2,
                lambda h, z: detached_keys(Objective(detached_keys), h, z),
                1.0,
            )
        )
