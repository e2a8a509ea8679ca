"""Masked reconstruction: what is hidden, what must be predicted, and that examples do not meet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fl.errors import ObjectiveError
from secure_fl.models.heads import EncoderProjector
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.masked import MaskedReconstruction
from secure_fl.objectives.objective import TwoViews

SHAPES = [(6, 1, 12, 12), (6, 3, 13, 10), (6, 2, 21)]


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) + 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_cells_are_gone_from_the_input_and_alone_in_the_target(
    shape: tuple[int, ...],
) -> None:
    objective, x = MaskedReconstruction(seed=0), images(*shape)
    visible, cells = objective.hide(x)
    assert visible.shape == x.shape
    assert torch.equal(visible[visible != 0], x[visible != 0])
    count = 4 ** (x.ndim - 2)
    assert cells.shape == (6, x.shape[1] * count)
    assert ((cells != 0).sum(1) == x.shape[1] * count // 2).all()
    pool = functional.adaptive_avg_pool2d if x.ndim == 4 else functional.adaptive_avg_pool1d
    means = pool(x, 4).flatten(1)  # type: ignore[operator]
    assert torch.equal(cells[cells != 0], means[cells != 0])
    if shape[2] % 4 == 0:
        shown = pool(visible, 4).flatten(1)  # type: ignore[operator]
        assert not (shown[cells != 0]).any()


def test_examples_hide_different_cells_that_do_not_depend_on_them() -> None:
    objective = MaskedReconstruction(seed=0)
    torch.manual_seed(3)
    first = objective.hide(images(40, 1, 12, 12))[1] != 0
    torch.manual_seed(3)
    again = objective.hide(5 * images(40, 1, 12, 12))[1] != 0
    assert torch.equal(first, again)
    assert len({tuple(row.tolist()) for row in first}) > 35


def test_it_is_an_objective_without_coupling() -> None:
    objective = MaskedReconstruction(seed=0)
    torch.manual_seed(0)
    model = EncoderProjector(
        nn.Sequential(nn.Flatten(), nn.Linear(144, 10)), nn.Linear(10, 12)
    ).double()
    x = images(8, 1, 12, 12).double()
    torch.manual_seed(1)
    whole = objective.terms(TwoViews(x, x), model)["reconstruction"]
    torch.manual_seed(1)
    alone = [
        objective.target_losses(model(visible)[1][:, None], cells)
        for visible, cells in (objective.hide(x) for _ in range(2))
    ]
    assert torch.allclose(whole, torch.cat(alone).mean())
    assert objective.coupling is Coupling.PER_EXAMPLE
    assert set(objective.weights) == set(objective.couplings) == {"reconstruction"}


def test_the_target_can_be_learnt_and_needs_the_example() -> None:
    """A constant output leaves the targets' variance; a trained network explains half of it, though
    it never sees a hidden cell.
    """
    objective = MaskedReconstruction(seed=0)
    torch.manual_seed(0)
    base = torch.rand(256, 1, 3, 3)
    x = functional.interpolate(base, size=8, mode="bilinear")
    model = EncoderProjector(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU()), nn.Linear(128, 16)
    )
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(100):
        optimiser.zero_grad()
        objective.terms(TwoViews(x, x), model)["reconstruction"].backward()
        optimiser.step()
    visible, cells = objective.hide(x)
    model.eval()
    loss = objective.target_losses(model(visible)[1][:, None], cells).mean()
    targets = cells @ objective._projection(16, 16)
    assert loss.item() < 0.5 * float(targets.var(0, unbiased=False).mean())


def test_what_has_no_place_to_hide_is_refused() -> None:
    for x in (images(4, 9), images(4, 1, 3, 12)):
        with pytest.raises(ObjectiveError, match="cells"):
            MaskedReconstruction(seed=0).hide(x)
    for cells, hidden in ((1, 0.5), (4, 0.0), (4, 1.0)):
        with pytest.raises(ObjectiveError, match="hide"):
            MaskedReconstruction(0, cells, hidden)
