"""The choice of a mechanism by coupling, and the loop: coins, noise, and nothing that comes out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from privacy.example_cases import (
    OBJECTIVES,
    SEPARATION,
    WIDTH,
    encoder_projector,
    images,
    stream,
    written,
)
from torch import Tensor, nn

from secure_fl.coins import Coins, Draws
from secure_fl.config import ObjectiveConfig
from secure_fl.errors import PrivacyError, TrainingError
from secure_fl.objectives.build import build_objective
from secure_fl.objectives.masked import MaskedReconstruction
from secure_fl.objectives.unit_objectives import CrossEntropy
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.engine import PrivateSpec, Sampling, choose_mechanism, train_privately
from secure_fl.privacy.mechanisms.group import GroupNTXent
from secure_fl.privacy.mechanisms.mechanism import Labelled
from secure_fl.privacy.mechanisms.per_example import AdaptiveBound, PerExample
from secure_fl.privacy.mechanisms.released_statistics import ReleasedStatistics

SAMPLING = Sampling(examples=60, sampling_rate=0.3, noise_multiplier=1.0, bound=0.5)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_mechanism_follows_from_the_coupling() -> None:
    for objective in OBJECTIVES.values():
        made = choose_mechanism(objective, SAMPLING, dimension=WIDTH, seed=0)
        assert isinstance(made, ReleasedStatistics)
        assert (made.examples, made.sampling_rate, made.noise_multiplier, made.bound) == (
            60,
            0.3,
            1.0,
            0.5,
        )
    for alone in (
        CrossEntropy(),
        MaskedReconstruction(0),
        build_objective(ObjectiveConfig(name="align_uniform", beta=0)),
    ):
        assert isinstance(choose_mechanism(alone, SAMPLING, dimension=WIDTH, seed=0), PerExample)
    adaptive = choose_mechanism(
        CrossEntropy(), SAMPLING, dimension=3, seed=0, adaptive=AdaptiveBound(0.1)
    )
    assert isinstance(adaptive, PerExample)
    assert adaptive.bound == 0.1


def test_groups_are_made_when_asked_for() -> None:
    for config in (
        ObjectiveConfig(name="nt_xent"),
        ObjectiveConfig(name="ssd_nt_xent", form="normalized"),
    ):
        objective = build_objective(config, SEPARATION)
        made = choose_mechanism(
            objective, SAMPLING, dimension=WIDTH, seed=0, mechanism="group", group_size=4
        )
        assert isinstance(made, GroupNTXent)
        assert Adjacency.ADD_REMOVE not in made.adjacencies
        assert (made.examples, made.sampling_rate, made.noise_multiplier, made.bound) == (
            60,
            0.3,
            1.0,
            0.5,
        )


@pytest.mark.parametrize("mechanism", ["auto", "per-example", "released-statistics"])
def test_no_name_leads_to_clipping_single_examples_of_a_coupled_loss(mechanism: str) -> None:
    for config, remedy in (
        (ObjectiveConfig(name="nt_xent"), 'mechanism = "group"'),
        (ObjectiveConfig(name="ssd_nt_xent", form="normalized"), 'mechanism = "group"'),
        (ObjectiveConfig(name="ssd", form="code"), 'form = "normalized"'),
    ):
        with pytest.raises(PrivacyError, match=remedy):
            choose_mechanism(
                build_objective(config, SEPARATION),
                SAMPLING,
                dimension=WIDTH,
                seed=0,
                mechanism=mechanism,
            )  # type: ignore[arg-type]


def test_a_mechanism_that_does_not_fit_is_refused() -> None:
    for objective, mechanism in (
        (OBJECTIVES["spectral"], "per-example"),
        (CrossEntropy(), "released-statistics"),
        (OBJECTIVES["spectral"], "group"),
        (CrossEntropy(), "group"),
    ):
        with pytest.raises(PrivacyError):
            choose_mechanism(objective, SAMPLING, dimension=WIDTH, seed=0, mechanism=mechanism)  # type: ignore[arg-type]
    with pytest.raises(PrivacyError, match=r"model\.embedding"):
        choose_mechanism(OBJECTIVES["spectral"], SAMPLING, dimension=65, seed=0)


def views_of(x: Tensor, seen: list[tuple[Tensor, Tensor]] | None = None) -> Any:
    """Rows as they are; what was asked for is noted, with the first number of everybody's coins."""

    def make(index: Tensor, draws: Draws) -> Tensor:
        if seen is not None:
            seen.append((index[:, 0], draws.uniform(1, 0)[:, 0]))
        assert index.shape[1] == 1
        assert len(index) > 0
        return x[index[:, 0]]

    return make


def test_steps_are_sgd_on_noised_gradients() -> None:
    """The same coins and noise by hand."""
    model, x, seen = encoder_projector(), images(60), list[tuple[Tensor, Tensor]]()
    by_hand = copy.deepcopy(model)
    made = choose_mechanism(OBJECTIVES["spectral"], SAMPLING, dimension=WIDTH, seed=0)
    spec = PrivateSpec(steps=3, lr=0.1, momentum=0.5, weight_decay=0.01)
    assert train_privately(model, views_of(x, seen), made, spec, stream()) is None  # type: ignore[func-returns-value]
    del seen[1]  # the first step's views are asked for again, of half of its units
    source = stream()
    coins = Coins(source.words(4).tobytes())
    optimiser = torch.optim.SGD(by_hand.parameters(), lr=0.1, momentum=0.5, weight_decay=0.01)
    for step in range(3):
        index = made.draw(source)
        assert torch.equal(seen[step][0], index[:, 0])
        assert torch.equal(seen[step][1], coins.at(step, index[:, 0]).uniform(1, 0)[:, 0])
        made.gradients(by_hand, x[index[:, 0]], source)
        optimiser.step()
    assert torch.equal(flat(model), flat(by_hand))
    assert all(p.grad is None for p in model.parameters())
    assert len(torch.cat([numbers for _, numbers in seen]).unique()) == sum(
        len(index) for index, _ in seen
    )


def test_empty_steps_are_taken_and_noised() -> None:
    model, before = encoder_projector(), flat(encoder_projector())
    made = choose_mechanism(
        OBJECTIVES["spectral"], Sampling(60, 1e-9, 1.0, 1e-9), dimension=WIDTH, seed=0
    )
    assert len(made.draw(stream())) == 0
    train_privately(model, views_of(images(60)), made, PrivateSpec(4, 0.1), stream())
    assert not torch.equal(flat(model), before)


class Dropping(nn.Module):
    """Drops elements of z, by a layer or by the function, whose masks are nobody's."""

    def __init__(self, functional: bool = False) -> None:
        super().__init__()
        self.inner, self.drop, self.functional = encoder_projector(), nn.Dropout(0.5), functional

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h, z = self.inner(x)
        return h, nn.functional.dropout(z, 0.5, self.training) if self.functional else self.drop(z)


def test_training_leaves_the_caller_s_random_state_alone_and_dropout_follows_the_secret_key() -> (
    None
):
    made = choose_mechanism(
        OBJECTIVES["spectral"], Sampling(60, 0.3, 1e-9), dimension=WIDTH, seed=0
    )
    found = []
    for seed in (0, 0, 1):
        model = Dropping()
        torch.manual_seed(5)
        train_privately(model, views_of(images(60)), made, PrivateSpec(1, 0.1), stream(seed=seed))
        assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(5)))
        found.append(flat(model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_groups_train_too_and_heads_with_labels() -> None:
    x = images(60)
    model, before = encoder_projector(), flat(encoder_projector())
    groups = choose_mechanism(
        build_objective(ObjectiveConfig(name="nt_xent")),
        SAMPLING,
        dimension=WIDTH,
        seed=0,
        mechanism="group",
    )

    def grouped(index: Tensor, draws: Draws) -> Tensor:
        return torch.cat([x[index][:, :, 0], x[index][:, :, 1]], 1)

    train_privately(model, grouped, groups, PrivateSpec(2, 0.1), stream())
    assert not torch.equal(flat(model), before)
    heads = choose_mechanism(CrossEntropy(), SAMPLING, dimension=WIDTH, seed=0)
    labels = torch.arange(60) % WIDTH

    def with_labels(index: Tensor, draws: Draws) -> Labelled:
        return Labelled(x[index[:, 0]][:, :1], labels[index[:, 0]])

    train_privately(model, with_labels, heads, PrivateSpec(2, 0.1), stream("heads"))  # type: ignore[arg-type]


class Centred(nn.Module):
    """Mixes rows where no layer shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = encoder_projector()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h, z = self.inner(x)
        return h, z - z.mean(0)


def test_a_model_with_batch_statistics_and_one_that_diverges_are_refused() -> None:
    made = choose_mechanism(OBJECTIVES["spectral"], SAMPLING, dimension=WIDTH, seed=0)
    with pytest.raises(PrivacyError, match=r'model\.norm = "group"'):
        train_privately(
            nn.Sequential(nn.BatchNorm2d(1)),
            views_of(images(60)),
            made,
            PrivateSpec(1, 0.1),
            stream(),
        )
    with pytest.raises(PrivacyError, match="depends on the other rows"):
        train_privately(Centred(), views_of(images(60)), made, PrivateSpec(1, 0.1), stream())
    with pytest.raises(TrainingError, match="diverged"):
        train_privately(
            encoder_projector(),
            views_of(images(60)),
            made,
            PrivateSpec(3, 1e38, weight_decay=1.0),
            stream(),
        )


def test_gradients_are_not_left_for_others_to_read() -> None:
    model = encoder_projector()
    made = choose_mechanism(OBJECTIVES["spectral"], SAMPLING, dimension=WIDTH, seed=0)
    made.gradients(model, images(5), stream())
    assert bool(torch.isfinite(written(model)).all())
