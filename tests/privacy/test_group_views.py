"""More than two views of each member of a group: the loss against its formula written out, and
that nothing of the guarantee counts them.
"""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secure_fl.audit import check_sensitivity, path_sensitivity
from secure_fl.audit.clip_canaries import CanaryModel, board_of, play
from secure_fl.audit.own_training import OwnTraining
from secure_fl.audit.subject import Subject
from secure_fl.coins import Coins
from secure_fl.config import FederationConfig, ObjectiveConfig
from secure_fl.data.views import own_views, two_views
from secure_fl.engines.embedded import new_noise
from secure_fl.errors import PrivacyError
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.factory.path_check import check_paths
from secure_fl.federation.factory.private_paths import TrainingPath
from secure_fl.federation.facts import PublicFacts
from secure_fl.models.convnet import ConvNet
from secure_fl.models.heads import EncoderProjector, Projector
from secure_fl.objectives.build import build_objective
from secure_fl.objectives.contrastive import NTXent
from secure_fl.objectives.separation import Separation
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.privacy.mechanisms.group import GroupNTXent, group_form, many_view_losses
from secure_fl_kernels.reference import group_nt_xent_loss

SHAPE, WIDTH = (1, 8, 8), 8


def network() -> EncoderProjector:
    torch.manual_seed(0)
    return EncoderProjector(ConvNet(1, WIDTH), Projector(WIDTH, 16, WIDTH, "group"))


def rows(units: int, members: int, views: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(units, views * members, *SHAPE, generator=generator)


def mechanism(members: int, views: int, objective: Any = None, **options: Any) -> GroupNTXent:
    form = group_form(objective or NTXent(0.2), members, views)
    return GroupNTXent(form, 0.5, 1e-12, 0.5, 40, **options)


def written_out(z: Tensor, members: int, temperature: float) -> float:
    """The formula, term by term, of one group's rows `[R, D]`."""
    u = (z / z.norm(dim=1, keepdim=True)).tolist()

    def similarity(i: int, j: int) -> float:
        return exp(sum(a * b for a, b in zip(u[i], u[j], strict=True)) / temperature)

    losses = []
    for i in range(len(u)):
        others = [a for a in range(len(u)) if a != i]
        everybody = sum(similarity(i, a) for a in others)
        own = [a for a in others if a % members == i % members]
        losses.append(-sum(log(similarity(i, p) / everybody) for p in own) / len(own))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("members", [2, 3, 5])
@pytest.mark.parametrize("views", [2, 3, 8])
def test_the_loss_is_the_formula(members: int, views: int) -> None:
    generator = torch.Generator().manual_seed(views)
    z = torch.randn(3, views * members, 6, generator=generator, dtype=torch.float64)
    found = many_view_losses(z, members, 0.3)
    assert found.tolist() == pytest.approx([written_out(group, members, 0.3) for group in z])


def test_two_views_are_nt_xent_and_a_group_s_loss_is_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4, 6, 5, generator=generator, dtype=torch.float64)
    first, second = z.unflatten(1, (2, 3)).unbind(1)
    expected = group_nt_xent_loss(first.flatten(0, 1), second.flatten(0, 1), 3, 0.5)
    torch.testing.assert_close(many_view_losses(z, 3, 0.5), expected)
    torch.testing.assert_close(many_view_losses(z[1:3], 3, 0.5), expected[1:3])


def test_gradients_are_those_of_finite_differences_and_finite_for_equal_rows() -> None:
    z = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    losses = lambda z: many_view_losses(z, 2, 0.5)  # noqa: E731
    assert torch.autograd.gradcheck(losses, z.requires_grad_())
    same = torch.ones(1, 6, 4, dtype=torch.float64, requires_grad=True)
    losses(same).sum().backward()
    assert same.grad is not None
    assert bool(same.grad.isfinite().all())


@pytest.mark.parametrize("method", ["hooks", "ghost"])
def test_the_sum_is_that_of_groups_taken_one_at_a_time(method: str) -> None:
    model, views = network(), rows(4, 3, 4)
    parameters, expected = list(model.parameters()), 0
    for group in views:
        loss = many_view_losses(model(group)[1][None], 3, 0.2).sum()
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        vector = torch.cat([part.flatten() for part in gradients])
        expected = expected + vector * min(1.0, 0.5 / float(vector.norm()))
    found = mechanism(3, 4, method=method).released_sums(model, views)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("view", range(3))
def test_one_broken_view_takes_its_whole_group_out_and_no_other(view: int) -> None:
    model, views, made = network(), rows(5, 4, 3), mechanism(4, 3)
    broken = views.clone()
    broken[1, 4 * view + 2, 0, 3, 3] = torch.nan
    kept = made.released_sums(model, views[[0, 2, 3, 4]])[0]
    torch.testing.assert_close(made.released_sums(model, broken)[0], kept)
    assert not made.released_sums(model, broken[1:2])[0].any()


@pytest.mark.parametrize(("members", "views"), [(2, 8), (3, 3)])
@pytest.mark.parametrize("name", ["nt_xent", "ssd_nt_xent"])
def test_a_search_finds_nothing_beyond_the_claim(members: int, views: int, name: str) -> None:
    config = ObjectiveConfig(name=name, form="normalized")
    objective = build_objective(config, Separation(torch.tensor([0, 2])))
    made = mechanism(members, views, objective)
    assert made.sensitivity(Adjacency.ZERO_OUT) == [0.5]
    report = check_sensitivity(made, shape=(4,), model=linear(4), examples=8)
    report.require()
    assert report.ratio > 0.9


def linear(width: int) -> nn.Module:
    torch.manual_seed(0)
    return EncoderProjector(nn.Linear(width, width), nn.Identity())


# In a run


def config(views: int) -> FederationConfig:
    return FederationConfig(
        objective={"name": "nt_xent"},
        model={"features": 16},
        pretrain={"rounds": 1, "local_epochs": 1, "batch_size": 16},
        pools={"enabled": False},
        privacy={"unit": "example", "mechanism": "group", "group_size": 3, "group_views": views},
    )


def path(views: int) -> TrainingPath:
    return TrainingPath(Factory.of(PublicFacts(config(views), SHAPE, 10, 12)), "pretrain")


def test_a_run_s_views_are_an_example_s_own_and_more_of_them_change_no_earlier_one() -> None:
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([[4, 1, 5], [0, 2, 3]])
    draws = Coins.public(0).at(2, index.flatten())
    made = {count: path(count).views_of(x, torch.zeros(6))(index, draws) for count in (2, 5)}
    assert isinstance(many := made[5], Tensor)
    assert many.shape == (2, 15, *SHAPE)
    assert torch.equal(many[:, :6], made[2])  # type: ignore[arg-type]
    alone = path(5).views_of(x, torch.zeros(6))(index[1:], draws[slice(3, 6)])
    assert torch.equal(alone, many[1:])  # type: ignore[arg-type]
    assert len(many.flatten(2).flatten(0, 1).unique(dim=0)) == 30


def test_views_of_a_caller_s_augmentation_belong_to_examples_too() -> None:
    def augment(x: Tensor) -> Tensor:
        return x + torch.randn_like(x)

    x, coins = torch.rand(4, *SHAPE), Coins.public(1).at(0, torch.arange(4))
    many = own_views(augment, x, coins, 3)
    assert len(many) == 3
    assert all(map(torch.equal, many, two_views(augment, x, coins)))
    chosen = torch.tensor([2, 0])
    again = own_views(augment, x[chosen], coins[chosen], 3)
    assert all(torch.equal(whole[chosen], part) for whole, part in zip(many, again, strict=True))


def test_optimised_neighbours_on_a_run_s_own_path_move_its_sum_no_further() -> None:
    report = path_sensitivity(config(4), examples=6, climbs=8)
    report.require()
    assert report.ratio > 0.3
    check_paths(path(4).factory, 40)


def test_an_audit_s_canaries_have_as_many_views() -> None:
    """A canary that is in moves its own coordinate by the whole clip bound, with noise off."""
    own = OwnTraining.of(Subject(config(4), None), "pretrain", new_noise())
    included = np.array([True, False, True, True])
    board = board_of(own, included, opposite=False)
    rows_U3RW = board.rows(torch.tensor([[0, 9, 10], [1, 11, 12], [2, 13, 14]]), "views")
    model = CanaryModel(board, 1e4, coded=False)
    views = rows_U3RW.transpose(1, 2).flatten(1, 2)
    assert views.shape[1] == 12
    moved = own.mechanism.released_sums(model, views)[0][1:][board.places]
    assert moved.abs().tolist() == pytest.approx([1, 0, 1, 0, 0, 0, 0, 0], abs=1e-4)
    assert play(own, board, 2).releases == (1, 1)


@pytest.mark.parametrize("views", [1, 9])
def test_fewer_than_two_views_or_more_than_eight_are_refused(views: int) -> None:
    with pytest.raises(PrivacyError, match="group_views"):
        group_form(NTXent(), 4, views)
