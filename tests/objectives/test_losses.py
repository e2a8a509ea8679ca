"""Typed errors around the losses, and separations."""

from __future__ import annotations

import pytest
import torch

from secure_fl.config import ObjectiveConfig
from secure_fl.errors import ConfigError, ObjectiveError
from secure_fl.objectives.losses import (
    align_loss,
    distillation_loss,
    dsr_loss,
    implementation,
    uniformity_loss,
)
from secure_fl.objectives.separation import Separation, SeparationPlan, random_basis


def test_refusals_name_loss_shape_and_remedy() -> None:
    z = torch.randn(1, 4)
    with pytest.raises(ObjectiveError) as caught:
        uniformity_loss(z)
    assert caught.value.field == "uniformity_loss"
    assert "('N', 4)" in str(caught.value), "a row's shape, and not how many there are"
    assert "N at least 2" in caught.value.remedy
    with pytest.raises(ObjectiveError, match="one width"):
        distillation_loss(torch.randn(3, 4), torch.randn(3, 5))
    with pytest.raises(ObjectiveError):
        align_loss(torch.randn(3, 4), torch.ones(3, 4, dtype=torch.int32))
    with pytest.raises(ObjectiveError, match="3 wide, the separation 4"):
        dsr_loss(torch.randn(3, 3), Separation(torch.tensor([3])))
    with pytest.raises(ObjectiveError, match="3 wide, the separation 4"):
        dsr_loss(torch.randn(3, 3), Separation(torch.tensor([0]), basis=torch.eye(4)))


def test_an_unknown_implementation_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "tiles" in implementation()
    monkeypatch.setenv("SECURE_FL_KERNELS", "abacus")
    for ask in (implementation, lambda: uniformity_loss(torch.randn(3, 2))):
        with pytest.raises(ConfigError, match="SECURE_FL_KERNELS") as caught:
            ask()
        assert "auto, triton, cpu, reference" in caught.value.remedy


@pytest.mark.parametrize(
    ("dims", "alpha", "basis"),
    [
        (torch.tensor([0, 0]), 10.0, None),
        (torch.tensor([-1]), 10.0, None),
        (torch.tensor([], dtype=torch.int64), 10.0, None),
        (torch.tensor([0.5]), 10.0, None),
        (torch.tensor([0]), 0.5, None),
        (torch.tensor([0]), float("nan"), None),
        (torch.tensor([0]), 10.0, torch.ones(3, 3)),
        (torch.tensor([0]), 10.0, torch.eye(3)[:2]),
        (torch.tensor([3]), 10.0, torch.eye(3)),
    ],
)
def test_bad_separations_are_refused(
    dims: torch.Tensor, alpha: float, basis: torch.Tensor | None
) -> None:
    with pytest.raises(ObjectiveError, match="separation"):
        Separation(dims, alpha, basis)


def test_slices_are_disjoint_equal_and_reproducible() -> None:
    plan = SeparationPlan.draw(ObjectiveConfig(), 512, 10, seed=3)
    assert plan.dims.shape == (10, 51)
    assert len(plan.dims.unique()) == 510
    assert torch.equal(plan.dims, SeparationPlan.draw(ObjectiveConfig(), 512, 10, seed=3).dims)
    assert not torch.equal(plan.dims, SeparationPlan.draw(ObjectiveConfig(), 512, 10, seed=4).dims)
    assert torch.equal(plan.of(7, position=2).dims, plan.dims[7])


def test_the_authors_quirk_follows_the_position() -> None:
    plan = SeparationPlan.draw(ObjectiveConfig(assign="position"), 64, 8, seed=0)
    assert torch.equal(plan.of(7, position=2).dims, plan.dims[2])


def test_more_clients_than_dimensions() -> None:
    with pytest.raises(ObjectiveError) as caught:
        SeparationPlan.draw(ObjectiveConfig(), 8, 9, seed=0)
    assert "modulo" in caught.value.remedy
    plan = SeparationPlan.draw(ObjectiveConfig(assign="modulo"), 8, 9, seed=0)
    assert plan.dims.shape == (8, 1)
    assert torch.equal(plan.of(8, 0).dims, plan.of(0, 0).dims)


def test_basis_is_orthonormal_and_shared() -> None:
    basis = random_basis(64, seed=1)
    torch.testing.assert_close(
        basis.T @ basis, torch.eye(64, dtype=torch.float64), atol=1e-14, rtol=0
    )
    assert torch.equal(basis, random_basis(64, seed=1))
    assert SeparationPlan.draw(ObjectiveConfig(basis="axis"), 64, 2, seed=1).basis is None
