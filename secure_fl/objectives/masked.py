"""Masked reconstruction: predict what was hidden in an image or a series from what was not.
Examples do not meet at all.

Patches of a coarse grid are hidden, different ones for every example and drawn without looking at
it. The target is the hidden part alone, averaged over the grid's cells and mapped to D numbers by a
fixed random matrix; z is pulled towards it. So the projector's output is the reconstruction, and no
decoder is needed: a linear decoder from z back to the cells would be the matrix's pseudo-inverse.
That costs detail, which a low-resolution target would not have kept anyway.

Because the target belongs to an example as a label does, ordinary per-example clipping is valid:
`hide` makes (input, target) for it. `terms` is the same loss for training without privacy. After:
He et al. 2022 (masked autoencoders); under differential privacy Yu et al. 2023, arXiv 2306.08842.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional

from secure_fl.errors import ObjectiveError
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.objective import Objective, TwoViewModel, TwoViews
from secure_fl.seeds import generator_of


@dataclass(frozen=True)
class MaskedReconstruction(Objective):
    """Mean squared error between z and a random projection of the hidden cells.

    Attributes:
        seed: public; draws the projection.
        cells: of the grid, a side.
        hidden: share of cells hidden.
    """

    seed: int
    cells: int = 4
    hidden: float = 0.5

    def __post_init__(self) -> None:
        if self.cells < 2 or not 0 < self.hidden < 1:
            problem = "nothing to hide or nothing to see"
            remedy = "use at least 2 cells a side and a share between 0 and 1, such as 4 and 0.5"
            raise ObjectiveError(
                problem, field="masked", value=(self.cells, self.hidden), remedy=remedy
            )

    @property
    def weights(self) -> Mapping[str, float]:
        return {"reconstruction": 1.0}

    @property
    def couplings(self) -> Mapping[str, Coupling]:
        return {"reconstruction": Coupling.PER_EXAMPLE}

    def terms(self, batch: TwoViews, model: TwoViewModel) -> dict[str, Tensor]:
        """Mean over both views; torch's global generator draws cells, as augmentations."""
        losses = []
        for x in batch:
            visible, cells = self.hide(x)
            z = model(visible)[1]
            losses.append(self.target_losses(z[:, None], cells).mean())
        return {"reconstruction": torch.stack(losses).mean()}

    def places(self, x: Tensor) -> int:
        """Cells that an example of `x` `[N, C, ...]` is cut into."""
        return int(self.cells ** (x.ndim - 2))

    def hide(self, x: Tensor, numbers: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`x` `[N, C, H, W]` or `[N, C, L]` with cells set to zero, and the hidden cells' means
        `[N, C·cells]`, zero where not hidden.

        Args:
            numbers: `[N, places(x)]`: the cells of an example with the smallest ones are hidden.
                Without them torch's global generator draws.

        Raises:
            ObjectiveError: x has no place to hide, or is smaller than the grid.
        """
        sides = x.ndim - 2
        if sides not in (1, 2) or min(x.shape[2:]) < self.cells:
            remedy = "use images or series at least as large as the grid"
            raise ObjectiveError(
                "cannot be cut into cells", field="x", value=("N", *x.shape[1:]), remedy=remedy
            )
        if numbers is None:
            numbers = torch.rand(len(x), self.places(x), device=x.device)
        chosen = self._choose(x, numbers.to(x.device))
        size = list(x.shape[2:])
        mask = functional.interpolate(chosen, size=size, mode="nearest")
        pooled = (functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d)[sides - 1]
        means: Tensor = pooled(x, self.cells)
        return x * (1 - mask), (means * chosen).flatten(1)

    def target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """`outputs` `[U, R, D]`, hidden cells `[U, C·cells]` -> `[U]`."""
        matrix = self._projection(targets.shape[1], outputs.shape[2]).to(outputs)
        return (outputs - (targets @ matrix)[:, None]).square().mean((1, 2))

    def _choose(self, x: Tensor, numbers: Tensor) -> Tensor:
        """1 on hidden cells, `[N, 1, cells, ...]`, equally many for every example."""
        count = self.places(x)
        hidden = max(1, min(count - 1, round(self.hidden * count)))
        chosen: Tensor = numbers.argsort(stable=True, dim=1).argsort(1) < hidden
        return chosen.to(x.dtype).reshape(len(x), 1, *[self.cells] * (x.ndim - 2))

    def _projection(self, inputs: int, outputs: int) -> Tensor:
        """Random signs over √(hidden · inputs): targets have the cells' root mean square."""
        generator = generator_of(self.seed, "masked", inputs, outputs)
        signs = 2.0 * torch.randint(0, 2, (inputs, outputs), generator=generator) - 1
        return signs / sqrt(self.hidden * inputs)
