"""Does an objective couple examples as it declares, and no more?

What clipping needs is that the other examples' gradients stay as they are when one example changes.
An example's gradient is its Jacobian, which is its own, times the loss's gradient by its
embeddings; so these are compared, N·∂T/∂(h, z), where T is a mean.

| declared | what must not change |
|---|---|
| `PER_EXAMPLE` | the others' gradients, when one example is added or replaced |
| `STATISTIC` | any gradient, when every example is there twice: means stay, and so must it |
| `GROUP` | the gradients of all other groups of `objective.group_size` neighbouring examples |
| `BATCH` | nothing is claimed |

The condition on `STATISTIC` is necessary, not sufficient. What a mechanism trains with is the
objective cut into units (`objectives.units`), and that is checked with its statistic held fixed: a
unit's contribution has norm at most 1, and neither contributions nor losses depend on other units.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Generator, Tensor, nn

from secure_fl.audit.finding import Finding
from secure_fl.audit.neighbours import CLOUDS, FINITE, NEWCOMERS
from secure_fl.errors import PrivacyError
from secure_fl.models.build import seeded
from secure_fl.objectives.coupling import Coupling
from secure_fl.objectives.objective import Objective, TwoViews
from secure_fl.objectives.unit_objectives import UnitObjective

_UNCHANGED = 1e-6
"""Share of the gradients' length below which they are unchanged; the order of sums moves 1e-13."""


def objective_findings(
    objective: Objective,
    model: nn.Module,
    shape: tuple[int, ...],
    examples: int,
    generator: Generator,
) -> Iterator[Finding]:
    """Every term against its declared coupling, on `examples` inputs of `shape`, in float64."""
    model = copy.deepcopy(model).double()
    for cloud in CLOUDS.values():
        x = cloud(examples, 2, shape, generator).double()
        before = _gradients(objective, model, x)
        tossing = _tosses_coins(objective, model, x)
        yield from _replicated(objective, model, x, before)
        for name in FINITE:
            newcomer = NEWCOMERS[name](x[1:], generator).double()
            after = _gradients(objective, model, torch.cat([newcomer[None], x[1:]]))
            yield from _edited(objective, before, after, 0, "replace", name)
            if not tossing:
                after = _gradients(objective, model, torch.cat([x, newcomer[None]]))
                yield from _edited(objective, before, after, examples, "add", name)


def unit_findings(
    units: UnitObjective,
    model: nn.Module,
    shape: tuple[int, ...],
    examples: int,
    generator: Generator,
) -> Iterator[Finding]:
    """The objective's units against what is claimed of them; a group's members are `units.members`,
    where it has that attribute.
    """
    model = copy.deepcopy(model).double()
    members, views = getattr(units, "members", 1), getattr(units, "views", 2)
    for cloud in CLOUDS.values():
        count = max(2, examples // members)
        x = cloud(count * members, views, shape, generator).double()
        released = _released(units, model, x, count)
        before = _by_unit(units, model, x, members, released)
        for name in FINITE:
            changed = torch.cat([NEWCOMERS[name](x[1:], generator).double()[None], x[1:]])
            after = _by_unit(units, model, changed, members, released)
            for part, value in after.items():
                change = float((value - before[part])[1:].norm())
                claim = _UNCHANGED * float(before[part].norm())
                yield Finding("replace", name, f"{part} of other units", change, claim)
            if "statistic" in after:
                added = float(after["statistic"][0].norm())
                yield Finding("add", name, "statistic", added, 1 + _UNCHANGED)


def _released(units: UnitObjective, model: nn.Module, x: Tensor, count: int) -> Tensor | None:
    if units.statistic is None:
        return None
    with torch.no_grad():
        z = model(x.flatten(0, 1))[1]
        added = units.statistic.contributions(z.reshape(count, -1, z.shape[1])).sum(0)
        return units.statistic.mean(added, count, 0.0)


def _by_unit(
    units: UnitObjective, model: nn.Module, x: Tensor, members: int, released: Tensor | None
) -> dict[str, Tensor]:
    """Losses `[U]`, their gradients by (h, z), and contributions: a row a unit."""
    rows = as_units(x, members)
    with torch.no_grad():
        h, z = (part.reshape(*rows.shape[:2], -1) for part in model(rows.flatten(0, 1)))
    h, z = h.clone().requires_grad_(), z.clone().requires_grad_()
    losses = units.unit_losses(h, z, released)
    gradients = torch.autograd.grad(losses.sum(), (h, z), materialize_grads=True)
    found = {
        "loss": losses.detach(),
        "gradient": torch.cat([part.flatten(1) for part in gradients], 1),
    }
    if units.statistic is not None:
        found["statistic"] = units.statistic.contributions(z.detach())
    return found


def _tosses_coins(objective: Objective, model: nn.Module, x: Tensor) -> bool:
    """Then one example more gives all others new coins, which alone changes their gradients."""
    with seeded(0), torch.no_grad():
        before = torch.random.get_rng_state()
        objective.terms(TwoViews(x[:, 0], x[:, 1]), model)
        return not torch.equal(before, torch.random.get_rng_state())


def as_units(x: Tensor, members: int) -> Tensor:
    """Examples `[N, V, ...]` as units `[N / members, V · members, ...]`, view by view."""
    units: Tensor = x.unflatten(0, (-1, members))
    return units.transpose(1, 2).flatten(1, 2)


def _edited(
    objective: Objective,
    before: dict[str, Tensor],
    after: dict[str, Tensor],
    edited: int,
    edit: str,
    newcomer: str,
) -> Iterator[Finding]:
    """Rows that must be equal: all but the edited example's, or all but its group's."""
    for term, coupling in objective.couplings.items():
        if coupling not in (Coupling.PER_EXAMPLE, Coupling.GROUP):
            continue
        size = 1 if coupling is Coupling.PER_EXAMPLE else _group_size(objective)
        count = min(len(before[term]), len(after[term]))
        others = torch.arange(count) // size != edited // size
        change = float((after[term][:count] - before[term][:count])[others].norm())
        yield Finding(edit, newcomer, term, change, _UNCHANGED * float(before[term].norm()))


def _replicated(
    objective: Objective, model: nn.Module, x: Tensor, before: dict[str, Tensor]
) -> Iterator[Finding]:
    """Terms declared to meet in a statistic, with every example there twice."""
    terms = [
        term for term, coupling in objective.couplings.items() if coupling is Coupling.STATISTIC
    ]
    after = _gradients(objective, model, torch.cat([x, x])) if terms else {}
    for term in terms:
        change = float((after[term][: len(x)] - before[term]).norm())
        yield Finding(
            "add", "every example again", term, change, _UNCHANGED * float(before[term].norm())
        )


def _group_size(objective: Objective) -> int:
    size = getattr(objective, "group_size", None)
    if not isinstance(size, int) or size < 1:
        problem = "a term is declared GROUP and the groups are not"
        remedy = "give the objective `group_size`: how many neighbouring examples make a group"
        raise PrivacyError(problem, field="group_size", value=size, remedy=remedy)
    return size


def _gradients(objective: Objective, model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """N·∂T/∂(h, z) of every term, a row an example."""
    outputs: list[Tensor] = []

    def embed(rows: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            embedded = model(rows)
        pair = tuple(part.requires_grad_() for part in embedded)
        outputs.extend(pair)
        return pair[0], pair[1]

    with seeded(0):
        terms = objective.terms(TwoViews(x[:, 0], x[:, 1]), embed)
    result = {}
    for name, term in terms.items():
        found = torch.autograd.grad(term, outputs, retain_graph=True, materialize_grads=True)
        rows = [
            gradient.reshape(-1, len(x), gradient.shape[-1]).transpose(0, 1).flatten(1)
            for gradient in found
        ]
        result[name] = len(x) * torch.cat(rows, 1)
    return result
