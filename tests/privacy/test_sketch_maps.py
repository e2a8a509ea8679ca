"""What sketches are made of: whatever the map, one example moves a sum by its own part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secure_fl import Federation, run
from secure_fl.config import ModelConfig
from secure_fl.errors import PrivacyError
from secure_fl.federation.factory import sketch_vectors
from secure_fl.federation.factory.sketch_vectors import FixedMap, fixed_vectors, fixed_width
from secure_fl.models import build_encoder
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.private_sketch import GRID, PrivateSketch, on_grid
from secure_fl.privacy.rows_alone import check_rows_alone
from tests.helpers import make_images, tiny_config

SHAPES = {"image": (1, 8, 8), "colour": (3, 12, 12), "series": (2, 40), "table": (5,)}
KINDS = ("examples", "scattering", "features")
LABELS: dict[str, dict[str, Any]] = {
    "none": {},
    "coded": {"classes": 3},
    "by label": {"classes": 3, "by_label": True},
}
_ASCENT, _EXAMPLES = 12, 5


def encoder_of(shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    made: nn.Module = build_encoder(ModelConfig(features=16), shape, 0)
    return made.eval()


def maps(kind: str, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """Differentiable, as the fixed maps are but for `fixed_vectors`, which takes no gradient."""
    if kind == "encoder":
        return encoder_of(shape)
    if kind == "examples" or len(shape) == 1:
        return lambda x: fixed_vectors("examples", x)
    return sketch_vectors._map(kind, shape)  # type: ignore[arg-type]


def furthest(
    of: Callable[[Tensor], Tensor], sketch: PrivateSketch, x: Tensor, centre: Tensor, seed: int
) -> Tensor:
    """An example `[1, *shape]` in place of the first of `x` whose vector, centred and projected,
    points away from it as far as ascent by gradient finds.
    """
    generator = torch.Generator().manual_seed(seed)

    def direction(rows: Tensor) -> Tensor:
        unit = torch.nn.functional.normalize(of(rows).double(), dim=1)
        return torch.nn.functional.normalize((unit - centre) @ sketch.projection.T, dim=1)

    own = direction(x[:1]).detach()
    other = torch.randn(x[:1].shape, generator=generator).requires_grad_()
    for _ in range(_ASCENT):
        (slope,) = torch.autograd.grad((direction(other) * own).sum(), other)
        step = slope / slope.norm().clamp_min(1e-12) * other.detach().norm().clamp_min(1.0)
        other = (other.detach() - 0.5 * step).requires_grad_()
    return other.detach()


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [*KINDS, "encoder"])
def test_no_neighbour_however_chosen_moves_a_sum_further_than_is_charged(
    kind: str, shape: str, labels: str
) -> None:
    """Zero-out by one, replace-one by two, in exact integers; and the ascent comes near two."""
    of, size = maps(kind, SHAPES[shape]), SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(_EXAMPLES, *size, generator=generator), torch.arange(_EXAMPLES) % 3
    with torch.no_grad():
        mean = torch.nn.functional.normalize(of(x).double(), dim=1).mean(0)
    width = len(mean)
    sketch = PrivateSketch(2.0, width, 7, dimensions=4, **LABELS[labels])
    far = 0.0
    for seed in range(2):
        strays = torch.randn(width, generator=generator, dtype=torch.float64)
        centre = mean + 0.1 / width**0.5 * strays
        x2, y2 = x.clone(), y.clone()
        x2[:1], y2[0] = furthest(of, sketch, x, centre, seed), 1
        given = (None, None) if labels == "none" else (y, y2)
        with torch.no_grad():
            rows, rows2 = of(x), of(x2)
        for one, two in (
            (on_grid(rows), on_grid(rows2)),
            (
                sketch.contributions(rows, given[0], centre),
                sketch.contributions(rows2, given[1], centre),
            ),
        ):
            moved = float((one.sum(0) - two.sum(0)).double().norm()) / GRID
            assert moved <= 2
            assert float((one.sum(0) - one[1:].sum(0)).double().norm()) <= GRID
        far = max(far, moved)
    assert far > 1.2, "the ascent found nothing, and its bound means little"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_is_its_own_example_s_and_as_wide_as_said(kind: Any, shape: str) -> None:
    x = torch.rand(70, *SHAPES[shape], generator=torch.Generator().manual_seed(1))
    rows = fixed_vectors(kind, x)
    assert rows.shape == (70, fixed_width(kind, SHAPES[shape]))
    assert torch.equal(fixed_vectors(kind, x[3:4]), rows[3:4])
    check_rows_alone(FixedMap(kind).eval(), x[:5], sizes=[90])


class Coupled(nn.Module):
    """A map that takes the batch's mean off: what it says of one example moves with the others."""

    width = 64

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) - x.flatten(1).mean(0)


@pytest.mark.parametrize("unit", ["none", "example"])
def test_a_map_that_ties_examples_together_is_refused_before_anything_is_charged(
    unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sketch_vectors, "_map", lambda *_: Coupled())
    private = {"unit": "example", "epsilon": 60.0, "noise": 2.0}
    config = tiny_config(
        partition={"clients": 6, "groups": 2},
        pretrain={"mode": "none"},
        pools={"sketch_of": "scattering", "rounds": 2, "local_epochs": 1, "count": 2},
        security={"protection": "masked"},
        privacy=private if unit == "example" else {},
    )
    images = make_images(240)
    with pytest.raises(PrivacyError, match="other rows"):
        Federation(config, data=images).run(tmp_path / "run")
    assert not (tmp_path / "run" / "ledger.json").exists()
    monkeypatch.setattr(run, "check_paths", lambda *_: None)
    Federation(config, data=images).run(tmp_path / "unchecked")
    assert PrivacyLedger.load(tmp_path / "unchecked" / "ledger.json").releases


def test_one_example_moves_a_coupled_map_s_sum_too_far() -> None:
    """Why it is refused: the same fault, measured."""
    x = torch.zeros(40, 1, 8, 8)
    x[:, 0, 0, 0] = 1e-3
    x2 = x.clone()
    x2[0, 0, 4, 4] = 1.0
    sketch = PrivateSketch(2.0, 64, 7, dimensions=64)
    one, two = (
        sketch.contributions(Coupled()(each), None, torch.zeros(64)).sum(0) for each in (x, x2)
    )
    assert float((one - two).double().norm()) / GRID > 10
