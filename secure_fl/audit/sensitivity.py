"""Try to find a released sum that changes by more than its claim. It needs seconds, and finds batch
coupling that canaries cannot.

A canary measures what one example adds. Under a coupled loss the leak is in what it does to
everybody else's gradient, so the sums themselves are compared, noise off and coins fixed, on data
sets that differ by one example.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn

from secure_fl.audit.coupling import as_units, objective_findings, unit_findings
from secure_fl.audit.finding import Finding, SensitivityReport
from secure_fl.audit.neighbours import CLOUDS, NEWCOMERS, linear_model
from secure_fl.errors import PrivacyError
from secure_fl.models.build import seeded
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.objective import Objective
from secure_fl.objectives.unit_objectives import UnitObjective, has_units, unit_form
from secure_fl.privacy.adjacency import Adjacency

_NARROW = (4,)
_MISSING = "missing"


@runtime_checkable
class ReleasesSums(Protocol):
    """What is asked of a mechanism."""

    @property
    def adjacencies(self) -> frozenset[Adjacency]:
        """Those that it claims."""

    def released_sums(self, model: nn.Module, views: Any) -> list[Tensor]:
        """The sums that noise is added to, of units `[U, R, ...]`."""

    def sensitivity(self, adjacency: Adjacency) -> list[float]:
        """What one example changes each of them by, at most."""


def check_sensitivity(
    subject: Objective | UnitObjective | ReleasesSums,
    *,
    model: nn.Module | None = None,
    shape: Sequence[int] | None = None,
    examples: int = 16,
    trials: int = 1,
    seed: int = 0,
    prepare: Callable[[Tensor], Any] | None = None,
) -> SensitivityReport:
    """Compare what `subject` releases on neighbouring data sets with what it claims.

    **Guarantee**: a failed report holds neighbours on which the claim is false. **Assumes**: an
    example's own embedding does not depend on the others; a model with batch statistics fails.
    **Not covered**: data that nobody thought of, how examples are drawn, and noise.

    Args:
        subject: an objective (its declared coupling is checked) or a mechanism (its sums are).
        model: input -> `(h, z)`, or what the mechanism trains; by default a linear layer on which
            coupling shows. It is left as it is.
        shape: of one input, to be given together with a model. By default a wide one, where a
            hub meets all others and these do not meet each other, and a narrow one, `(4,)`.
        examples: in the larger data set. Batch coupling shows better with more.
        trials: how often to draw all data afresh.
        seed: of the data; no noise is drawn.
        prepare: units `[U, R, ...]` -> what the mechanism takes, unit by unit: `Labelled`.

    Raises:
        PrivacyError: a term declares `GROUP` and the objective does not say how large groups are.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = [tuple(shape)] if shape is not None else [(2 * examples + 2,), _NARROW]
    findings: list[Finding] = []
    for inputs in shapes * trials:
        network = copy.deepcopy(model) if model is not None else linear_model(inputs[0])
        if isinstance(subject, ReleasesSums):
            findings += mechanism_findings(subject, network, inputs, examples, generator, prepare)
        else:
            findings += _objective_findings(subject, network, inputs, examples, generator)
    return SensitivityReport(type(subject).__name__, tuple(findings))


def _objective_findings(
    subject: Objective | UnitObjective,
    model: nn.Module,
    shape: tuple[int, ...],
    examples: int,
    generator: Generator,
) -> Iterator[Finding]:
    if has_units(subject):
        yield from unit_findings(subject, model, shape, examples, generator)
        return
    yield from objective_findings(subject, model, shape, examples, generator)
    units = _units(subject, model, shape) if subject.coupling is Coupling.STATISTIC else None
    if units is not None:
        yield from unit_findings(units, model, shape, examples, generator)


@torch.no_grad()
def _units(objective: Objective, model: nn.Module, shape: tuple[int, ...]) -> UnitObjective | None:
    """The form that a mechanism would train with; None where no mechanism takes it."""
    try:
        return unit_form(objective, model(torch.zeros(2, *shape))[1].shape[1], seed=0)
    except PrivacyError:
        return None


def mechanism_findings(
    mechanism: ReleasesSums,
    model: nn.Module,
    shape: tuple[int, ...],
    examples: int,
    generator: Generator,
    prepare: Callable[[Tensor], Any] | None = None,
) -> Iterator[Finding]:
    """What a mechanism releases, with one example there, missing, and another; on a full and on a
    very small data set.

    Small ones show what large ones hide: an example's weight in a mean of the examples at hand.
    """
    members, views = getattr(mechanism, "members", 1), getattr(mechanism, "views", 2)
    for cloud in CLOUDS.values():
        for units in sorted({max(2, examples // members), 2}):
            x = cloud(units * members, views, shape, generator)
            worlds = {"itself": x} | {
                name: torch.cat([new(x[1:], generator)[None], x[1:]])
                for name, new in NEWCOMERS.items()
            }
            worlds_U = {name: as_units(world, members) for name, world in worlds.items()} | {
                _MISSING: _without_first(x, members)
            }
            sums = {}
            for name, rows in worlds_U.items():
                with seeded(0):
                    sums[name] = mechanism.released_sums(model, prepare(rows) if prepare else rows)
            yield from _compare(mechanism, sums)


def _without_first(x: Tensor, members: int) -> Tensor:
    """Units without the first example; its unit is gone, or lacks it where others are in it."""
    missing = [] if members == 1 else [torch.full_like(x[:1], torch.nan)]
    return as_units(torch.cat([*missing, x[1:]]), members)


def _compare(mechanism: ReleasesSums, sums: dict[str, list[Tensor]]) -> Iterator[Finding]:
    without = sums.pop(_MISSING)
    presence = mechanism.adjacencies & {Adjacency.ADD_REMOVE, Adjacency.ZERO_OUT}
    claims = list(map(min, zip(*map(mechanism.sensitivity, presence), strict=True)))
    for name, world in sums.items():
        yield from _changes("remove" if name == "itself" else "add", name, world, without, claims)
    if Adjacency.REPLACE_ONE in mechanism.adjacencies:
        claims = mechanism.sensitivity(Adjacency.REPLACE_ONE)
        for (old, before), (new, after) in combinations(sums.items(), 2):
            yield from _changes("replace", f"{old} by {new}", before, after, claims)


def _changes(
    edit: str, newcomer: str, before: list[Tensor], after: list[Tensor], claims: list[float]
) -> Iterator[Finding]:
    """One finding a released sum, for as many as are claimed; without a claim, none."""
    for number, (one, other, claim) in enumerate(zip(before, after, claims, strict=bool(claims))):
        change = float((one.double() - other.double()).norm())
        yield Finding(edit, newcomer, f"released sum {number}", change, claim)
