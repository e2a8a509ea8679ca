"""How many examples a private step has drawn is secret: no error that a step can raise says it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from secure_fl.errors import PrivacyError, SecureFLError
from secure_fl.experimental.logit import LogitDP
from secure_fl.models.heads import EncoderProjector
from secure_fl.objectives import losses
from secure_fl.objectives.masked import MaskedReconstruction
from secure_fl.objectives.separation import Separation
from secure_fl.privacy.mechanisms.per_example import PerExample
from secure_fl.privacy.row_isolation import check_rows_stay_apart
from secure_fl.privacy.unit_gradients import clipped_sum
from secure_fl_kernels import functional, per_sample

DRAWN = 41
"""Units in the step; two rows each make 82. No setting below has these digits."""


def network() -> EncoderProjector:
    return EncoderProjector(nn.Linear(3, 3), nn.Linear(3, 3))


def rows(count: int = DRAWN, width: int = 3) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0))


def coupled(h: Tensor, z: Tensor) -> Tensor:
    return (z - z.mean(0)).square().sum((1, 2))


def logit() -> LogitDP:
    return LogitDP(
        temperature=0.5,
        pair_bound=1.0,
        noise_multiplier=1.0,
        sampling_rate=0.5,
        examples=60,
        largest_batch=10,
    )


def by_target() -> PerExample:
    return PerExample(MaskedReconstruction(seed=0), 60, 0.5, 1.0, 1.0)


CASES: dict[str, Callable[[], object]] = {
    "coupled losses": lambda: [
        clipped_sum(network(), rows(2 * DRAWN), 2, coupled, 1.0) for _ in range(5)
    ],
    "one loss for all": lambda: clipped_sum(network(), rows(), 1, lambda h, z: z.sum(), 1.0),
    "rows of half a unit": lambda: clipped_sum(network(), rows(), 2, coupled, 1.0),
    "rows combined": lambda: check_rows_stay_apart(DRAWN, torch.zeros(DRAWN - 1, 5)),
    "more than the bound": lambda: logit().released_sums(network(), torch.zeros(DRAWN, 2, 3)),
    "no targets": lambda: by_target().released_sums(network(), torch.zeros(DRAWN, 1, 3)),
    "narrow z": lambda: losses.dsr_loss(rows(), Separation(torch.tensor([7]))),
    "unequal widths": lambda: losses.distillation_loss(rows(), rows(width=5)),
    "unequal views": lambda: losses.nt_xent_loss(rows(), rows(DRAWN - 1)),
    "no rows": lambda: losses.align_loss(rows()[..., None], rows()[..., None]),
    "small images": lambda: MaskedReconstruction(seed=0).hide(torch.zeros(DRAWN, 1, 2, 2)),
    "groups": lambda: functional.group_nt_xent_loss(rows(), rows(), 3),
    "norms": lambda: per_sample.clip_and_sum(rows(), torch.ones(DRAWN - 1), 1.0),
    "ghosts": lambda: per_sample.ghost_square_norms_linear(
        torch.zeros(DRAWN, 4, 3), torch.zeros(DRAWN, 5, 3)
    ),
    "ghosts' rows": lambda: per_sample.ghost_square_norms_linear(rows(), rows(DRAWN - 1)),
    "ghosts' groups": lambda: per_sample.ghost_square_norms_linear(rows(), rows(), group_size=3),
    "axes": lambda: per_sample.clip_and_sum(torch.zeros(DRAWN, 3, 3), torch.ones(DRAWN), 1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_no_error_says_how_many_were_drawn(case: str) -> None:
    with pytest.raises((SecureFLError, ValueError)) as caught:
        CASES[case]()
    for secret in (DRAWN, DRAWN - 1, 2 * DRAWN):
        assert str(secret) not in str(caught.value), caught.value


def test_an_error_that_says_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> None:
        raise PrivacyError(
            "a unit's loss depends on other units' rows",
            field="unit_losses",
            value=f"{DRAWN} units",
            remedy="none",
        )

    monkeypatch.setitem(CASES, "coupled losses", told)
    with pytest.raises(AssertionError, match="units"):
        test_no_error_says_how_many_were_drawn("coupled losses")
